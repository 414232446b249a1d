"""What a comparison of exact and exchanged gradients leaves: run.json, page, printed table, row of the ledger."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rich.console import Console
from rich.table import Table

from spokeshave.data import Splits
from spokeshave.equal_budget import EXCHANGED, FLOAT, Pair
from spokeshave.ledger import write_row
from spokeshave.report import PAGE_FILE, wording
from spokeshave.report.exchange_page import write_exchange_page
from spokeshave.report.exchange_record import ExchangeRecord, with_spread
from spokeshave.report.record_heading import code_and_machine


def write_exchange(
    pairs: Sequence[Pair],
    splits: Splits,
    run_dir: Path,
    *,
    recipe: str,
    row: str,
    title: str,
    config: Mapping[str, Any],
    float_bytes: int,
    sent_bytes: int,
    paper: Mapping[str, Any] | None = None,
    command: str | None = None,
) -> ExchangeRecord:
    """Write run.json and report.html.

    Args:
        pairs: one a seed, at least one.
        splits: the data.
        run_dir: of the run.
        recipe: its name.
        row: of the recipe.
        title: of the page.
        config: settings, JSON values.
        float_bytes: that a worker sends in a step without compression.
        sent_bytes: that it sends with it.
        paper: the published row.
        command: that repeats the run.

    Returns:
        The record.
    """
    histories = [history for pair in pairs for history in (pair.exact.history, pair.exchanged.history)]
    record = ExchangeRecord(
        recipe=recipe,
        row=row,
        title=title,
        config=dict(config),
        seeds=[pair.seed for pair in pairs],
        **code_and_machine(),
        # The histories remember how long the trainings took, also before a resume.
        wall_s=sum(history[-1]["wall_s"] for history in histories),
        float_errors=[1 - pair.exact.test.accuracy for pair in pairs],
        errors=[1 - pair.exchanged.test.accuracy for pair in pairs],
        float_validation_errors=[1 - pair.exact.validation.accuracy for pair in pairs],
        validation_errors=[1 - pair.exchanged.validation.accuracy for pair in pairs],
        zero_codes=mean_zero_codes([pair.exchanged.history for pair in pairs]),
        float_bytes=float_bytes,
        sent_bytes=sent_bytes,
        history={FLOAT: pairs[0].exact.history, EXCHANGED: pairs[0].exchanged.history},
        paper=None if paper is None else dict(paper),
        command=command,
        data=splits.name,
    )
    record.save(run_dir)
    write_exchange_page(record, run_dir / PAGE_FILE)
    return record


def mean_zero_codes(histories: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, float]:
    """Mean share of zero codes of each parameter.

    Args:
        histories: rows of trainings, whose "exchange" may hold "zero_codes".

    Example:
        >>> mean_zero_codes([[{"exchange": {"zero_codes": {"w": 0.5}}}, {"exchange": {"zero_codes": {"w": 0.7}}}]])
        {'w': 0.6}
    """
    noted = [row["exchange"].get("zero_codes", {}) for history in histories for row in history if "exchange" in row]
    names = dict.fromkeys(name for codes in noted for name in codes)
    return {name: mean(codes[name] for codes in noted if name in codes) for name in names}


def print_exchange(record: ExchangeRecord, run_dir: Path, console: Console) -> None:
    """Print exact against ternary as a table, and where the page is."""
    table = Table(title=record.title, title_justify="left", box=None, padding=(0, 2))
    for heading in ("", "float", "ternary", "gap"):
        table.add_column(heading, justify="left" if not heading else "right")
    seeds = f" (mean of {len(record.seeds)} seeds)" if len(record.seeds) > 1 else ""
    gap = with_spread(record.gaps, points=True)
    table.add_row(f"test error{seeds}", with_spread(record.float_errors), with_spread(record.errors), gap)
    if record.paper:
        exact, theirs = (f"{100 - record.paper[name]:.2f} %" for name in ("float_accuracy", "accuracy"))
        table.add_row("published", exact, theirs, f"{record.paper['gap']:+.2f} points".replace("-", "−"))
    table.add_row(
        "bytes a step and worker",
        wording.count(record.float_bytes, "B"),
        wording.count(record.sent_bytes, "B"),
        wording.times_fewer(record.float_bytes, record.sent_bytes),
    )
    console.print(table)
    if record.zero_codes:
        codes = ", ".join(f"{name} {wording.percent(share, 1)}" for name, share in record.zero_codes.items())
        console.print(f"zero codes: {codes}", markup=False, highlight=False)
    console.print(f"page: {run_dir / PAGE_FILE}", markup=False, highlight=False, soft_wrap=True)


def write_exchange_ledger(record: ExchangeRecord, directory: Path) -> Path:
    """Write a run's row of the ledger.

    Raises:
        LedgerError: where the code differs from the commit.
    """
    gaps = record.gaps
    numbers = {
        "float_error": mean(record.float_errors),
        "error": mean(record.errors),
        "gap_points": 100 * mean(gaps),
        "gap_points_spread": 100 * stdev(gaps) if len(gaps) > 1 else None,
        "float_errors": record.float_errors,
        "errors": record.errors,
        "float_validation_errors": record.float_validation_errors,
        "validation_errors": record.validation_errors,
        "zero_codes": record.zero_codes,
        "float_bytes": record.float_bytes,
        "sent_bytes": record.sent_bytes,
        "validation_accuracy_by_step": {
            stage: [[row["step"], row["validation_accuracy"]] for row in rows] for stage, rows in record.history.items()
        },
        "published": record.paper,
    }
    return write_row(
        record.recipe, record.row, record.config, numbers,
        seeds=record.seeds, wall_s=record.wall_s, command=record.command, directory=directory,
    )  # fmt: skip
