"""The guided sparsity recipe through the real command line: targets are met, networks are written, runs resume."""

import shutil
from pathlib import Path

import pytest
import torch

import spokeshave as ss
from cpu_benchmark_cases import needs_generated_code
from spokeshave.cli.main import main
from spokeshave.errors import JitRefused
from spokeshave.models import ConvNet, ResNetCifar
from spokeshave.recipes import guided_sparsity_rows
from spokeshave.recipes.guided_sparsity import PAPER, Config, Row, plan_of
from spokeshave.recipes.guided_sparsity_rows import NOMINAL, ROWS, machine_rates
from spokeshave.regularizers import GuidedL1, MagnitudeSchedule
from spokeshave.report.run_record import RunRecord
from spokeshave.shaping import Stretch
from spokeshave.structures.layer_work import layer_works
from spokeshave.structures.roofline_model import MachineRates, projected_speedup
from spokeshave.targets.cpu_sparse.roofline import measure_roofline


def smoke(tmp_path: Path, row: str, *options: str) -> RunRecord:
    words = ["run", "guided_sparsity", "--row", row, "--smoke", "--run-dir", str(tmp_path / row)]
    assert main([*words, *options]) == 0
    return RunRecord.load(tmp_path / row)


def machine_of(monkeypatch: pytest.MonkeyPatch, rates: MachineRates) -> None:
    class Measured:
        def rates(self) -> MachineRates:
            return rates

    monkeypatch.setattr(guided_sparsity_rows, "measure_roofline", lambda threads, images: Measured())


def test_every_row_has_a_plan_and_the_published_sparsities_are_percent():
    assert set(ROWS) == {row.value for row in Row} and len(ROWS) >= 3
    assert all(50 < share < 100 for paper in PAPER.values() for share in paper["sparsity"].values())
    assert PAPER["caffenet"]["sparsity"]["conv3"] == 93.1 and len(PAPER["googlenet"]["sparsity"]) == 24


@pytest.mark.parametrize(
    ("row", "make", "expected"),
    [
        ("convnet", ConvNet, {"conv1": 0.5, "conv2": 0.8, "conv3": 0.8, "ip1": 0.0}),
        ("resnet20", lambda: ResNetCifar(20), {"conv1": 0.0, "group2.0.conv1": 0.8, "group2.0.downsampling": 0.0}),
    ],
)
def test_a_smoke_run_meets_the_targets_and_its_network_reads_back(tmp_path, row, make, expected, monkeypatch):
    machine_of(monkeypatch, NOMINAL)  # on a slow machine, the guide may leave a layer dense
    record = smoke(tmp_path, row)
    network = make()
    ss.load_safetensors(network, tmp_path / row / "seed-0" / "sparse.safetensors")
    found = {name: layer.elements for name, layer in ss.sparsity(network).items()}
    assert all(found[name] == pytest.approx(share, abs=0.003) for name, share in expected.items())
    assert record.baseline.measurement.nonzero_parameters > 2 * record.final.measurement.nonzero_parameters
    assert list(record.history) == ["baseline", "prune", "finetune"]
    assert record.comparison is not None and all(ratio.ratio > 0 for ratio in record.comparison.rows)
    assert (tmp_path / row / "report.html").stat().st_size > 10_000


def test_a_finished_run_is_kept_and_resume_gives_it_again(tmp_path, capsys):
    first = smoke(tmp_path, "demo")
    assert main(["run", "guided_sparsity", "--smoke", "--run-dir", str(tmp_path / "demo")]) == 2
    assert "already holds a finished run" in capsys.readouterr().err
    again = smoke(tmp_path, "demo", "--resume")
    assert all(torch.equal(again.weights[n], m) for n, m in first.weights.items()) and again.weights


def notes_of(record: RunRecord) -> str:
    assert record.shrink is not None
    return " ".join(record.shrink["notes"])


@needs_generated_code
def test_the_machine_is_one_core_of_this_one_as_measured():
    assert machine_rates(16) == measure_roofline(threads=1, images=16).rates() != NOMINAL


def test_a_run_that_goes_on_elsewhere_is_guided_by_the_machine_that_it_began_on(tmp_path, monkeypatch):
    machine_of(monkeypatch, MachineRates(5e10, 1.5, 3e10, 1.5))
    first = smoke(tmp_path, "demo")
    assert "50 GFLOP/s dense, alpha 1.5, 30 GB/s" in notes_of(first)
    shutil.rmtree(tmp_path / "demo" / "seed-0" / "finetune")
    machine_of(monkeypatch, MachineRates(5e10, 1e6, 3e10, 1.5))  # by which no layer would be pruned
    again = smoke(tmp_path, "demo", "--resume")
    assert notes_of(again) == notes_of(first)
    assert all(torch.equal(again.weights[n], m) for n, m in first.weights.items()) and again.weights


def test_a_machine_that_runs_no_generated_code_is_a_nominal_one_and_the_page_says_so(tmp_path, monkeypatch):
    def refuse(threads, images):
        raise JitRefused("this system forbids generated code")

    monkeypatch.setattr(guided_sparsity_rows, "measure_roofline", refuse)
    with pytest.warns(RuntimeWarning, match="forbids generated code; the guide takes nominal rates"):
        record = smoke(tmp_path, "demo")
    assert "60 GFLOP/s dense, alpha 1.2, 20 GB/s, beta 2 (nominal, not measured)" in notes_of(record)


def test_the_guide_leaves_out_what_the_model_says_is_useless_and_the_schedule_comes_last(monkeypatch):
    rates = MachineRates(1e11, 2.0, 1e10)
    machine_of(monkeypatch, rates)
    plan, _ = plan_of(Config(row=Row.CONVNET))
    network, example = plan.network(), torch.zeros(2, 3, 32, 32)
    assert plan.prune is not None
    pull, schedule = plan.prune(network, Stretch(example, 100))
    assert isinstance(pull, GuidedL1) and isinstance(schedule, MagnitudeSchedule) and pull.guide is schedule.guide
    works = layer_works(network, example)
    useful = [name for name, work in works.items() if projected_speedup(work, rates, 0.0, 16) > 1]
    assert useful != list(works)
    assert pull.guide is not None and [name for name in works if pull.guide.pulls(name)] == useful


@pytest.mark.parametrize("options", [["--strength", "nan"], ["--prune-epochs", "-3"], ["--device", "foo"], ["--seeds"]])
def test_a_bad_option_is_refused_before_any_work(tmp_path, capsys, options):
    words = ["run", "guided_sparsity", "--row", "convnet", "--data-dir", str(tmp_path / "none")]
    assert main([*words, "--run-dir", str(tmp_path / "r"), *options]) == 2
    assert "none" not in capsys.readouterr().err and not (tmp_path / "r").exists()
