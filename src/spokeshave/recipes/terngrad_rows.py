"""The rows of recipe `terngrad`: network, data, number of workers, schedule, clipping.

Rates and lengths that differ from the paper's were chosen on the validation split, by the float network alone.
"""

from dataclasses import dataclass
from functools import partial

import torch

from spokeshave.communication.ternary_options import TernaryOptions
from spokeshave.data import Augmentation, DatasetName, ImageStandardization, Normalization
from spokeshave.equal_budget import Budget
from spokeshave.models import CifarNet, LeNet
from spokeshave.train_settings import OptimizerName, Schedule, TrainSettings

SYMMETRIC = Normalization(torch.full((1, 1, 1), 0.5), torch.full((1, 1, 1), 0.5))
"""Grey levels to -1..1, as the authors feed LeNet."""
EVERYTHING = TernaryOptions(min_numel=1)
"""The paper's MNIST and CIFAR-10 networks: every parameter, the last layer's too."""


@dataclass(frozen=True)
class RowPlan:
    """What a row trains.

    Attributes:
        budget: of both networks.
        data: the row's own data set.
        workers: N.
        options: of the exchange.
    """

    budget: Budget
    data: DatasetName
    workers: int
    options: TernaryOptions = EVERYTHING


def _lenet(workers: int) -> RowPlan:
    """Figure 3: 64 images a step in total, momentum, a polynomial schedule."""
    settings = TrainSettings(
        learning_rate=0.01, schedule=Schedule.POLYNOMIAL, steps=4000, channels_last=True, checkpoint_every=500
    )
    return RowPlan(Budget("lenet", LeNet, settings, 64, SYMMETRIC), DatasetName.MNIST, workers)


def _cifarnet(clip_factor: float | None = 2.5) -> RowPlan:
    """Table 1, first row: 64 images a worker, Adam, weight decay on the hidden linear layers."""
    settings = TrainSettings(
        learning_rate=2e-3, optimizer=OptimizerName.ADAM, schedule=Schedule.POLYNOMIAL, power=1.0, steps=1755,
        weight_decay=0.004, decayed=("fc3", "fc4"), channels_last=True, checkpoint_every=100,
    )  # fmt: skip
    augment = Augmentation(flip=True, crop=24, contrast=(0.2, 1.8))
    budget = Budget("cifarnet", CifarNet, settings, 128, ImageStandardization(), augment)
    return RowPlan(budget, DatasetName.CIFAR10, 2, TernaryOptions(clip_factor=clip_factor, min_numel=1))


def _demo() -> RowPlan:
    """LeNet on the embedded digits, four workers."""
    settings = TrainSettings(
        learning_rate=0.02, schedule=Schedule.POLYNOMIAL, steps=300, channels_last=True, checkpoint_every=100
    )
    return RowPlan(Budget("lenet", LeNet, settings, 64, SYMMETRIC), DatasetName.DIGITS, 4)


ROWS = {
    "demo": _demo,
    "lenet-2": partial(_lenet, 2),
    "lenet-4": partial(_lenet, 4),
    "lenet-8": partial(_lenet, 8),
    "cifarnet-2": _cifarnet,
    "cifarnet-2-noclip": partial(_cifarnet, None),
}
