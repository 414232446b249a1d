"""The recipe of TrueNorth through the real command line: every arm, resuming, numbers, options."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from spokeshave.cli.main import main
from spokeshave.errors import InvalidArgument
from spokeshave.recipes.truenorth import PAPER, Config, Row, plan_of
from spokeshave.recipes.truenorth_arms import LABELS, TEA, ArmName, equal_accuracy, first_reaching
from spokeshave.recipes.truenorth_rows import ROWS
from spokeshave.report.arms_record import ArmsRecord
from spokeshave.targets.truenorth.tea_network import TeaNetwork


def smoke(tmp_path: Path, row: str, *options: str) -> ArmsRecord:
    words = ["run", "truenorth", "--row", row, "--smoke", "--run-dir", str(tmp_path / row), *options]
    assert main(words) == 0
    return ArmsRecord.load(tmp_path / row)


def test_rows_and_arms_are_whole() -> None:
    assert set(ROWS) == {row.value for row in Row} == {*PAPER, "demo"} and set(LABELS) == set(ArmName)
    cores = {name: plan().start().network().cores for name, plan in ROWS.items()}
    assert cores == {
        "demo": 4,
        "bench-1-10": 4,
        "bench-1": 4,
        "bench-1-40": 4,
        "bench-2": 16,
        "bench-3": 62,
        "bench-4": 4,
    }
    assert ROWS["bench-1"]().start(3).network().cores == 12


def test_a_smoke_run_compares_every_arm_and_resume_repeats_it(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    record = smoke(tmp_path, "bench-1-10")
    arms = {arm.name: arm for arm in record.arms}
    wide = [f"{name}-{replicas}" for name in ("wide", "wide-rounded") for replicas in (3, 5)]
    assert list(arms) == [TEA, "l1", "bias", "variance", "rounded", *wide] and record.headline == "bias"
    assert [arms[name].number("cores") for name in (TEA, "wide-3", "wide-rounded-5")] == [4, 12, 20]
    for name, arm in arms.items():
        numbers = arm.numbers[0]
        assert arm.errors[0] == pytest.approx(numbers["error_1_copies_share"])
        assert numbers["error_1_copies_share"] == numbers["error_1_spikes_share"]
        assert numbers["lost_share"] == pytest.approx(arm.errors[0] - numbers["float_error_share"])
        # Rounded connections are at the poles.
        assert (numbers["variance"] == 0) is ("rounded" in name)
        weights = load_file(tmp_path / "bench-1-10" / "seed-0" / "weights" / f"{name}.safetensors")
        assert TeaNetwork.of(weights).cores == numbers["cores"]
    (equal,) = record.layers.values()
    assert [row["arm"] for row in equal] == list(arms)
    assert equal[0]["copies"] <= 2 and equal[0]["spikes"] <= 2  # Tea itself, at the most
    assert len(record.charts) == 2 and [curve.label for curve in record.charts[0].curves] == list(arms)
    assert record.charts[0].curves[0].xs == [4, 8] and record.charts[1].curves[0].xs == [1, 2]
    assert "page:" in capsys.readouterr().out and (tmp_path / "bench-1-10" / "report.html").stat().st_size > 20_000
    again = smoke(tmp_path, "bench-1-10", "--resume")
    assert [arm.errors for arm in again.arms] == [arm.errors for arm in record.arms]
    assert [arm.numbers for arm in again.arms] == [arm.numbers for arm in record.arms]


def test_penalties_act_and_rounding_goes_on_from_tea_where_the_row_says_so(tmp_path: Path) -> None:
    record = smoke(tmp_path, "demo", "--arms", "bias", "rounded", "--strength", "0.5", "--neurons", "10")
    folder = tmp_path / "demo" / "seed-0" / "weights"
    plain, biased = (load_file(folder / f"{name}.safetensors")["layers.0.probability"] for name in (TEA, "bias"))
    assert (biased * (1 - biased)).mean() < 0.9 * (plain * (1 - plain)).mean()
    assert record.config["bias"] == 0.5 and record.config["neurons"] == 10 and record.paper is None
    assert ROWS["bench-3"]().rounded_from_tea and not ROWS["bench-1"]().rounded_from_tea


def test_rs130_from_libsvm_files(tmp_path: Path) -> None:
    """A few samples in the format of the set, which is not shipped."""
    generator, folder = torch.Generator().manual_seed(0), tmp_path / "rs130"
    folder.mkdir()
    for name, count in (("protein", 240), ("protein.t", 30)):
        lines = []
        for number in range(count):
            given = (torch.rand(357, generator=generator) < 0.2).nonzero().flatten().tolist()
            lines.append(f"{number % 3} " + " ".join(f"{index + 1}:{1 if index > 9 else 0.5:g}" for index in given))
        (folder / name).write_text("\n".join(lines) + "\n")
    words = ["--row", "bench-4", "--data-dir", str(tmp_path), "--run-dir", str(tmp_path / "run"), "--epochs", "1"]
    assert main(["run", "truenorth", *words, "--arms", "bias", "rounded", "--draws", "1"]) == 0
    record = ArmsRecord.load(tmp_path / "run")
    assert record.data == "rs130" and [arm.name for arm in record.arms] == [TEA, "bias", "rounded"]
    assert record.arms[0].number("cores") == 4 and record.arms[0].numbers[0]["error_16_copies_share"] < 1
    assert smoke(tmp_path, "bench-4", "--arms", "bias").arms[0].number("cores") == 4


def test_strengths_can_be_tried_on_the_validation_split(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words = ["--row", "demo", "--smoke", "--run-dir", str(tmp_path / "tried"), "--try-strengths", "1e-3", "1e-2"]
    assert main(["run", "truenorth", *words, "--arms", "l1", "variance"]) == 0
    said = capsys.readouterr().out
    assert "seed 0, variance 0.001: one copy with one spike per frame" in said and "variance 0.01" in said
    assert not (tmp_path / "tried" / "run.json").exists()


def test_what_is_out_of_range_is_refused() -> None:
    config = Config()
    for wrong in ({"epochs": -1}, {"strength": float("nan")}, {"neurons": -2}, {"draws": -1}):
        with pytest.raises(InvalidArgument, match="of at least 0"):
            plan_of(replace(config, **wrong))
    for wrong in ({"seeds": ()}, {"arms": ()}, {"arms": (ArmName.BIAS, ArmName.BIAS)}):
        with pytest.raises(InvalidArgument, match="at least one seed and different arms"):
            plan_of(replace(config, **wrong))
    assert plan_of(replace(config, epochs=2, strength=0.1, draws=5)).settings.epochs == 2


def seeds(cores: int, by_copies: list[float], by_spikes: list[float], apart: float) -> list[dict[str, float]]:
    """Numbers of two seeds whose errors are so far from these."""
    return [
        {"cores": cores}
        | {f"error_{n + 1}_copies_share": error + sign * apart for n, error in enumerate(by_copies)}
        | {f"error_{n + 1}_spikes_share": error + sign * apart for n, error in enumerate(by_spikes)}
        for sign in (1, -1)
    ]


def test_equal_accuracy_is_that_of_means_over_seeds() -> None:
    rows = equal_accuracy({
        "tea": seeds(4, [0.4, 0.3, 0.2], [0.4, 0.35, 0.3], 0.1),
        "wide": seeds(8, [0.25, 0.15, 0.1], [0.25, 0.2, 0.15], 0.05),
        "worse": seeds(4, [0.5, 0.4, 0.3], [0.5, 0.4, 0.31], 0.0),
    })  # fmt: skip
    assert [list(row.values()) for row in rows] == [
        ["tea", 3, 12, 0, 3, 1],
        ["wide", 2, 16, 1 - 16 / 12, 1, 3],
        ["worse", *"-----"],
    ]
    assert first_reaching([0.5, 0.3, 0.4, 0.2], 0.3) == 2 and first_reaching([0.5, 0.3], 0.25) is None
