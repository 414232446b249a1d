"""SSL: the tables of "Learning Structured Sparsity in Deep Neural Networks", from training to the shrunk network.

Wen, Wu, Wang, Chen, Li, NIPS 2016: Table 1 (LeNet, filters and channels), Table 2 (LeNet, filter shapes), figure 4
(MLP), Table 3 (ConvNet, rows and columns), figure 5 (ResNet, depth). AlexNet's Table 4 needs no training: ssl_alexnet.
Departs from the paper: proximal solver; the row's counts are met by truncation after the pull; cosine schedules; MNIST
images are shifted by up to a pixel, CIFAR-10 for the ResNet by up to 4 and mirrored, in all stages.
"""

import math
import time
from dataclasses import asdict, dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from rich.console import Console
from torch.nn import functional

from spokeshave.data import DatasetName, Split, Splits, load
from spokeshave.errors import InvalidArgument
from spokeshave.processes import is_first, usable_device
from spokeshave.recipes.ssl_rows import ROWS
from spokeshave.run_output import (
    command_line,
    print_run,
    refuse_finished,
    sibling_points,
    write_ledger,
    write_run,
)
from spokeshave.shaping import Plan, shape
from spokeshave.train_settings import TrainSettings

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
class Config:
    """Options of the SSL recipe; 0 or nothing means what the row has."""

    row: Row = Row.DEMO
    """Row of the paper's tables."""
    data: DatasetName | None = None
    """Data set; the row's own by default."""
    data_dir: Path | None = None
    """Folder of the data; else SPOKESHAVE_DATA, else it is downloaded."""
    run_dir: Path | None = None
    """Where checkpoints, networks and the page go; runs/<row> by default."""
    seeds: tuple[int, ...] = (0,)
    """One run each; errors are means over them."""
    strength: float = 1.0
    """Factor on the row's penalties, at least 0."""
    baseline_epochs: int = 0
    """Epochs of the first stage."""
    ssl_epochs: int = 0
    """Epochs under the penalty."""
    finetune_epochs: int = 0
    """Epochs with the zero groups frozen."""
    control: bool = False
    """Also train the baseline on for as many epochs with nothing pulled: the dense network at the same budget."""
    checkpoint_every: int = 200
    """Steps between checkpoints."""
    device: str = "cpu"
    """Where to train: cpu, cuda, cuda:1."""
    resume: bool = False
    """Go on from the checkpoints in the run's folder."""
    tensorboard: bool = False
    """Also write the histories as TensorBoard scalars."""
    ledger: Path | None = None
    """Folder of the ledger; writes a row there."""
    smoke: bool = False
    """One epoch a stage on the embedded digits: shows that everything works, measures nothing."""


def run(config: Config) -> dict[str, Any]:
    """Train, pull, truncate, fine-tune, shrink and measure one row.

    Returns:
        The run's record as JSON values.

    Raises:
        SpokeshaveError: what is wrong with the data, the run's folder or the training.
    """
    started = time.perf_counter()
    row = config.row.value
    run_dir = config.run_dir or Path("runs") / row
    refuse_finished(run_dir, config.resume)
    usable_device(config.device)
    plan, usual_data = plan_of(config)
    splits = small_digits(usual_data) if config.smoke else load(config.data or usual_data, config.data_dir)
    options = {"device": config.device, "tensorboard": config.tensorboard, "control": config.control}
    results = [shape(plan, splits, seed, run_dir / f"seed-{seed}", config.resume, **options) for seed in config.seeds]
    if not is_first():
        return {}
    published = None if row not in PAPER else _published(row)
    settings = {k: v.value if isinstance(v, Enum) else v for k, v in asdict(config).items() if not isinstance(v, Path)}
    stages = {stage: getattr(plan, stage).to_dict() for stage in ("baseline", "ssl", "finetune")}
    record = write_run(
        results,
        splits,
        run_dir,
        recipe="ssl",
        row=row,
        title=f"SSL: {row} on {splits.name}",
        config=settings | {"batch_size": plan.batch_size, "stages": stages},
        paper=published,
        command=command_line(["spokeshave", "run", "ssl"], config),
        others=sibling_points(run_dir, "ssl", row.split("-")[0]),
        started=started,
    )
    print_run(record, run_dir, Console())
    if config.ledger is not None:
        write_ledger(record, results, config.ledger)
    return record.to_dict()


def _published(row: str) -> dict[str, Any]:
    """A row of `PAPER` as the page takes it: errors as shares, counts as in the paper's table."""
    paper = PAPER[row]
    shown = {k: "-".join(map(str, v)) if isinstance(v, tuple) else v for k, v in paper.items()}
    errors = {name: paper[name] / 100 for name in ("baseline", "error") if paper[name] is not None}
    return {"label": f"SSL paper, {row}"} | {k: v for k, v in shown.items() if v is not None} | errors


def small_digits(like: DatasetName) -> Splits:
    """A few of the embedded digits, in colour and 32 x 32 where `like` is."""
    digits = load(DatasetName.DIGITS)

    def small(split: Split, count: int) -> Split:
        images = split.images[:count]
        if like is DatasetName.CIFAR10:
            images = functional.pad(images, (2, 2, 2, 2)).repeat(1, 3, 1, 1)
        return Split(images, split.labels[:count])

    return replace(digits, name="digits (smoke)", train=small(digits.train, 500), test=small(digits.test, 200))


def plan_of(config: Config) -> tuple[Plan, DatasetName]:
    """The plan of a row, and its data set.

    Raises:
        InvalidArgument: for a negative strength or number of epochs, or no seed.
    """
    row, factor = config.row.value, config.strength
    lengths = (config.baseline_epochs, config.ssl_epochs, config.finetune_epochs, config.checkpoint_every)
    if not 0 <= factor < math.inf or min(lengths) < 0 or not config.seeds:
        raise InvalidArgument(
            "expected a finite --strength of at least 0, epochs and --checkpoint-every of at least 0 and at least one "
            f"seed, got {factor}, {lengths} and {config.seeds}"
        )
    plan, name = ROWS[row](factor)
    stages = {}
    for stage, epochs in (
        ("baseline", config.baseline_epochs),
        ("ssl", config.ssl_epochs),
        ("finetune", config.finetune_epochs),
    ):
        settings: TrainSettings = getattr(plan, stage)
        epochs = 1 if config.smoke else epochs or settings.epochs
        stages[stage] = replace(settings, epochs=epochs, checkpoint_every=config.checkpoint_every)
    return replace(plan, **stages), name
