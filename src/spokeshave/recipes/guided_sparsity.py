"""Guided sparsity: networks pruned weight by weight where their machine gains, run by direct sparse convolution.

Park, Li, Wen, Tang, Li, Chen, Dubey: Faster CNNs with Direct Sparse Convolutions and Guided Pruning, ICLR 2017.
Departs from the paper: CIFAR-10 networks, since ImageNet cannot be had freely; the pull is followed, in the same stage,
by a magnitude schedule that ends at the row's target; the paper gives no table, so `PAPER` holds the sparsities of the
networks that its authors released (SkimCaffe).
"""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from spokeshave.data import DatasetName
from spokeshave.recipes.guided_sparsity_rows import ROWS
from spokeshave.road import FirstOptions, RoadOptions, plan_with, walk_row
from spokeshave.shaping import Plan

# Top-1 accuracy and percent of zeros, layer by layer, of the released networks; conv1 of CaffeNet has 0.2.
PAPER: dict[str, dict[str, Any]] = {
    "caffenet": {
        "accuracy": 57.478,
        "sparsity": {
            "conv2": 85.6455, "conv3": 93.1, "conv4": 91.808, "conv5": 88.4903,
            "fc6": 90.2809, "fc7": 84.3741, "fc8": 73.8236,
        },
    },
    "googlenet": {
        "accuracy": 68.6639,
        "sparsity": {
            "conv2/3x3": 81.65,
            "3a/3x3": 90.09, "3b/3x3": 90.47, "4a/3x3": 87.97, "4b/3x3": 96.11, "4c/3x3": 94.90,
            "4d/3x3": 92.41, "4e/3x3": 98.70, "5a/3x3": 96.24, "5b/3x3": 94.95,
            "3a/5x5": 84.56, "3b/5x5": 88.55, "4a/5x5": 83.76, "4b/5x5": 87.40, "4c/5x5": 88.01,
            "4d/5x5": 90.39, "4e/5x5": 94.42, "5a/5x5": 93.40, "5b/5x5": 94.87,
            "loss1/fc": 97.94, "loss1/classifier": 93.53, "loss2/fc": 98.18, "loss2/classifier": 94.20,
            "loss3/classifier": 90.65,
        },
    },
    "resnet50": {
        "accuracy": 72.838,
        "sparsity": {
            "2a": 88.00, "2b": 83.97, "2c": 80.79, "3a": 91.76, "3b": 91.91, "3c": 95.50, "3d": 91.13,
            "4a": 96.55, "4b": 97.47, "4c": 97.15, "4d": 96.76, "4e": 96.84, "4f": 96.84,
            "5a": 97.78, "5b": 98.03, "5c": 97.92, "fc1000": 91.51,
        },
    },
}  # fmt: skip


class Row(Enum):
    """A network, or the small demonstration."""

    DEMO = "demo"
    CONVNET = "convnet"
    RESNET20 = "resnet20"


@dataclass(frozen=True)
class Second(FirstOptions):
    """Options of the second stage."""

    prune_epochs: int = 0
    """Epochs under the pull and the schedule."""


@dataclass(frozen=True)
class Config(RoadOptions, Second):
    """Options of the guided sparsity recipe; 0 or nothing means what the row has."""

    row: Row = Row.DEMO
    """Network and target."""
    run_dir: Path | None = None
    """Where checkpoints, networks and the page go; runs/guided-<row> by default."""
    strength: float = 1.0
    """Factor on the row's L1 pull, at least 0."""
    control: bool = False
    """Also train the baseline on for as many epochs with nothing pruned: the dense network at the same budget."""


def run(config: Config) -> dict[str, Any]:
    """Train, prune, fine-tune, compile and measure one row.

    Every seed's pruned network is written to seed-<seed>/sparse.safetensors, for `ss.load_safetensors`.

    Returns:
        The run's record as JSON values.

    Raises:
        SpokeshaveError: what is wrong with the data, the run's folder or the training.
    """
    row = config.row.value
    return walk_row(config, "guided_sparsity", "Guided sparsity", f"guided-{row}", lambda: plan_of(config))


def plan_of(config: Config) -> tuple[Plan, DatasetName]:
    """The plan of a row, and its data set.

    Raises:
        InvalidArgument: for a negative strength or number of epochs, or no seed.
    """
    return plan_with(config, config.prune_epochs, ROWS[config.row.value])
