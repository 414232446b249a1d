"""Guided sparsity: networks pruned weight by weight where their machine gains, run by direct sparse convolution.

Park, Li, Wen, Tang, Li, Chen, Dubey: Faster CNNs with Direct Sparse Convolutions and Guided Pruning, ICLR 2017.
Departs from the paper: CIFAR-10 networks, since ImageNet cannot be had freely; the pull is followed, in the same stage,
by a magnitude schedule that ends at the row's target; the paper gives no table, so `PAPER` holds the sparsities of the
networks that its authors released (SkimCaffe).
"""

import math
import time
from dataclasses import asdict, dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from rich.console import Console

from spokeshave.data import DatasetName, load
from spokeshave.errors import InvalidArgument
from spokeshave.export import export
from spokeshave.processes import is_first, usable_device
from spokeshave.recipes.guided_sparsity_rows import ROWS
from spokeshave.recipes.ssl import small_digits
from spokeshave.rewrites import to_sparse
from spokeshave.run_output import command_line, print_run, refuse_finished, sibling_points, write_ledger, write_run
from spokeshave.shaping import Plan, shape

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
class Config:
    """Options of the guided sparsity recipe; 0 or nothing means what the row has."""

    row: Row = Row.DEMO
    """Network and target."""
    data: DatasetName | None = None
    """Data set; the row's own by default."""
    data_dir: Path | None = None
    """Folder of the data; else SPOKESHAVE_DATA, else it is downloaded."""
    run_dir: Path | None = None
    """Where checkpoints, networks and the page go; runs/guided-<row> by default."""
    seeds: tuple[int, ...] = (0,)
    """One run each; errors are means over them."""
    strength: float = 1.0
    """Factor on the row's L1 pull, at least 0."""
    baseline_epochs: int = 0
    """Epochs of the first stage."""
    prune_epochs: int = 0
    """Epochs under the pull and the schedule."""
    finetune_epochs: int = 0
    """Epochs with the zeros frozen."""
    control: bool = False
    """Also train the baseline on for as many epochs with nothing pruned: the dense network at the same budget."""
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
    """Train, prune, fine-tune, compile and measure one row.

    Every seed's pruned network is written to seed-<seed>/sparse.safetensors, for `ss.load_safetensors`.

    Returns:
        The run's record as JSON values.

    Raises:
        SpokeshaveError: what is wrong with the data, the run's folder or the training.
    """
    started = time.perf_counter()
    row = config.row.value
    run_dir = config.run_dir or Path("runs") / f"guided-{row}"
    refuse_finished(run_dir, config.resume)
    usable_device(config.device)
    plan, usual_data = plan_of(config)
    splits = small_digits(usual_data) if config.smoke else load(config.data or usual_data, config.data_dir)
    options = {"device": config.device, "tensorboard": config.tensorboard, "control": config.control}
    results = [shape(plan, splits, seed, run_dir / f"seed-{seed}", config.resume, **options) for seed in config.seeds]
    if not is_first():
        return {}
    for result in results:
        export(result.sparse, run_dir / f"seed-{result.seed}" / "sparse.safetensors")
    settings = {k: v.value if isinstance(v, Enum) else v for k, v in asdict(config).items() if not isinstance(v, Path)}
    record = write_run(
        results,
        splits,
        run_dir,
        recipe="guided_sparsity",
        row=row,
        title=f"Guided sparsity: {row} on {splits.name}",
        config=settings
        | {"batch_size": plan.batch_size, "stages": {name: stage.to_dict() for name, stage in plan.stages.items()}},
        command=command_line(["spokeshave", "run", "guided_sparsity"], config),
        others=sibling_points(run_dir, "guided_sparsity", row),
        started=started,
        runtime=lambda small, example: to_sparse(small, example)[0],
    )
    print_run(record, run_dir, Console())
    if config.ledger is not None:
        write_ledger(record, results, config.ledger)
    return record.to_dict()


def plan_of(config: Config) -> tuple[Plan, DatasetName]:
    """The plan of a row, and its data set.

    Raises:
        InvalidArgument: for a negative strength or number of epochs, or no seed.
    """
    lengths = (config.baseline_epochs, config.prune_epochs, config.finetune_epochs, config.checkpoint_every)
    if not 0 <= config.strength < math.inf or min(lengths) < 0 or not config.seeds:
        raise InvalidArgument(
            "expected a finite --strength of at least 0, epochs and --checkpoint-every of at least 0 and at least one "
            f"seed, got {config.strength}, {lengths} and {config.seeds}"
        )
    plan, name = ROWS[config.row.value](config.strength)
    stages = {
        stage: replace(
            getattr(plan, stage),
            epochs=1 if config.smoke else epochs or getattr(plan, stage).epochs,
            checkpoint_every=config.checkpoint_every,
        )
        for stage, epochs in zip(("baseline", "ssl", "finetune"), lengths[:3], strict=True)
    }
    return replace(plan, **stages), name
