"""The recipe of MAT through the real command line: every arm, processes, resuming, choosing strengths, options."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from spokeshave.cli.main import main
from spokeshave.errors import InvalidArgument
from spokeshave.recipes import mat
from spokeshave.recipes.mat import PAPER, Config, Row, plan_of
from spokeshave.recipes.mat_arms import LABELS, ArmName, stages_of, words
from spokeshave.recipes.mat_figures import charts, comparisons, zones
from spokeshave.recipes.mat_judging import Verdict
from spokeshave.recipes.mat_rows import ROWS
from spokeshave.report.arms_record import ArmsRecord
from spokeshave.threats.gradient_attack import InnerAttack


def smoke(folder: Path, *options: str) -> ArmsRecord:
    assert main(["run", "mat", "--smoke", "--run-dir", str(folder), *options]) == 0
    return ArmsRecord.load(folder)


def verdict(pgd: list[float], *signs: str) -> Verdict:
    return Verdict([0.9, 0.1, 10], [0.9, 0.1, 10], [0.0, 0.1, 0.2], pgd, pgd, [], [], [], [], list(signs))


def test_rows_and_arms_are_whole() -> None:
    assert set(ROWS) == {row.value for row in Row} == {*PAPER, "demo"} and set(LABELS) == set(ArmName)
    for name, made in ROWS.items():
        plan = made()
        assert set(plan.strengths) <= set(plan.tested) and bool(plan.gap) is not name.endswith("-fgsm")
        assert (plan.inner is InnerAttack.FGSM) is name.endswith("-fgsm")
        images = torch.rand(2, *((3, 32, 32) if "cifar" in name else (1, 28, 28)))
        assert plan.network()(images).shape == (2, 10)
    assert [words(one, ROWS["cifar10"]()) for one in ROWS["cifar10"]().strengths] == [
        "2/255",
        "4/255",
        "8/255",
        "12/255",
    ]
    assert stages_of(ROWS["mnist"](), "parallel") == ["single-0.05", "single-0.1", "single-0.2", "single-0.3"]


def test_a_smoke_run_compares_every_arm_and_resume_repeats_it(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    record = smoke(tmp_path / "run", "--strengths", "0.1", "0.2")
    arms = {arm.name: arm for arm in record.arms}
    assert list(arms) == ["plain", "single-0.1", "single-0.2", *(arm.value for arm in ArmName)]
    assert record.headline == "mixed" and record.paper is None
    assert [arms[name].number("networks") for name in ("mixed", "parallel", "mixed-ensemble")] == [1, 2, 2]
    assert arms["mixed-long"].number("epochs") > arms["mixed"].number("epochs")
    for arm in arms.values():
        numbers = arm.numbers[0]
        assert 0 <= numbers["autoattack_0.2_share"] <= 1 and 0 <= numbers["pgd_area"] <= 1
        assert {f"{attack}_{one}_share" for attack in ("fgsm", "pgd") for one in ("0.05", "0.1", "0.15", "0.2")} <= set(
            numbers
        )
    titles = [chart.title for chart in record.charts]
    assert titles[:3] == ["Accuracy under all attacks", "Accuracy under PGD-2", "Accuracy under AutoAttack"]
    assert [curve.label for curve in record.charts[0].curves][2:4] == ["single-0.2, AutoAttack", "mixed, PGD"]
    assert len(record.charts) == 5 and len(record.layers) in (3, 4)  # with signs of masking, or without
    assert len(record.tables) == 4 and record.tables[-1].row_names == ["single-0.1", "single-0.2", "mixed-0"]
    assert [row.label for row in record.galleries[0].rows] == ["clean", "0.1", "0.2"]
    assert "page:" in capsys.readouterr().out and (tmp_path / "run" / "report.html").stat().st_size > 20_000
    assert main(["run", "mat", "--smoke", "--run-dir", str(tmp_path / "run")]) != 0
    assert "resume" in capsys.readouterr().err
    judged = tmp_path / "run" / "seed-0" / "judged" / "mixed.json"
    judged.write_text(judged.read_text()[:50])  # as a full disk might leave it: measured anew
    with pytest.warns(RuntimeWarning, match="mixed.json is damaged"):
        again = smoke(tmp_path / "run", "--strengths", "0.1", "0.2", "--resume")
    assert [arm.numbers for arm in again.arms] == [arm.numbers for arm in record.arms]
    assert json.loads(judged.read_text())["result"]["pgd"][0] > 0


def test_processes_find_what_one_process_finds(tmp_path: Path) -> None:
    options = ["--arms", "mixed", "--strengths", "0.2", "--epochs", "1", "--images", "40", "--judged", "0"]
    found = []
    for workers in ("1", "2"):
        folder = tmp_path / workers / "run"
        assert main(["run", "mat", *options, "--workers", workers, "--run-dir", str(folder)]) == 0
        found.append(ArmsRecord.load(folder))
    assert [arm.numbers for arm in found[0].arms] == [arm.numbers for arm in found[1].arms]
    assert [arm.errors for arm in found[0].arms] == [arm.errors for arm in found[1].arms]


def test_strengths_are_chosen_by_a_random_walk(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert (
        main(["run", "mat", "--smoke", "--walk", "2", "--strengths", "0.1", "0.2", "--run-dir", str(tmp_path / "w")])
        == 0
    )
    said = capsys.readouterr().out
    assert "best of 2 proposals on the validation split: --strengths" in said and "as given" in said
    assert not (tmp_path / "w" / "run.json").exists()


def test_tables_mark_zones_and_say_how_far_structures_are_from_the_best() -> None:
    plan = replace(plan_of(Config(strengths=(0.1, 0.2))), tested=(0.1, 0.2))
    one = {
        "plain": verdict([0.99, 0.1, 0.0], "more steps do less"), "single-0.1": verdict([0.95, 0.80, 0.30]),
        "single-0.2": verdict([0.94, 0.70, 0.60]), "mixed": verdict([0.96, 0.78, 0.61]),
    }  # fmt: skip
    table = zones(plan, [one])[0]
    assert table.row_names == ["0.1", "0.2"] and table.column_names == ["0", "0.1", "0.2"]
    assert table.outlined == [[True, True, False], [True, False, True]]
    made = comparisons(plan, [one])
    (above,) = made[
        f"Accuracy under PGD-{plan.pgd_steps}: points above the best single-strength network at each strength of attack"
    ]
    assert above == {"arm": "mixed", "0": "+1.0", "0.1": "−2.0", "0.2": "+1.0"}
    assert made["Signs of gradient masking, first seed"] == [{"arm": "plain", "sign": "more steps do less"}]
    assert [curve.dashed for curve in charts(plan, [one])[1].curves] == [True, True, True, False]
    assert one["mixed"].numbers(plan, ["0.1", "0.2"])["pgd_area"] == pytest.approx(
        ((0.96 + 0.78) / 2 + (0.78 + 0.61) / 2) / 2
    )


def test_weights_stay_with_their_strengths() -> None:
    plan = plan_of(Config(row=Row.MNIST, strengths=(0.3, 0.1), weights=(5.0, 1.0)))
    assert plan.strengths == (0.1, 0.3) and plan.weights == (1.0, 5.0)
    assert plan_of(Config(row=Row.MNIST, strengths=(0.3, 0.1))).weights == ()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"epochs": -1}, "at least 0"),
        ({"strengths": (0.1, 0.1)}, "different"),
        ({"strengths": (0.0,)}, "above 0"),
        ({"strengths": (2.0,)}, "at most 1"),
        ({"weights": (1.0, 2.0)}, "one for each strength"),
        ({"seeds": ()}, "at least one seed"),
        ({"arms": ()}, "at least one seed"),
    ],
)
def test_bad_options_are_refused(options: dict, said: str) -> None:
    with pytest.raises(InvalidArgument, match=said):
        mat.plan_of(Config(**options))
