"""The recipe of poisoning through the real command line: every arm and table, resuming, options."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from spokeshave.arms_course import open_course
from spokeshave.cli.main import main
from spokeshave.errors import InvalidArgument
from spokeshave.recipes.poisoning import PAPER, QUANTITIES, Config, Row, plan_of
from spokeshave.recipes.poisoning_arms import CLEAN, LABELS, ArmName, DetectorName, Walk
from spokeshave.recipes.poisoning_rows import ROWS
from spokeshave.recipes.poisoning_tables import HIDING, RETRAINED, SEEN
from spokeshave.report.arms_record import ArmsRecord
from spokeshave.threats.poison_budget import Placement
from spokeshave.timing import using_threads

HIDDEN = ("area", "caught_share", "filtered_share")


def smoke(tmp_path: Path, row: str, *options: str) -> ArmsRecord:
    words = ["run", "poisoning", "--row", row, "--smoke", "--run-dir", str(tmp_path / row), *options]
    assert main(words) == 0
    return ArmsRecord.load(tmp_path / row)


def test_rows_and_arms_are_whole() -> None:
    assert set(ROWS) == {row.value for row in Row} and set(PAPER) < set(ROWS) and set(LABELS) == set(ArmName)
    for plan in (make() for make in ROWS.values()):
        assert plan.budget.steps == 1 and plan.differences <= plan.poisons < plan.validation
        assert plan.together(7).placement is Placement.TOGETHER and plan.together(7).steps == 7
        assert plan.joint_ascent(10) == plan.joint and plan.joint_ascent(100) == plan.joint_long


def test_a_smoke_run_makes_every_poison_and_table(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    record = smoke(tmp_path, "demo")
    arms = {arm.name: arm for arm in record.arms}
    assert list(arms) == [CLEAN, *(name.value for name in ArmName)] and record.headline == "generator"
    for name in ("direct", "surrogate", "generator"):
        # The median of the turns' ratios beside the ratio of the medians: not the same, nor its inverse.
        ratio = arms["differences"].number("seconds") / arms[name].number("seconds")
        assert ratio / 3 < arms[name].number("times_faster") < 3 * ratio
    assert arms["direct"].number("times_faster") > 3 and arms["generator"].number("times_faster") > 3
    assert set(QUANTITIES) <= {key for arm in record.arms for numbers in arm.numbers for key in numbers}
    for arm in record.arms[1:]:
        # Leaving out what is suspicious leaves the victim where it was: as good as clean for these, else as poisoned.
        errors = sorted((arms[CLEAN].errors[0], arm.errors[0]))
        for key in ("loss", "both"):
            assert errors[0] - 1e-6 <= arm.number(f"{key}_filtered_error_share") <= errors[1] + 1e-6
        assert 0 <= arm.number("loss_area") <= 1 and 0 <= arm.number("both_found_share") <= 1
        kept = load_file(tmp_path / "demo" / "seed-0" / "poisons" / f"{arm.name}.safetensors")
        assert arm.errors[0] == pytest.approx(1 - kept["accuracies"].mean().item())
        assert torch.equal(
            kept["labels"] == kept["base_labels"], torch.full_like(kept["labels"] > 0, arm.name == "true-label")
        )
        assert torch.equal(kept["images"], kept["base_images"]) is (arm.name == "flip")
    assert list(record.layers) == [SEEN, RETRAINED, HIDING]
    assert [row[""] for row in record.layers[SEEN]] == [name.value for name in DetectorName]
    assert len(record.layers[RETRAINED]) == 1 and len(record.layers[HIDING]) == 2 * 4
    noted = arms[CLEAN].numbers[0]
    table = {key.split(" | ")[2]: value for key, value in noted.items() if key.startswith("Retraining")}
    hidden = {key.split(" | ")[2] for key in noted if key.startswith("Poison that hides")}
    assert hidden == {"accuracy_share", *(f"{name}_{what}" for name in ("loss", "both") for what in HIDDEN)}
    assert {"none_share", "flip_share", "joint_share", "joint_filtered_by_both_share", "elsewhere_joint_share"} <= set(
        table
    )
    assert len(record.charts) == 4 and [curve.label for curve in record.charts[0].curves] == list(arms)[1:]
    (shown,) = record.galleries
    assert [row.label for row in shown.rows] == ["base images", *list(arms)[1:]] and len(shown.rows[-1].pictures) == 4
    assert "page:" in capsys.readouterr().out and (tmp_path / "demo" / "report.html").stat().st_size > 20_000
    again = smoke(tmp_path, "demo", "--resume", "--arms", "flip", "generator", "--skip")
    assert [arm.errors for arm in again.arms] == [arms[name].errors for name in (CLEAN, "flip", "generator")]


def test_a_resumed_run_measures_again_only_what_is_damaged(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    options = ("--arms", "flip", "direct", "generator")
    first = smoke(tmp_path, "demo", *options)
    said = capsys.readouterr().out
    assert "seed 0, generator:" in said and "seed 0, 2 steps, 10 % poison:" in said
    again = smoke(tmp_path, "demo", "--resume", *options)
    assert "seed 0," not in capsys.readouterr().out
    assert [arm.numbers for arm in again.arms] == [arm.numbers for arm in first.arms]
    assert again.layers == first.layers
    folder = tmp_path / "demo" / "seed-0"
    (folder / "poisons" / "generator.safetensors").write_bytes(b"damaged")
    (folder / "found" / "2-steps-10-poison.json").write_text("{")
    with pytest.warns(RuntimeWarning, match="damaged") as warned:
        mended = smoke(tmp_path, "demo", "--resume", *options)
    assert len(warned) == 2
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("seed 0,")]
    assert ["generator" in lines[0], "2 steps" in lines[1], len(lines)] == [True, True, 2]
    assert [arm.errors for arm in mended.arms] == [arm.errors for arm in first.arms]
    assert mended.layers == first.layers
    other = smoke(tmp_path, "demo", "--resume", "--arms", "direct", "--poisons", "3", "--skip")
    assert "seed 0, direct:" in capsys.readouterr().out and other.config["poisons"] == 3


def test_seeds_side_by_side_find_the_same(tmp_path: Path) -> None:
    words = ["run", "poisoning", "--row", "demo", "--arms", "flip", "direct", "--poisons", "4"]
    words += ["--steps", "2", "--lambdas", "1", "--seeds", "0", "1"]
    with using_threads(1):  # as in the processes: sums of several threads round differently
        for workers in ("1", "2"):
            assert main([*words, "--workers", workers, "--run-dir", str(tmp_path / workers / "run")]) == 0
    alone, together = (ArmsRecord.load(tmp_path / workers / "run") for workers in ("1", "2"))
    assert [arm.errors for arm in together.arms] == [arm.errors for arm in alone.arms]
    assert together.layers == alone.layers and len(together.arms[0].errors) == 2


def test_all_networks_are_scored_on_the_same_images(tmp_path: Path) -> None:
    config = Config(smoke=True, run_dir=tmp_path / "demo")
    plan = plan_of(config)
    walk = Walk(plan, open_course(config, "poisoning", plan.start()), seed=0)
    scored = walk.arms((ArmName.FLIP, ArmName.TRUE_LABEL))
    assert {one.test.images for one in scored.values()} == {plan.images}
    assert len({one.validation.images for one in scored.values()}) == 1
    test = walk.course.splits.test
    logits = walk.victim(test.images[: plan.images] / 255)
    right = (logits.argmax(1) == test.labels[: plan.images]).double().mean().item()
    assert scored[CLEAN].test.accuracy == pytest.approx(right) and len(test) > plan.images
    loss = torch.nn.functional.cross_entropy(logits, test.labels[: plan.images]).item()
    assert scored[CLEAN].test.loss == pytest.approx(loss, rel=1e-4)


def test_colour_images_and_options(tmp_path: Path) -> None:
    options = ["--arms", "direct", "true-label", "--poisons", "3", "--skip"]
    record = smoke(tmp_path, "cifar10", *options)
    assert [arm.name for arm in record.arms] == [CLEAN, "direct", "true-label"] and record.headline == "true-label"
    assert record.config["poisons"] == 3 and list(record.layers) == [SEEN] and len(record.charts) == 2
    assert record.paper == {"times_faster": 239.38} and "times_faster" not in record.arms[1].numbers[0]


def test_what_is_out_of_range_is_refused() -> None:
    config = Config()
    for wrong in ({"poisons": -1}, {"differences": -2}, {"steps": (5, -1)}, {"lambdas": (-1.0,)}):
        with pytest.raises(InvalidArgument, match="of at least 0"):
            plan_of(replace(config, **wrong))
    with pytest.raises(InvalidArgument, match="shares"):
        plan_of(replace(config, shares=(0.0,)))
    for wrong in ({"seeds": ()}, {"arms": ()}, {"arms": (ArmName.FLIP, ArmName.FLIP)}):
        with pytest.raises(InvalidArgument, match="at least one seed and different arms"):
            plan_of(replace(config, **wrong))
    plan = plan_of(replace(config, poisons=2, lambdas=(3.0,), steps=(4,), shares=(0.5,)))
    assert (plan.poisons, plan.differences, plan.lambdas, plan.steps, plan.shares) == (2, 2, (3.0,), (4,), (0.5,))
