"""What a run that compares arms leaves: run.json, page, printed table, row of the ledger."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

from rich.console import Console
from rich.table import Table

from spokeshave.evaluation import Evaluation
from spokeshave.ledger import write_row
from spokeshave.report import PAGE_FILE
from spokeshave.report.arms_page import arm_cells, arm_headings, shown_quantities, write_arms_page
from spokeshave.report.arms_record import Arm, ArmsRecord, Chart, spread
from spokeshave.report.heat_table import HeatTable
from spokeshave.report.image_gallery import Gallery
from spokeshave.report.record_heading import code_and_machine

_COLUMNS = 5
"""Numbers of an arm that fit a terminal of eighty columns."""


@dataclass(frozen=True)
class Scored:
    """What one arm of one seed gave.

    Attributes:
        label: what was done, in words.
        validation: its score on the validation split.
        test: its score on the test split.
        numbers: what else was measured.
        history: stage -> rows, of what was trained for this arm.
    """

    label: str
    validation: Evaluation
    test: Evaluation
    numbers: Mapping[str, float] = field(default_factory=dict)
    history: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)


def write_arms(
    seeds: Mapping[int, Mapping[str, Scored]],
    run_dir: Path,
    *,
    recipe: str,
    row: str,
    title: str,
    headline: str,
    config: Mapping[str, Any],
    data: str | None = None,
    quantities: Mapping[str, str] | None = None,
    layers: Mapping[str, list[dict[str, Any]]] | None = None,
    charts: Sequence[Chart] = (),
    tables: Sequence[HeatTable] = (),
    galleries: Sequence[Gallery] = (),
    paper: Mapping[str, Any] | None = None,
    command: str | None = None,
    started: float | None = None,
) -> ArmsRecord:
    """Write run.json and report.html.

    Args:
        seeds: seed -> name of an arm -> what it gave; all seeds have the same arms, the reference first.
        run_dir: of the run.
        recipe: its name.
        row: of the recipe.
        title: of the page.
        headline: name of the arm that the run is about.
        config: settings, JSON values.
        data: name of the data set.
        quantities: name of a number -> its heading.
        layers: title of a table -> rows, of the first seed.
        charts: further figures.
        tables: shares that are shown as heat maps.
        galleries: of small images.
        paper: the published row; "accuracy" and "gap" by the name of an arm.
        command: that repeats the run.
        started: `time.perf_counter()` at the start of the run; None where all that takes long is training.

    Returns:
        The record.
    """
    first = next(iter(seeds.values()))
    arms = [
        Arm(
            name,
            scored.label,
            [1 - one[name].test.accuracy for one in seeds.values()],
            [1 - one[name].validation.accuracy for one in seeds.values()],
            [dict(one[name].numbers) for one in seeds.values()],
        )
        for name, scored in first.items()
    ]
    # A stage that several arms share counts once. Histories remember how long trainings took, also before a resume.
    stages = {
        (seed, stage): rows
        for seed, one in seeds.items()
        for scored in one.values()
        for stage, rows in scored.history.items()
        if rows
    }
    trained_s = sum(rows[-1]["wall_s"] for rows in stages.values())
    record = ArmsRecord(
        recipe=recipe,
        row=row,
        title=title,
        config=dict(config),
        seeds=list(seeds),
        **code_and_machine(),
        wall_s=trained_s if started is None else max(trained_s, time.perf_counter() - started),
        history={stage: rows for (seed, stage), rows in stages.items() if seed == next(iter(seeds))},
        paper=None if paper is None else dict(paper),
        command=command,
        data=data,
        arms=arms,
        headline=headline,
        quantities=dict(quantities or {}),
        layers={name: list(rows) for name, rows in (layers or {}).items()},
        charts=list(charts),
        tables=list(tables),
        galleries=list(galleries),
    )
    record.save(run_dir)
    write_arms_page(record, run_dir / PAGE_FILE)
    return record


def print_arms(record: ArmsRecord, run_dir: Path, console: Console) -> None:
    """Print what the arms are, their errors, their further numbers, and where the page is."""
    runs = f" (mean of {len(record.seeds)} seeds)" if len(record.seeds) > 1 else ""
    console.print(f"{record.title}{runs}", markup=False, highlight=False)
    for arm in record.arms:
        console.print(f"  {arm.name}: {arm.label}", markup=False, highlight=False, soft_wrap=True)
    headings = arm_headings(record)
    first = len(headings) - len(shown_quantities(record))
    # Tables below each other: side by side they would not fit a terminal of eighty columns.
    for columns in (range(1, first), *batched_columns(first, len(headings))):
        table = Table(box=None, padding=(0, 2))
        table.add_column("arm", no_wrap=True)
        for column in columns:
            table.add_column(headings[column], justify="right")
        for arm in record.arms:
            cells = arm_cells(record, arm)
            style = "bold" if arm.name == record.headline else None
            table.add_row(arm.name, *(cells[column] for column in columns), style=style)
        if columns:
            console.print(table)
    console.print(f"page: {run_dir / PAGE_FILE}", markup=False, highlight=False, soft_wrap=True)


def batched_columns(first: int, last: int) -> list[range]:
    """Columns from `first` below `last`, as many at a time as fit a terminal beside the names, evenly.

    Example:
        >>> batched_columns(4, 11)
        [range(4, 8), range(8, 11)]
    """
    count = last - first
    tables = -(-count // _COLUMNS)
    each = -(-count // tables) if tables else 1
    return [range(start, min(last, start + each)) for start in range(first, last, each)]


def write_arms_ledger(record: ArmsRecord, directory: Path) -> Path:
    """Write a run's row of the ledger.

    Raises:
        LedgerError: where the code differs from the commit.
    """
    arms: dict[str, Any] = {}
    for arm in record.arms:
        gaps = [100 * gap for gap in arm.gaps(record.reference)]
        arms[arm.name] = {
            "label": arm.label,
            "error": arm.error,
            "error_spread": spread(arm.errors),
            "errors": arm.errors,
            "validation_error": mean(arm.validation_errors),
            "validation_errors": arm.validation_errors,
            "gap_points": mean(gaps),
            "gap_points_spread": spread(gaps),
            "numbers": {name: arm.number(name) for name in record.quantities if arm.number(name) is not None},
            "numbers_by_seed": arm.numbers,
        }
    numbers = {
        "arms": arms, "reference": record.reference.name, "headline": record.headline, "layers": record.layers,
        "published": record.paper,
    }  # fmt: skip
    return write_row(
        record.recipe, record.row, record.config, numbers,
        seeds=record.seeds, wall_s=record.wall_s, command=record.command, directory=directory,
    )  # fmt: skip
