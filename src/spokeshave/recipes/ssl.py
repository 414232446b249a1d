"""SSL: the tables of "Learning Structured Sparsity in Deep Neural Networks", from training to the shrunk network.

Wen, Wu, Wang, Chen, Li, NIPS 2016: Table 1 (LeNet, filters and channels), Table 2 (LeNet, filter shapes), figure 4
(MLP), Table 3 (ConvNet, rows and columns), figure 5 (ResNet, depth). AlexNet's Table 4 needs no training: ssl_alexnet.
Departs from the paper: proximal solver; the row's counts are met by truncation after the pull; cosine schedules; MNIST
images are shifted by up to a pixel, CIFAR-10 for the ResNet by up to 4 and mirrored, in all stages.
"""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from spokeshave.data import DatasetName
from spokeshave.recipes.ssl_rows import ROWS
from spokeshave.road import FirstOptions, RoadOptions, plan_with, walk_row
from spokeshave.shaping import Plan

# error_percent of the baseline and of the row; counts are kept filters, channels, columns or neurons, layer by layer.
PAPER: dict[str, dict[str, Any]] = {
    "lenet-2": {"baseline": 0.9, "error": 0.8, "filters": (5, 19), "channels": (1, 4), "speedup": (1.64, 5.23)},
    "lenet-3": {"baseline": 0.9, "error": 1.0, "filters": (3, 12), "channels": (1, 3), "speedup": (1.99, 7.44)},
    "lenet-4": {"baseline": 0.9, "error": 0.8, "columns": (21, 41), "speedup": (2.33, 6.93)},
    "lenet-5": {"baseline": 0.9, "error": 1.0, "columns": (7, 14), "speedup": (5.19, 10.82)},
    "mlp-2": {"baseline": 1.43, "error": 1.34, "neurons": (469, 294, 166, 10)},
    "mlp-3": {"baseline": 1.43, "error": 1.53, "neurons": (434, 174, 78, 10)},
    "convnet-2": {"baseline": 17.9, "error": 17.9, "filters": (16, 23, 63), "columns": (75, 325, 519)},
    "convnet-3": {"baseline": 17.9, "error": 16.9, "filters": (22, 32, 63), "columns": (75, 457, 721)},
    "resnet20-18": {"baseline": 8.82, "error": 7.40, "layers": 18},
    "resnet20-14": {"baseline": 8.82, "error": 8.54, "layers": 14},
}


class Row(Enum):
    """A row of the paper's tables, or the small demonstration."""

    DEMO = "demo"
    LENET_2 = "lenet-2"
    LENET_3 = "lenet-3"
    LENET_4 = "lenet-4"
    LENET_5 = "lenet-5"
    MLP_2 = "mlp-2"
    MLP_3 = "mlp-3"
    CONVNET_2 = "convnet-2"
    CONVNET_3 = "convnet-3"
    RESNET20_18 = "resnet20-18"
    RESNET20_14 = "resnet20-14"


@dataclass(frozen=True)
class Second(FirstOptions):
    """Options of the second stage."""

    ssl_epochs: int = 0
    """Epochs under the penalty."""


@dataclass(frozen=True)
class Config(RoadOptions, Second):
    """Options of the SSL recipe; 0 or nothing means what the row has."""

    row: Row = Row.DEMO
    """Row of the paper's tables."""
    run_dir: Path | None = None
    """Where checkpoints, networks and the page go; runs/<row> by default."""
    finetune_epochs: int = 0
    """Epochs with the zero groups frozen."""
    control: bool = False
    """Also train the baseline on for as many epochs with nothing pulled: the dense network at the same budget."""


def run(config: Config) -> dict[str, Any]:
    """Train, pull, truncate, fine-tune, shrink and measure one row.

    Returns:
        The run's record as JSON values.

    Raises:
        SpokeshaveError: what is wrong with the data, the run's folder or the training.
    """
    row = config.row.value
    paper = None if row not in PAPER else _published(row)
    return walk_row(config, "ssl", "SSL", row, lambda: plan_of(config), paper)


def _published(row: str) -> dict[str, Any]:
    """A row of `PAPER` as the page takes it: errors as shares, counts as in the paper's table."""
    paper = PAPER[row]
    shown = {k: "-".join(map(str, v)) if isinstance(v, tuple) else v for k, v in paper.items()}
    errors = {name: paper[name] / 100 for name in ("baseline", "error") if paper[name] is not None}
    return {"label": f"SSL paper, {row}"} | {k: v for k, v in shown.items() if v is not None} | errors


def plan_of(config: Config) -> tuple[Plan, DatasetName]:
    """The plan of a row, and its data set.

    Raises:
        InvalidArgument: for a negative strength or number of epochs, or no seed.
    """
    return plan_with(config, config.ssl_epochs, ROWS[config.row.value])
