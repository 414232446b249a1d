"""The road on a small network: stages, held-out validation, the control."""

from dataclasses import replace

import pytest
import torch
from rich.console import Console

from small_road import PLAN, record_of
from spokeshave.data import Normalization
from spokeshave.errors import InvalidArgument, NothingChanged
from spokeshave.evaluation import evaluate
from spokeshave.regularizers import GroupLasso, Guide, GuidedL1, MagnitudeSchedule
from spokeshave.run_output import print_run
from spokeshave.shaping import shape
from spokeshave.structures.roofline_model import MachineRates
from spokeshave.training import train


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


def test_a_plan_that_prunes_keeps_single_zeros_and_the_networks_form(splits, tmp_path):
    seen = []

    def prune(network, stretch):
        seen.append((tuple(stretch.example.shape[1:]), stretch.steps))
        guide = Guide(network, stretch.example, MachineRates(1e9, 1.0, 1e9), every=1)
        return GuidedL1(network, strength=1e-4, guide=guide), MagnitudeSchedule(network, 0.75, steps=5, every=1)

    plan = replace(PLAN, pull=None, prune=prune, keeps=())
    result = shape(plan, splits, 3, tmp_path)
    assert seen == [((1, 28, 28), 2 * 10)]
    assert list(result.history) == ["baseline", "prune", "finetune"]
    for network in (result.sparse, result.small):
        weight = network.get_parameter("0.weight")
        assert weight.shape == (8, 1, 5, 5) and (weight == 0).float().mean() >= 0.75
    assert result.report.layers == () and "4 dense again" in " ".join(result.report.notes)
    again = shape(plan, splits, 3, tmp_path, resume=True)
    assert torch.equal(again.sparse[0].weight, result.sparse[0].weight) and again.report == result.report
    with pytest.raises(InvalidArgument, match="one of the two"):
        replace(plan, prune=None)


def test_no_zero_group_is_said_not_hidden(splits, tmp_path):
    plan = replace(PLAN, keeps=(), pull=lambda net: GroupLasso(net, filters=1e-12))
    with pytest.raises(NothingChanged):
        shape(plan, splits, 0, tmp_path)
    result = shape(replace(plan, may_stay=True), splits, 0, tmp_path, resume=True)
    images = Normalization.per_channel(splits.train)(splits.test.images)
    assert torch.equal(result.small(images), result.sparse(images))
    assert result.report.notes[0].startswith("nothing was removed") and not result.report.layers


def test_evaluation_of_the_shrunk_network_is_that_of_the_sparse_one(shaped, splits):
    from spokeshave.data import Batches

    training, _ = splits.hold_out(100, seed=0)
    batches = Batches(splits.test, 100, 0, Normalization.per_channel(training))
    assert evaluate(shaped[0].sparse, batches).accuracy == shaped[0].small_test.accuracy
