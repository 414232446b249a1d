"""spokeshave show: the table of a finished run, beside the paper's row, and the place of its page."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro
from rich.console import Console

from spokeshave.cli.list_recipes import show_value
from spokeshave.errors import DataError

if TYPE_CHECKING:
    from spokeshave.report.arms_record import ArmsRecord
    from spokeshave.report.exchange_record import ExchangeRecord
    from spokeshave.report.run_record import RunRecord


@dataclasses.dataclass(frozen=True)
class Options:
    """Show the table of a finished run, beside the paper's row, and the place of its page."""

    run: tyro.conf.Positional[str]
    """A run's name (a folder of runs/), its folder, or its run.json."""
    runs: Path = Path("runs")
    """The folder that holds the runs."""


def command(arguments: list[str]) -> int:
    """Print a run's table.

    Args:
        arguments: the words after `show`.

    Returns:
        The exit code.

    Raises:
        DataError: where there is no such run, or its run.json is damaged.
    """
    options = tyro.cli(Options, prog="spokeshave show", args=arguments)
    path = find_run(options.run, options.runs)
    console = Console()
    record = _print(path, console)
    for key, value in run_facts(record).items():
        console.print(f"{key}: {show_value(value)}", markup=False, highlight=False)
    return 0


def _print(path: Path, console: Console) -> "RunRecord | ExchangeRecord | ArmsRecord":
    """Print the table of a run of any kind."""
    from spokeshave.report import arms_record
    from spokeshave.report.exchange_record import KIND, ExchangeRecord, read_kind
    from spokeshave.report.run_record import RunRecord

    kind = read_kind(path)
    if kind == arms_record.KIND:
        from spokeshave.arms_output import print_arms

        record = arms_record.ArmsRecord.load(path)
        print_arms(record, path.parent, console)
        return record
    if kind == KIND:
        from spokeshave.exchange_output import print_exchange

        record = ExchangeRecord.load(path)
        print_exchange(record, path.parent, console)
        return record
    from spokeshave.run_output import print_run

    record = RunRecord.load(path)
    print_run(record, path.parent, console)
    return record


def find_run(named: str, runs: Path) -> Path:
    """Find the run.json of a run.

    Args:
        named: the run's name, its folder or the file itself.
        runs: the folder that holds the runs.

    Returns:
        The file.

    Raises:
        DataError: where there is none; the message names the runs that are there.
    """
    for candidate in (Path(named), Path(named) / "run.json", runs / named / "run.json"):
        if candidate.is_file():
            return candidate
    there = sorted(path.parent.relative_to(runs).as_posix() for path in runs.glob("**/run.json"))
    unfinished = any((folder / named).is_dir() for folder in (Path(), runs))
    reason = "has no run.json: it has not finished" if unfinished else "is not a run"
    raise DataError(f"{named} {reason}; under {runs} there are: {', '.join(there) or 'none'}")


def run_facts(record: "RunRecord | ExchangeRecord | ArmsRecord") -> dict[str, Any]:
    """Pick what a reader asks next: the published row, the seeds, the commit, the command, the time it took.

    Args:
        record: of the run.

    Returns:
        Name -> value, of what is known.
    """
    facts = {
        "paper": record.paper,
        "seeds": record.seeds,
        "commit": record.commit,
        "command": record.command,
        "took": f"{record.wall_s:.0f} s",
    }
    return {name: value for name, value in facts.items() if value}
