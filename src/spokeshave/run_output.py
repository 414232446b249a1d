"""What a walk of the road leaves: run.json, the small network, the page, the printed table, the ledger's row."""

import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields
from enum import Enum
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from spokeshave.data import Splits
from spokeshave.errors import CheckpointError, DataError
from spokeshave.ledger import write_row
from spokeshave.measure import compare, measure
from spokeshave.report.published import kept_counts
from spokeshave.report.record_heading import RECORD_FILE, code_and_machine
from spokeshave.report.run_record import Outcome, RunRecord
from spokeshave.shaping import CONTROL, Shaped
from spokeshave.structures.groups import CONVOLUTIONS


def write_run(
    results: Sequence[Shaped],
    splits: Splits,
    run_dir: Path,
    *,
    recipe: str,
    row: str,
    title: str,
    config: Mapping[str, Any],
    paper: Mapping[str, Any] | None = None,
    command: str | None = None,
    others: Sequence[Mapping[str, Any]] = (),
    started: float,
    runtime: Callable[[nn.Module, Tensor], nn.Module] | None = None,
) -> RunRecord:
    """Measure the networks of the first seed, and write run.json, the small network and report.html.

    Args:
        results: one a seed, at least one; accuracies are means over them.
        splits: the data.
        run_dir: of the run.
        recipe: its name.
        row: of the recipe.
        title: of the page.
        config: settings, JSON values.
        paper: the published row.
        command: that repeats the run.
        others: further points of the page's figure, such as other strengths or rows.
        started: `time.perf_counter()` at the start of the run.
        runtime: makes, from the small network and an example, what is timed against the baseline; None: itself.

    Returns:
        The record.
    """
    from spokeshave.export import export
    from spokeshave.report import write_page

    first = results[0]
    # Measured on noise of the right shape: no number of a measurement depends on what is in the image.
    example = torch.randn(1, *splits.train.images.shape[1:], generator=torch.Generator().manual_seed(0))
    errors = {
        "baseline": [1 - result.baseline_test.accuracy for result in results],
        "final": [1 - result.small_test.accuracy for result in results],
    }
    control = control_errors(results)
    before, after = measure(first.baseline, example), measure(first.small, example)
    points = [
        {
            "label": f"seed {result.seed}",
            "error": 1 - result.small_test.accuracy,
            "flops": measure(result.small, example, latency=False).flops,
            "parameters": sum(p.numel() for p in result.small.parameters()),
            "stage": "shrunk",
        }
        for result in results
    ]
    dense = {"label": "dense, trained on for as long", "flops": before.flops, "parameters": before.parameters}
    controls = [dense | {"error": mean(control), "stage": CONTROL}] if control else []
    # A resumed run trained before it was started the last time; the histories remember for how long.
    trained_s = sum(rows[-1]["wall_s"] for result in results for rows in result.history.values())
    record = RunRecord(
        recipe=recipe,
        row=row,
        title=title,
        config=dict(config),
        seeds=[result.seed for result in results],
        **code_and_machine(),
        wall_s=max(time.perf_counter() - started, trained_s),
        baseline=Outcome(1 - mean(errors["baseline"]), mean(errors["baseline"]), before, _spread(errors["baseline"])),
        final=Outcome(1 - mean(errors["final"]), mean(errors["final"]), after, _spread(errors["final"])),
        comparison=compare(first.baseline, runtime(first.small, example) if runtime else first.small, example),
        shrink=first.report.to_dict(),
        history={stage: rows for stage, rows in first.history.items() if not stage.startswith(CONTROL)},
        points=[*(points if len(points) > 1 else []), *controls, *map(dict, others)],
        paper=None if paper is None else dict(paper),
        command=command,
        data=splits.name,
        weights=_lowered(first.sparse),
    )
    export(first.small, run_dir / "small.safetensors")
    export(first.small, run_dir / "small.pt2", example)
    record.save(run_dir)
    write_page(record, run_dir / "report.html")
    return record


def control_errors(results: Sequence[Shaped]) -> list[float]:
    """Test errors of the controls, one a seed; none where they were not trained."""
    return [1 - result.control_test.accuracy for result in results if result.control_test is not None]


def command_line(words: Sequence[str], config: object) -> str:
    """The command that repeats a run: every option that differs from its default, but for where files are.

    Args:
        words: the command up to its options.
        config: a dataclass of options; paths, `resume` and positional arguments are left out.

    Example:
        >>> from spokeshave.train_settings import TrainSettings
        >>> command_line(["spokeshave", "run", "r"], TrainSettings(epochs=3, learning_rate=0.01))
        'spokeshave run r --epochs 3'
    """
    words = list(words)
    for item in fields(config):  # pyright: ignore[reportArgumentType]
        value, option = getattr(config, item.name), f"--{item.name.replace('_', '-')}"
        if item.default is MISSING or value == item.default or isinstance(value, Path) or item.name == "resume":
            continue
        if isinstance(value, bool):
            words.append(option if value else f"--no-{option[2:]}")
            continue
        values = value if isinstance(value, tuple) else (value,)
        words += [option, *(str(v.value) if isinstance(v, Enum) else str(v) for v in values)]
    return shlex.join(words)


def print_run(record: RunRecord, run_dir: Path, console: Console) -> None:
    """Print before and after as a table, and where the page is."""
    table = Table(title=record.title, title_justify="left", box=None, padding=(0, 2))
    for heading in ("", "before", "after", "gain"):
        table.add_column(heading, justify="left" if not heading else "right")
    before, after = record.baseline, record.final
    seeds = f" (mean of {len(record.seeds)} seeds)" if len(record.seeds) > 1 else ""
    table.add_row(
        f"test error{seeds}", _percent(before), _percent(after), f"{100 * (before.error - after.error):+.2f} points"
    )
    for point in record.points:
        if point.get("stage") == CONTROL:
            table.add_row(f"test error, {point['label']}", f"{100 * point['error']:.2f} %", "", "")
    for name, unit in (("parameters", ""), ("flops", " an image"), ("bytes", "")):
        was, now = getattr(before.measurement, name), getattr(after.measurement, name)
        table.add_row(name + unit, f"{was:,}", f"{now:,}", f"{was / max(now, 1):.1f}x fewer")
    for ratio in record.comparison.rows if record.comparison else ():
        threads = "1 thread" if ratio.threads == 1 else f"{ratio.threads} threads"
        table.add_row(
            f"time, batch {ratio.batch_size}, {threads}",
            f"{1e3 * ratio.before_s:.2f} ms",
            f"{1e3 * ratio.after_s:.2f} ms",
            f"{ratio.ratio:.2f} +- {ratio.ratio_spread:.2f}x faster",
        )
    console.print(table)
    for branch in (record.shrink or {}).get("removed_branches", []):
        console.print(f"removed: {branch}", highlight=False)
    for note in (record.shrink or {}).get("notes", []):
        console.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"page: {run_dir / 'report.html'}", highlight=False, soft_wrap=True)


def write_ledger(record: RunRecord, results: Sequence[Shaped], directory: Path) -> Path:
    """Write a run's row of the ledger.

    Raises:
        LedgerError: where the code differs from the commit.
    """
    control = control_errors(results)
    numbers = {
        "control_error": mean(control) if control else None,
        "control_error_spread": _spread(control),
        "control_errors": control,
        "baseline_error": record.baseline.error,
        "baseline_error_spread": record.baseline.error_spread,
        "error": record.final.error,
        "error_spread": record.final.error_spread,
        "errors": [1 - result.small_test.accuracy for result in results],
        "baseline_errors": [1 - result.baseline_test.accuracy for result in results],
        "validation_errors": [1 - result.validation.accuracy for result in results],
        "before": record.baseline.measurement.to_dict(),
        "after": record.final.measurement.to_dict(),
        "comparison": None if record.comparison is None else record.comparison.to_dict(),
        "kept": kept_counts(record),
        "layers": [result.report.to_dict()["layers"] for result in results],
        "removed_branches": [list(result.report.removed_branches) for result in results],
        "max_relative_error": max(result.report.max_relative_error for result in results),
        "published": record.paper,
    }
    return write_row(
        record.recipe, record.row, record.config, numbers,
        seeds=record.seeds, wall_s=record.wall_s, command=record.command, directory=directory,
    )  # fmt: skip


def sibling_points(run_dir: Path, recipe: str, network: str) -> list[dict[str, Any]]:
    """Points of the finished runs beside a run, of the same recipe and network: together they show a front.

    Args:
        run_dir: of this run; folders beside it are looked at.
        recipe: its name.
        network: first part of the rows' names, as in "lenet".
    """
    points = []
    for path in sorted(run_dir.resolve().parent.glob(f"*/{RECORD_FILE}")):
        if path.parent == run_dir.resolve():
            continue
        try:
            other = RunRecord.load(path)
        except DataError:  # a damaged neighbour is its own run's trouble
            continue
        if other.recipe == recipe and other.row.split("-")[0] == network:
            cost = other.final.measurement
            point = {"label": other.row, "error": other.final.error, "flops": cost.flops, "parameters": cost.parameters}
            points.append(point | {"stage": "other row"})
    return points


def refuse_finished(run_dir: Path, resume: bool) -> None:
    """Raise where a run folder already holds a finished run that the caller did not ask to resume.

    Raises:
        CheckpointError: says so; nothing was changed.
    """
    if (run_dir / RECORD_FILE).exists() and not resume:
        raise CheckpointError(
            f"{run_dir} already holds a finished run: name another --run-dir, or --resume to see it again; "
            "nothing was changed"
        )


def _lowered(model: nn.Module) -> dict[str, Tensor]:
    layers = {n: m for n, m in model.named_modules() if isinstance(m, (*CONVOLUTIONS, nn.Linear))}
    return {name: module.get_parameter("weight").detach().flatten(1).contiguous() for name, module in layers.items()}


def _percent(outcome: Outcome) -> str:
    spread = "" if outcome.error_spread is None else f" +- {100 * outcome.error_spread:.2f}"
    return f"{100 * outcome.error:.2f}{spread} %"


def _spread(values: Sequence[float]) -> float | None:
    return stdev(values) if len(values) > 1 else None
