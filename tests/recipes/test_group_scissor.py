"""The Group Scissor recipe through the real command line."""

from itertools import pairwise

import pytest

from spokeshave.cli.main import main
from spokeshave.errors import InvalidArgument
from spokeshave.models import ConvNet, LeNet
from spokeshave.recipes.group_scissor import PAPER, Config, Row, plan_of
from spokeshave.recipes.group_scissor_rows import ROWS
from spokeshave.report.arms_record import ArmsRecord
from spokeshave.structures.factorized_layer import FactorizedLayer
from spokeshave.targets.crossbar.wires_and_area import area_share


def smoke(tmp_path, row: str, *options: str) -> ArmsRecord:
    words = ["run", "group_scissor", "--row", row, "--smoke", "--run-dir", str(tmp_path / row), *options]
    assert main(words) == 0
    return ArmsRecord.load(tmp_path / row)


def test_rows_and_published_areas_fit_the_ranks() -> None:
    assert set(ROWS) == {row.value for row in Row} and set(PAPER) <= set(ROWS)
    for name, network in (("lenet", LeNet), ("convnet", ConvNet)):
        plan, dense, small = ROWS[name](), network(), network()
        assert list(plan.ranks.values()) == PAPER[name]["ranks"]
        for layer, rank in plan.ranks.items():
            setattr(small, layer, FactorizedLayer.of(layer, small.get_submodule(layer), rank))
        assert round(100 * area_share(small, dense), 2) == PAPER[name]["area"]


@pytest.mark.parametrize("row", ["lenet", "convnet"])
def test_a_smoke_run_clips_deletes_and_prices(tmp_path, row, capsys) -> None:
    record = smoke(tmp_path, row, "--control")
    arms = {arm.name: arm for arm in record.arms}
    assert list(arms) == ["float", "control", "direct", "clipped", "deleted"]
    assert arms["float"].number("area_share") == arms["control"].number("area_share") == 1
    assert round(100 * arms["direct"].number("area_share"), 2) == PAPER[row]["area"]
    plan = ROWS[row]()
    assert arms["deleted"].number("wires_share") <= plan.keep[-1] + 0.01 < 1 == arms["clipped"].number("wires_share")
    assert arms["deleted"].number("area_share") == arms["clipped"].number("area_share")
    assert 0 < arms["deleted"].number("mean_routing_share") < 1
    ranks = [set(epoch["ranks"]) for epoch in record.history["clip"]]
    assert ranks and all(names == set(plan.ranks) for names in ranks)
    assert "page:" in capsys.readouterr().out
    page = (tmp_path / row / "report.html").read_text()
    assert all(words in page for words in ("Ranks under clipping", "Crossbars: deleted", "crossbar area"))


def test_the_front_has_a_line_for_each_way_and_a_resumed_run_gives_it_again(tmp_path, capsys) -> None:
    record = smoke(tmp_path, "lenet-front")
    labels = [curve.label for curve in record.charts[0].curves]
    assert len(labels) == len(set(labels)) == 3
    for curve in record.charts[0].curves:
        assert all(a <= b for a, b in pairwise(curve.xs)) and len(curve.xs) == len(curve.ys)
    words = ["run", "group_scissor", "--row", "lenet-front", "--smoke", "--run-dir", str(tmp_path / "lenet-front")]
    assert main(words) == 2 and "already holds a finished run" in capsys.readouterr().err
    again = smoke(tmp_path, "lenet-front", "--resume")
    assert [arm.errors for arm in again.arms] == [arm.errors for arm in record.arms]
    assert main(["show", str(tmp_path / "lenet-front")]) == 0


def test_options_change_the_plan_and_wrong_ones_are_refused() -> None:
    plan = plan_of(Config(row=Row.LENET, clip_epochs=3, strength=2.0))
    assert plan.clip.epochs == 3 and plan.delete.epochs == ROWS["lenet"]().delete.epochs
    assert plan.wires == 2 * ROWS["lenet"]().wires
    for wrong in (Config(seeds=()), Config(strength=-1.0), Config(delete_epochs=-1)):
        with pytest.raises(InvalidArgument, match="at least"):
            plan_of(wrong)
