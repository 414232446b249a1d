"""The force regularization recipe through the real command line."""

import pytest

from spokeshave.cli.main import main
from spokeshave.errors import InvalidArgument
from spokeshave.models import ResNetCifar
from spokeshave.recipes.force import PAPER, Config, Row, plan_of
from spokeshave.recipes.force_rows import ROWS
from spokeshave.regularizers import Pull
from spokeshave.report.arms_record import ArmsRecord
from spokeshave.structures.tiles import CONVOLUTIONS


def smoke(tmp_path, row: str, *options: str) -> ArmsRecord:
    words = ["run", "force", "--row", row, "--smoke", "--run-dir", str(tmp_path / row), *options]
    assert main(words) == 0
    return ArmsRecord.load(tmp_path / row)


def test_published_ranks_give_the_published_mean_ratios() -> None:
    paper = PAPER["resnet20"]
    full = [m.out_channels for m in ResNetCifar(20).modules() if isinstance(m, CONVOLUTIONS) and m.kernel_size[0] > 1]
    assert len(full) == 19
    for arm, ranks in paper["ranks"].items():
        ratio = sum(rank / most for rank, most in zip(ranks, full, strict=True)) / 19
        assert round(ratio, 3) == paper["mean_rank_ratio"][arm]


def test_a_smoke_run_compares_both_arms(tmp_path, capsys) -> None:
    record = smoke(tmp_path, "convnet")
    arms = {arm.name: arm for arm in record.arms}
    assert list(arms) == ["float", "plain", "plain-low-rank", "force", "force-low-rank"]
    assert all(0 < arms[name].number("mean_rank_ratio") <= 1 for name in ("float", "plain", "force"))
    for name in ("plain-low-rank", "force-low-rank"):
        assert arms[name].number("torch_speedup_batch_16") > 0 and arms[name].number("compiled_speedup_batch_16") > 0
        assert 0 < arms[name].number("flops_share") <= 1
    (rows,) = record.layers.values()
    assert [row["layer"] for row in rows] == ["conv1", "conv2", "conv3"]
    assert all(1 <= row["force-low-rank"] <= row["force"] <= row["full"] for row in rows)  # cut at a larger error
    shown = capsys.readouterr().out
    assert "force-low-rank" in (tmp_path / "convnet" / "report.html").read_text() and "page:" in shown
    assert smoke(tmp_path, "convnet", "--resume").arms[3].errors == record.arms[3].errors


def test_rows_are_whole_and_options_change_them() -> None:
    assert set(ROWS) == {row.value for row in Row}
    plan = plan_of(Config(row=Row.CONVNET, strength=0.5, kind=Pull.L1, force_epochs=2, max_error=0.1, cut_error=0.3))
    assert (plan.strength, plan.kind, plan.force.epochs, plan.max_error) == (0.5, Pull.L1, 2, 0.1)
    assert plan.cut_error == 0.3 and plan_of(Config(row=Row.CONVNET)).cut_error == 0.2
    for wrong in (Config(seeds=()), Config(max_error=1.0), Config(cut_error=-0.1), Config(finetune_epochs=-1)):
        with pytest.raises(InvalidArgument, match="at least"):
            plan_of(wrong)
