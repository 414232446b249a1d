"""Float networks that recipes share: what they are fed, and that their budgets stay what they were."""

from pathlib import Path

import pytest
import torch

from small_road import few_digits
from spokeshave.data import DatasetName, Normalization
from spokeshave.equal_budget import Course
from spokeshave.float_networks import SMOKE_STEPS, FloatNetwork, convnet, digits, lenet, mlp, resnet20, scaled
from spokeshave.road import small_digits

EACH = [lenet, mlp, convnet, resnet20, digits]


@pytest.mark.parametrize("make", EACH)
def test_each_takes_images_of_its_data_and_gives_ten_scores(make) -> None:
    float_network: FloatNetwork = make()
    splits = small_digits(float_network.data)
    budget = float_network.budget(splits, smoke=True)
    fed = budget.normalize(splits.train.images[:2])
    assert budget.network()(fed).shape == (2, 10) and budget.settings.steps == SMOKE_STEPS
    assert float_network.budget(splits).settings.steps == 0 and budget.batch_size == 128


def test_mnist_is_scaled_by_a_256th() -> None:
    pixels = few_digits().train
    assert torch.allclose(scaled(pixels)(pixels.images[:3]), pixels.images[:3].float() / 256)


def test_statistics_leave_the_validation_images_out() -> None:
    splits = small_digits(DatasetName.CIFAR10)
    training, _ = splits.hold_out(len(splits.train) // 5, seed=0)
    expected, got = Normalization.per_channel(training), convnet().budget(splits).normalize
    assert got.to_dict() == expected.to_dict() != Normalization.per_channel(splits.train).to_dict()


def test_a_course_finds_the_network_of_another_run_by_its_budget(tmp_path: Path) -> None:
    """A changed budget is a network to be trained again; recipes in one folder share what has not changed."""
    splits = small_digits(DatasetName.MNIST)
    first, rows = Course(lenet().budget(splits, smoke=True), splits, tmp_path / "a").exact(0)
    second, found = Course(lenet().budget(splits, smoke=True), splits, tmp_path / "b").exact(0)
    assert found == rows
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert len(list(tmp_path.glob("float-lenet-seed-0-*"))) == 1
