"""Adapting in one call: it helps on the embedded digits, resumes to the same bytes, and never sees a target label."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from gloo_workers import run_workers
from spokeshave.adaptation.adapt import Adapted, Feeding, adapt
from spokeshave.adaptation.adaptation_objective import SOURCE_ONLY, Terms
from spokeshave.data import Batches, DatasetName, Split, Splits, load
from spokeshave.errors import CheckpointError, InvalidArgument
from spokeshave.evaluation import evaluate
from spokeshave.models import LeNet
from spokeshave.train_settings import OptimizerName, TrainSettings

SETTINGS = TrainSettings(epochs=3, learning_rate=1e-3, optimizer=OptimizerName.ADAM, checkpoint_every=5)


def few(split: Split, count: int) -> Split:
    return split.subset(torch.arange(min(count, len(split))))


def run(splits: Splits, target: Split, terms: Terms | None, **rest) -> Adapted:
    torch.manual_seed(0)
    return adapt(LeNet(), splits.train, target, terms, rest.pop("settings", SETTINGS), **rest)


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_adapting_helps_where_domains_differ(splits: Splits, darker: Split) -> None:
    found = [
        evaluate(run(splits, darker, terms).network, Batches(darker, 500)).accuracy for terms in (SOURCE_ONLY, None)
    ]
    assert found[1] > found[0]


def test_labels_of_the_target_change_nothing(splits: Splits, darker: Split) -> None:
    target, source = few(darker, 40), Splits("few", few(splits.train, 120), splits.test, splits.classes)
    other = Split(target.images, target.labels.flip(0))
    assert same(run(source, target, None).network, run(source, other, None).network)


def test_a_killed_run_ends_with_the_same_bytes(splits: Splits, darker: Split, tmp_path: Path) -> None:
    source = Splits("few", few(splits.train, 120), splits.test, splits.classes)
    target = few(darker, 40)
    whole = run(source, target, None)

    class Killed(LeNet):
        calls = 0

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            Killed.calls += 1
            if Killed.calls > 17:
                raise KeyboardInterrupt
            return super().forward(images)

    torch.manual_seed(0)
    with pytest.raises(KeyboardInterrupt):
        adapt(Killed(), source.train, target, None, SETTINGS, run_dir=tmp_path / "run")
    with pytest.raises(CheckpointError, match="already holds a run"):
        run(source, target, None, run_dir=tmp_path / "run")
    with pytest.raises(CheckpointError, match="other settings"):
        run(source, target, SOURCE_ONLY, run_dir=tmp_path / "run", resume=True)
    resumed = run(source, target, None, run_dir=tmp_path / "run", resume=True)
    assert same(whole.network, resumed.network)
    assert [row["objective"] for row in whole.history] == [row["objective"] for row in resumed.history]


def adapting_worker(rank: int, workers: int) -> list[float]:
    """Sums of all weights of a network trained on the source alone, and of an adapted one."""
    digits = load(DatasetName.DIGITS)
    source, target = few(digits.train, 100), few(digits.test, 40)
    sums = []
    for terms in (SOURCE_ONLY, None):
        torch.manual_seed(0)
        network = adapt(LeNet(), source, target, terms, replace(SETTINGS, epochs=1)).network
        sums.append(sum(float(one.double().sum()) for one in network.state_dict().values()))
    return sums


def test_processes_of_ddp_stay_equal_with_and_without_terms() -> None:
    first, second = run_workers(adapting_worker, 2)
    assert first == second and len(set(first)) == 2


def test_domains_that_do_not_fit_are_refused(splits: Splits, darker: Split) -> None:
    with pytest.raises(InvalidArgument, match="at least two images, got 1"):
        run(splits, few(darker, 1), None)
    with pytest.raises(InvalidArgument, match=r"\(1, 28, 28\) in the source and \(3, 28, 28\) in the target"):
        run(splits, Split(darker.images.expand(-1, 3, -1, -1), darker.labels), None)
    one = Splits(
        "one", splits.train.subset(torch.nonzero(splits.train.labels == 4).flatten()), splits.test, splits.classes
    )
    with pytest.raises(InvalidArgument, match=r"at least two classes, got class \[4\] only"):
        run(one, darker, None)


def test_each_domain_can_be_normalized_on_its_own(darker: Split) -> None:
    feeding = Feeding(4, lambda images: images.float(), lambda images: -images.float())
    images = [feeding.batches(darker, 0, target, training=False).batch(0, 0)[0] for target in (False, True)]
    assert torch.equal(images[0], -images[1])
