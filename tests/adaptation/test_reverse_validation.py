"""The way back is right where the answers were, wrong where they were sure and wrong, and never sees target labels."""

import pytest
import torch
from torch import Tensor, nn

from spokeshave.adaptation.adapt import Feeding
from spokeshave.adaptation.reverse_validation import reverse_accuracy
from spokeshave.data import Split, Splits
from spokeshave.models import LeNet
from spokeshave.train_settings import OptimizerName, TrainSettings

SETTINGS = TrainSettings(steps=60, learning_rate=1e-3, optimizer=OptimizerName.ADAM)


class Answers(nn.Module):
    """Gives chosen classes to images in the order in which they come."""

    def __init__(self, chosen: Tensor) -> None:
        super().__init__()
        self.left = chosen

    def forward(self, images: Tensor) -> Tensor:
        now, self.left = self.left[: len(images)], self.left[len(images) :]
        return nn.functional.one_hot(now, 10).float()


def score(splits: Splits, target: Split, chosen: Tensor) -> float:
    torch.manual_seed(0)
    source = splits.train.subset(range(300))
    return reverse_accuracy(Answers(chosen), LeNet(), source, target, SETTINGS, Feeding(32))


def test_right_answers_come_back_right(splits: Splits) -> None:
    target = splits.test
    right = score(splits, target, target.labels)
    swapped = torch.where(target.labels < 6, (target.labels + 1) % 6, target.labels)
    assert right > 0.85 and score(splits, target, swapped) < right - 0.4
    without = Split(target.images, torch.zeros_like(target.labels))
    assert score(splits, without, target.labels) == right


def test_one_class_teaches_nothing(splits: Splits) -> None:
    assert score(splits, splits.test, torch.full_like(splits.test.labels, 3)) == pytest.approx(0.0)
