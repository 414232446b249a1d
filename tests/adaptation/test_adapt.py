"""Adapting in one call: it helps on the embedded digits, resumes to the same bytes, and never sees a target label."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from gloo_workers import run_workers
from spokeshave.adaptation.adapt import Adapted, Feeding, adapt, cut
from spokeshave.adaptation.adaptation_objective import SOURCE_ONLY, Terms
from spokeshave.data import Augmentation, Batches, DatasetName, Split, Splits, load
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


def test_small_sources_keep_an_image_of_each_class(splits: Splits, darker: Split) -> None:
    images = splits.train.images
    alone = Split(images[:3], torch.arange(3))
    with pytest.raises(InvalidArgument, match="each of its 3 images is alone in its class"):
        adapt(LeNet(), alone, darker, settings=SETTINGS)
    one_pair = Split(images[:4], torch.tensor([0, 1, 2, 2]))
    for seed in range(4):
        training, held_out = cut(one_pair, 0.5, seed)
        assert held_out.labels.tolist() == [2] and sorted(training.labels.tolist()) == [0, 1, 2]
    whole, cut_by_class = splits.train.hold_out(0.1, 3), cut(splits.train, 0.1, 3)
    assert all(torch.equal(one.images, other.images) for one, other in zip(whole, cut_by_class, strict=True))


def test_evaluation_sees_the_size_of_the_crop(darker: Split) -> None:
    feeding = Feeding(augment=Augmentation(crop=24))
    images = next(iter(feeding.batches(darker, 0, training=False)))[0]
    torch.testing.assert_close(images[0, 0], darker.images[0, 0, 2:26, 2:26] / 255)


def test_each_domain_can_be_normalized_on_its_own(darker: Split) -> None:
    feeding = Feeding(4, lambda images: images.float(), lambda images: -images.float())
    images = [feeding.batches(darker, 0, target, training=False).batch(0, 0)[0] for target in (False, True)]
    assert torch.equal(images[0], -images[1])
