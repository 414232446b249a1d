"""The road on a small network: stages, held-out validation, what is written, what is refused."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn

from spokeshave.data import Normalization, Split, Splits, load
from spokeshave.errors import CheckpointError, LedgerError, NothingChanged
from spokeshave.export import load_safetensors
from spokeshave.regularizers import GroupLasso
from spokeshave.report.run_record import RunRecord
from spokeshave.shaping import (
    Plan,
    Shaped,
    print_run,
    refuse_finished,
    shape,
    sibling_points,
    write_ledger,
    write_run,
)
from spokeshave.structures.groups import GroupKind
from spokeshave.structures.truncation import Keep
from spokeshave.train_settings import TrainSettings
from spokeshave.training import evaluate, train

STAGE = TrainSettings(epochs=2, learning_rate=0.05)
PLAN = Plan(
    network=lambda: nn.Sequential(
        nn.Conv2d(1, 8, 5, stride=2), nn.ReLU(), nn.Dropout(0.1), nn.Flatten(), nn.Linear(8 * 144, 10)
    ),
    pull=lambda net: GroupLasso(net, filters=1e-3),
    baseline=STAGE,
    ssl=STAGE,
    finetune=STAGE,
    keeps=[Keep("0", GroupKind.FILTER, 5)],
    batch_size=50,
    validation=100,
    dropout=0.5,
)


@pytest.fixture(scope="module")
def splits() -> Splits:
    digits = load("digits")
    few = [Split(split.images[:600], split.labels[:600]) for split in (digits.train, digits.test)]
    return replace(digits, train=few[0], test=few[1])


@pytest.fixture(scope="module")
def shaped(splits: Splits, tmp_path_factory: pytest.TempPathFactory) -> tuple[Shaped, Path]:
    run_dir = tmp_path_factory.mktemp("shaped") / "tiny-1"
    return shape(PLAN, splits, 3, run_dir / "seed-3"), run_dir


def record_of(shaped: tuple[Shaped, Path], splits: Splits, row: str = "tiny-1") -> RunRecord:
    result, run_dir = shaped
    run_dir = run_dir.parent / row
    started = time.perf_counter()
    return write_run([result], splits, run_dir, recipe="r", row=row, title="t", config={"a": 1}, started=started)


def test_the_small_network_is_the_sparse_one_without_its_dead_filters(shaped, splits):
    result, _ = shaped
    assert result.small.get_submodule("0").weight.shape[0] == 5
    assert int(result.sparse[0].weight.flatten(1).any(1).sum()) == 5
    images = Normalization.per_channel(splits.train)(splits.test.images)
    assert torch.allclose(result.small(images), result.sparse(images), atol=1e-4)
    assert result.baseline[0].weight.flatten(1).any(1).all()
    assert list(result.history) == ["baseline", "ssl", "finetune"] and len(result.history["ssl"]) == 2


def test_scores_are_those_of_the_held_out_splits(shaped, splits):
    result, _ = shaped
    training, validation = splits.hold_out(100, seed=0)
    images = Normalization.per_channel(training)(validation.images)
    hits = (result.small(images).argmax(1) == validation.labels).float().mean().item()
    assert result.validation.accuracy == pytest.approx(hits) and result.validation.images == 100
    assert result.small_test.images == len(splits.test)


def test_dropout_of_the_plan_acts_under_the_pull_only(splits, tmp_path, monkeypatch):
    seen = []

    def watched(network, *rest):
        seen.append(network[2].p)
        return train(network, *rest)

    monkeypatch.setattr("spokeshave.shaping.train", watched)
    result = shape(PLAN, splits, 3, tmp_path)
    assert seen == [0.1, 0.5, 0.1] and result.sparse[2].p == 0.1 and result.baseline[2].p == 0.1


def test_the_same_seed_gives_the_same_networks_and_another_another(shaped, splits, tmp_path):
    again, other = (shape(PLAN, splits, seed, tmp_path / str(seed)) for seed in (3, 4))
    assert torch.equal(again.sparse[0].weight, shaped[0].sparse[0].weight)
    assert not torch.equal(other.sparse[0].weight, again.sparse[0].weight)


def test_the_control_is_the_baseline_trained_on_dense_for_as_long(shaped, splits, tmp_path, capsys):
    result = shape(PLAN, splits, 3, tmp_path / "seed-3", control=True)
    assert torch.equal(result.sparse[0].weight, shaped[0].sparse[0].weight)  # training it changes nothing else
    rows = result.history
    assert [len(rows[f"control-{name}"]) for name in ("ssl", "finetune")] == [len(rows["ssl"]), len(rows["finetune"])]
    assert rows["control-finetune"][-1]["sparsity"]["0"]["filters"] == 0
    record = record_of((result, tmp_path / "seed-3"), splits, "tiny-9")
    assert result.control_test is not None
    (point,) = record.points
    assert point["error"] == 1 - result.control_test.accuracy and point["flops"] == record.baseline.measurement.flops
    assert list(record.history) == ["baseline", "ssl", "finetune"]
    print_run(record, tmp_path, Console(width=200))
    assert f"{100 * point['error']:.2f} %" in capsys.readouterr().out.split("trained on")[1].splitlines()[0]


def test_no_zero_group_is_said_not_hidden(splits, tmp_path):
    with pytest.raises(NothingChanged):
        shape(replace(PLAN, keeps=(), pull=lambda net: GroupLasso(net, filters=1e-12)), splits, 0, tmp_path)


def test_what_is_written_reads_back(shaped, splits, capsys):
    result, run_dir = shaped
    record = record_of(shaped, splits)
    assert RunRecord.load(run_dir).final.error == pytest.approx(1 - result.small_test.accuracy)
    assert record.wall_s >= sum(rows[-1]["wall_s"] for rows in result.history.values())
    program = torch.export.load(run_dir / "small.pt2").module()
    image = torch.randn(3, 1, 28, 28)
    assert torch.allclose(program(image), result.small(image), atol=1e-5)
    load_safetensors(result.small, run_dir / "small.safetensors")
    assert "<html" in (run_dir / "report.html").read_text()
    print_run(record, run_dir, Console(width=200))
    printed = capsys.readouterr().out
    assert f"{record.final.measurement.flops:,}" in printed and "report.html" in printed
    with pytest.raises(CheckpointError, match="finished run"):
        refuse_finished(run_dir, resume=False)
    refuse_finished(run_dir, resume=True)


def test_runs_of_the_same_network_beside_each_other_show_as_points(shaped, splits):
    _, run_dir = shaped
    for row in ("tiny-1", "tiny-2", "other-1"):
        record_of(shaped, splits, row)
    (run_dir.parent / "damaged").mkdir(exist_ok=True)
    (run_dir.parent / "damaged" / "run.json").write_text("{")
    assert [point["label"] for point in sibling_points(run_dir, "r", "tiny")] == ["tiny-2"]


def test_the_ledger_takes_a_clean_tree_only(shaped, splits, tmp_path, monkeypatch):
    record = record_of(shaped, splits)
    monkeypatch.setattr("spokeshave.ledger.find_commit", lambda directory: ("0" * 40, True))
    with pytest.raises(LedgerError):
        write_ledger(record, [shaped[0]], tmp_path)
    monkeypatch.setattr("spokeshave.ledger.find_commit", lambda directory: ("0" * 40, False))
    row = json.loads(write_ledger(record, [shaped[0]], tmp_path).read_text())
    assert row["numbers"]["errors"] == [1 - shaped[0].small_test.accuracy]


def test_evaluation_of_the_shrunk_network_is_that_of_the_sparse_one(shaped, splits):
    from spokeshave.data import Batches

    training, _ = splits.hold_out(100, seed=0)
    batches = Batches(splits.test, 100, 0, Normalization.per_channel(training))
    assert evaluate(shaped[0].sparse, batches).accuracy == shaped[0].small_test.accuracy
