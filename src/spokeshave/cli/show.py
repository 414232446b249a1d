"""spokeshave show: the table of a finished run, beside the paper's row, and where its page is."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.table import Table

from spokeshave.cli.list_recipes import show_value
from spokeshave.errors import DataError


@dataclasses.dataclass(frozen=True)
class Options:
    """Show the table of a finished run, beside the paper's row, and where its page is."""

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
    record = read_run(path)
    console = Console()
    console.print(run_table(record))
    console.print(*(f"{key} {show_value(value)}" for key, value in run_facts(record).items()), sep="\n", markup=False)
    page = path.with_name("report.html")
    console.print(f"page: {page}" if page.is_file() else f"no page yet beside {path}", soft_wrap=True, markup=False)
    return 0


def find_run(named: str, runs: Path) -> Path:
    """Find the run.json of a run.

    Args:
        named: the run's name, its folder or the file itself.
        runs: the folder that holds the runs.

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


def read_run(path: Path) -> dict[str, Any]:
    """Read a run.json.

    Args:
        path: the file.

    Raises:
        DataError: where it is no JSON object.
    """
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a run: {error}; run the recipe again") from error
    if not isinstance(record, dict):
        raise DataError(f"{path}: expected a JSON object, got {type(record).__name__}; run the recipe again")
    return record


def run_table(record: dict[str, Any]) -> Table:
    """Lay a run out as a table: before, after, and how many times less.

    Args:
        record: what `read_run` gave.
    """
    table = Table(title=str(record.get("title") or f"{record.get('recipe')} {record.get('row')}"), title_justify="left")
    for heading in ("", "before", "after", "ratio"):
        table.add_column(heading, justify="left" if not heading else "right")
    before, after = record.get("baseline") or {}, record.get("final") or {}
    if "error" in before or "error" in after:
        table.add_row("test error", _percent(before.get("error")), _percent(after.get("error")), "")
    old, new = before.get("measurement") or {}, after.get("measurement") or {}
    for key, label in (("parameters", "parameters"), ("bytes", "bytes"), ("flops", "FLOPs an image")):
        if key in old and key in new:
            ratio = f"{old[key] / new[key]:.2f}x" if new[key] else "-"
            table.add_row(label, f"{old[key]:,}", f"{new[key]:,}", ratio)
    for row in (record.get("comparison") or {}).get("rows", ()):
        threads = f"{row['threads']} thread" + "s" * (row["threads"] != 1)
        cells = (f"{row['before_s'] * 1e3:.3f} ms", f"{row['after_s'] * 1e3:.3f} ms", f"{row['ratio']:.2f}x")
        table.add_row(f"batch {row['batch_size']}, {threads}", *cells)
    return table


def run_facts(record: dict[str, Any]) -> dict[str, Any]:
    """Pick what a reader asks next: the published row, the seeds, the commit, the time it took.

    Args:
        record: what `read_run` gave.
    """
    facts = {"paper:": record.get("paper"), "seeds:": record.get("seeds"), "commit:": record.get("commit")}
    if isinstance(record.get("wall_s"), (int, float)):
        facts["time:"] = f"{record['wall_s']:.0f} s"
    return {key: value for key, value in facts.items() if value not in (None, [], {})}


def _percent(error: Any) -> str:
    return f"{100 * error:.2f} %" if isinstance(error, (int, float)) else "-"
