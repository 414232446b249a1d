"""The road as recipes take it: the options that they share, and the walk of one row over its seeds, with all it leaves.

`shaping` walks once and `run_output` writes what was found; here a recipe's options say how.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from rich.console import Console
from torch.nn import functional

from spokeshave.data import DatasetName, Split, Splits, load
from spokeshave.errors import InvalidArgument
from spokeshave.export import export
from spokeshave.processes import is_first, usable_device
from spokeshave.rewrites import to_sparse
from spokeshave.run_output import command_line, print_run, refuse_finished, sibling_points, write_ledger, write_run
from spokeshave.shaping import Plan, shape


@dataclass(frozen=True)
class FirstOptions:
    """Options up to the first stage; those of a recipe's own second stage come next on its command line."""

    row: Enum
    """Row of the recipe."""
    data: DatasetName | None = None
    """Data set; the row's own by default."""
    data_dir: Path | None = None
    """Folder of the data; else SPOKESHAVE_DATA, else it is downloaded."""
    run_dir: Path | None = None
    """Where checkpoints, networks and the page go."""
    seeds: tuple[int, ...] = (0,)
    """One run each; errors are means over them."""
    strength: float = 1.0
    """Factor on the row's penalties, at least 0."""
    baseline_epochs: int = 0
    """Epochs of the first stage."""


@dataclass(frozen=True)
class LastOptions:
    """Options from the third stage on."""

    finetune_epochs: int = 0
    """Epochs with the zeros frozen."""
    control: bool = False
    """Also train the baseline on for as many epochs: the dense network at the same budget."""
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


@dataclass(frozen=True)
class RoadOptions(LastOptions, FirstOptions):
    """Options of a walk; 0 or nothing means what the row has.

    A recipe's `Config(RoadOptions, Second)` states again what it says in other words; `Second(FirstOptions)` holds the
    options of its second stage, which so stand between the others.
    """


def walk_row(
    config: RoadOptions,
    recipe: str,
    label: str,
    folder: str,
    plan_of: Callable[[], tuple[Plan, DatasetName]],
    paper: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Walk the road for every seed of one row, and write, print and record what it gave.

    Where the plan prunes single weights, every seed's network is also written to seed-<seed>/sparse.safetensors, and
    what is timed is the network as `to_sparse` runs it.

    Args:
        config: the options.
        recipe: its name, as on the command line.
        label: the recipe in the title of the page.
        folder: of the run below runs/, where none is given.
        plan_of: gives the plan and the row's own data set; asked once the folder and the device are known to be good.
        paper: the published row.

    Returns:
        The run's record as JSON values; nothing in all processes but the first.

    Raises:
        SpokeshaveError: what is wrong with the options, the data, the run's folder or the training.
    """
    started = time.perf_counter()
    row = config.row.value
    run_dir = config.run_dir or Path("runs") / folder
    refuse_finished(run_dir, config.resume)
    usable_device(config.device)
    plan, usual_data = plan_of()
    splits = small_digits(usual_data) if config.smoke else load(config.data or usual_data, config.data_dir)
    options = {"device": config.device, "tensorboard": config.tensorboard, "control": config.control}
    results = [shape(plan, splits, seed, run_dir / f"seed-{seed}", config.resume, **options) for seed in config.seeds]
    if not is_first():
        return {}
    single = plan.prune is not None
    for result in results if single else ():
        export(result.sparse, run_dir / f"seed-{result.seed}" / "sparse.safetensors")
    settings = {k: v.value if isinstance(v, Enum) else v for k, v in asdict(config).items() if not isinstance(v, Path)}
    record = write_run(
        results,
        splits,
        run_dir,
        recipe=recipe,
        row=row,
        title=f"{label}: {row} on {splits.name}",
        config=settings
        | {"batch_size": plan.batch_size, "stages": {name: stage.to_dict() for name, stage in plan.stages.items()}},
        paper=paper,
        command=command_line(["spokeshave", "run", recipe], config),
        others=sibling_points(run_dir, recipe, row.split("-")[0]),
        started=started,
        runtime=(lambda small, example: to_sparse(small, example)[0]) if single else None,
    )
    print_run(record, run_dir, Console())
    if config.ledger is not None:
        write_ledger(record, results, config.ledger)
    return record.to_dict()


def plan_with(
    config: RoadOptions, second_epochs: int, make: Callable[[float], tuple[Plan, DatasetName]]
) -> tuple[Plan, DatasetName]:
    """A row's plan with the lengths that the options ask for, and its data set.

    Args:
        config: the options.
        second_epochs: of the second stage; 0 for the row's own.
        make: gives both for a strength.

    Raises:
        InvalidArgument: for a negative strength or number of epochs, or no seed.
    """
    lengths = (config.baseline_epochs, second_epochs, config.finetune_epochs, config.checkpoint_every)
    if not 0 <= config.strength < math.inf or min(lengths) < 0 or not config.seeds:
        raise InvalidArgument(
            "expected a finite --strength of at least 0, epochs and --checkpoint-every of at least 0 and at least one "
            f"seed, got {config.strength}, {lengths} and {config.seeds}"
        )
    plan, name = make(config.strength)
    stages = {
        stage: replace(
            getattr(plan, stage),
            epochs=1 if config.smoke else epochs or getattr(plan, stage).epochs,
            checkpoint_every=config.checkpoint_every,
        )
        for stage, epochs in zip(("baseline", "ssl", "finetune"), lengths[:3], strict=True)
    }
    # An epoch is too short for most pulls, and a smoke run is to show the road to its end.
    return replace(plan, **stages, may_stay=config.smoke), name


def small_digits(like: DatasetName) -> Splits:
    """A few of the embedded digits in the form of another set: in colour and 32 x 32, or 19 x 19 in three classes."""
    digits = load(DatasetName.DIGITS)

    def small(split: Split, count: int) -> Split:
        images = split.images[:count]
        if like is DatasetName.CIFAR10:
            images = functional.pad(images, (2, 2, 2, 2)).repeat(1, 3, 1, 1)
        if like is DatasetName.RS130:
            return Split(images[:, :, 4:23, 4:23], split.labels[:count] % 3)
        return Split(images, split.labels[:count])

    return replace(digits, name="digits (smoke)", train=small(digits.train, 256), test=small(digits.test, 100))
