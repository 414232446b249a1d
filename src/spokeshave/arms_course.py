"""What recipes of arms have in common: their options, the course on which float networks are found, what is printed.

Arms are ways to treat one float network; `equal_budget` trains it, `arms_output` writes what was found.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from rich.console import Console

from spokeshave.arms_output import print_arms, write_arms_ledger
from spokeshave.data import DatasetName, load
from spokeshave.equal_budget import Course
from spokeshave.errors import InvalidArgument
from spokeshave.float_networks import FloatNetwork
from spokeshave.processes import torchrun_place, usable_cores, usable_device
from spokeshave.report.arms_record import ArmsRecord
from spokeshave.road import small_digits
from spokeshave.run_output import refuse_finished
from spokeshave.worker_processes import Work, do_in_processes


@dataclass(frozen=True)
class FirstArmsOptions:
    """Options that come before a recipe's own."""

    row: Enum
    """Row of the recipe."""
    data: DatasetName | None = None
    """Data set; the row's own by default."""
    data_dir: Path | None = None
    """Folder of the data; else SPOKESHAVE_DATA, else it is downloaded."""
    run_dir: Path | None = None
    """Where checkpoints and the page go; runs/<recipe>-<row> by default. Float networks go beside it."""
    seeds: tuple[int, ...] = (0,)
    """One run each; errors are means over them."""


@dataclass(frozen=True)
class LastArmsOptions:
    """Options that come after a recipe's own."""

    device: str = "cpu"
    """Where to train: cpu, cuda, cuda:1."""
    resume: bool = False
    """Go on from the checkpoints in the run's folder."""
    ledger: Path | None = None
    """Folder of the ledger; writes a row there."""
    smoke: bool = False
    """A few steps on the embedded digits: shows that everything works, measures nothing."""


@dataclass(frozen=True)
class ArmsOptions(LastArmsOptions, FirstArmsOptions):
    """All of them; a recipe's `Config(ArmsOptions, Own)` has those of its `Own(FirstArmsOptions)` between."""


def require_arms(seeds: tuple[int, ...], arms: tuple[Enum, ...]) -> None:
    """See that there is something to compare.

    Raises:
        InvalidArgument: for no seed, no arm, or the same arm twice.
    """
    if not seeds or not arms or len(set(arms)) < len(arms):
        raise InvalidArgument(f"expected at least one seed and different arms, got {seeds} and {arms}")


def open_course(config: ArmsOptions, recipe: str, start: FloatNetwork) -> Course:
    """The course of a run; refuses, before any work, a finished run and an unusable device.

    Args:
        config: the options.
        recipe: its name in the run's folder.
        start: the float network of the row.

    Raises:
        SpokeshaveError: what is wrong with the folder, the device or the data.
    """
    run_dir = config.run_dir or Path("runs") / f"{recipe}-{config.row.value}"
    refuse_finished(run_dir, config.resume)
    usable_device(config.device)
    splits = small_digits(start.data) if config.smoke else load(config.data or start.data, config.data_dir)
    return Course(start.budget(splits, config.smoke), splits, run_dir, config.resume, config.device)


def do_side_by_side(
    config: ArmsOptions, workers: int, work: Work, shared: object, jobs: Sequence[tuple[str, Any]]
) -> bool:
    """Do jobs in processes that share the cores, where there are several; what they find, they leave in files.

    Args:
        config: the options.
        workers: processes that are asked for; 0 for one a core.
        work: see `do_in_processes`.
        shared: what every job needs.
        jobs: each with its name.

    Returns:
        Whether they were done; not with one process, on an accelerator, under torchrun and in a smoke run.
    """
    workers = workers or usable_cores()
    if workers == 1 or config.device != "cpu" or config.smoke or torchrun_place()[1] > 1:
        return False
    threads = max(1, usable_cores() // min(workers, max(1, len(jobs))))
    do_in_processes(work, shared, [job for _, job in jobs], [name for name, _ in jobs], workers, threads)
    return True


def close_course(record: ArmsRecord, course: Course, config: ArmsOptions) -> dict[str, Any]:
    """Print a record, and write its row of the ledger where there is one.

    Returns:
        The record as JSON values.

    Raises:
        LedgerError: where the code differs from the commit.
    """
    print_arms(record, course.run_dir, Console())
    if config.ledger is not None:
        write_arms_ledger(record, config.ledger)
    return asdict(record)
