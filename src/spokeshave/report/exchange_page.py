"""The page of a run that compares exact and exchanged gradients: curves of both, and the codes layer by layer."""

from pathlib import Path
from statistics import mean
from typing import Any

from spokeshave.files import atomic_write
from spokeshave.report import wording
from spokeshave.report.charts import Axis, Line, line_chart
from spokeshave.report.exchange_record import ExchangeRecord, with_spread
from spokeshave.report.figures import Figure, LegendEntry
from spokeshave.report.page import flat_config, page_template

_MOST_NAMED = 8
STAGES = (("float", 0.0, True), ("ternary", 1.0, False))
"""Names of histories, the tone of their curves, and whether these are dashed."""


def write_exchange_page(record: ExchangeRecord, path: Path) -> None:
    """Write a run's page.

    Args:
        record: of the run.
        path: the HTML file to write.

    Raises:
        FileError: where it cannot be written.
    """
    atomic_write(path, render_exchange_page(record))


def render_exchange_page(record: ExchangeRecord) -> str:
    """Give a run's page as HTML text.

    Args:
        record: of the run.

    Returns:
        The whole document.
    """
    return page_template("exchange_page.html.j2").render(
        run=record,
        title=record.title,
        trail=(record.recipe, record.row),
        verdict=_verdict(record),
        tiles=_tiles(record),
        rows=list(zip(record.seeds, record.float_errors, record.errors, record.gaps, strict=True)),
        gap=with_spread(record.gaps, points=True),
        figures=curves(record),
        codes=code_figure(record),
        command=record.command or f"spokeshave run {record.recipe} --row {record.row}",
        machine=record.machine,
        versions=record.versions,
        config=flat_config(record.config),
        words=wording,
    )


def _verdict(record: ExchangeRecord) -> str:
    start = f"On {record.data}, test" if record.data else "Test"
    return (
        f"{start} error is {with_spread(record.float_errors)} with exact gradients and {with_spread(record.errors)} "
        f"with ternary ones at equal budget ({with_spread(record.gaps, points=True)}), which send "
        f"{wording.times(record.factor)} fewer bytes."
    )


def _tiles(record: ExchangeRecord) -> list[dict[str, Any]]:
    runs = f"mean of {len(record.seeds)} seeds" if len(record.seeds) > 1 else "one seed"
    published = (record.paper or {}).get("gap")
    tiles: list[dict[str, Any]] = [
        {"label": "Test error", "value": with_spread(record.errors), "detail": runs, "share": None},
        {
            "label": "Above exact gradients",
            "value": with_spread(record.gaps, points=True),
            "detail": f"exact: {with_spread(record.float_errors)}"
            + ("" if published is None else f"; published gap {published:+.2f}".replace("-", "−")),
            "share": None,
        },
        {
            "label": "Bytes sent",
            "value": wording.times_fewer(record.float_bytes, record.sent_bytes),
            "detail": f"{wording.count(record.float_bytes, 'B')} → {wording.count(record.sent_bytes, 'B')} a step "
            "and worker",
            "share": 1 / record.factor,
        },
    ]
    if record.zero_codes:
        shares = record.zero_codes.values()
        tiles.append(
            {
                "label": "Codes that are zero",
                "value": wording.percent(mean(shares), 1),
                "detail": f"mean of {len(shares)} parameters, {wording.percent(min(shares), 1)} to "
                f"{wording.percent(max(shares), 1)}",
                "share": mean(shares),
            }
        )
    return tiles


def curves(record: ExchangeRecord) -> list[Figure]:
    """Draw validation accuracy and training loss of the first seed, exact against ternary.

    Args:
        record: of the run.
    """
    figures = []
    for key, title, axis in (
        ("validation_accuracy", "Validation accuracy", Axis("accuracy", percent=True)),
        ("train_loss", "Training loss", Axis("loss (logarithmic)", log=True)),
    ):
        lines = [
            Line(stage, [row["step"] for row in rows], [row.get(key) for row in rows], tone, dashed)
            for stage, tone, dashed in STAGES
            if (rows := record.history.get(stage))
        ]
        if lines:
            legend = tuple(LegendEntry(line.label, line.tone, line.dashed) for line in lines)
            figures.append(Figure(title, line_chart(title, lines, Axis("step"), axis), legend))
    return figures


def code_figure(record: ExchangeRecord) -> Figure | None:
    """Draw the share of zero codes of each parameter over the first seed's training; None where none was noted.

    Args:
        record: of the run.
    """
    rows = [row for row in record.history.get("ternary", []) if row.get("exchange", {}).get("zero_codes")]
    names = list(rows[0]["exchange"]["zero_codes"]) if rows else []
    lines = [
        Line(
            name,
            [row["step"] for row in rows],
            [row["exchange"]["zero_codes"].get(name) for row in rows],
            index / max(1, len(names) - 1),
        )
        for index, name in enumerate(names)
    ]
    if not lines:
        return None
    named = lines if len(lines) <= _MOST_NAMED else [lines[0], lines[len(lines) // 2], lines[-1]]
    title = "Codes that are zero"
    chart = line_chart(title, lines, Axis("step"), Axis("share of codes", percent=True, include=(0.0, 1.0)))
    return Figure(title, chart, tuple(LegendEntry(line.label, line.tone) for line in named))
