"""The figures of a run: accuracy against cost, and training curves with group sparsity over time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from spokeshave.report.charts import Axis, Band, Line, Mark, line_chart, pareto_front, scatter_chart
from spokeshave.report.run_record import RunRecord

_SPARSITY_TITLES = {
    "filters": "Filters that are zero",
    "shapes": "Columns (filter shapes) that are zero",
    "channels": "Input channels that are zero",
    "kernels": "2-D kernels that are zero",
    "elements": "Single weights that are zero",
}
_MOST_LEGEND_ENTRIES = 8


@dataclass(frozen=True)
class LegendEntry:
    """What a line of some colour stands for, or, where `mark` names a kind of `Mark`, what such a mark stands for."""

    label: str
    tone: float = 0.0
    dashed: bool = False
    mark: str = ""
    dotted: bool = False


@dataclass(frozen=True)
class Figure:
    """A chart with its heading and legend."""

    title: str
    chart: Markup
    legend: tuple[LegendEntry, ...] = ()


def front_figure(record: RunRecord) -> Figure:
    """Draw test error against FLOPs: before, after, the sweep's points with their front, and the published row.

    Args:
        record: the run.

    Returns:
        The figure.
    """
    dense = record.baseline.measurement.flops or 1
    marks = [Mark(_point_label(point), *pair) for point, pair in _points(record)]
    published = _published_mark(record.paper)
    marks += [published] if published else []
    before = (1.0, record.baseline.error)
    after = (max(record.final.measurement.flops, 1) / dense, record.final.error)
    marks.append(Mark("before", *before, kind="before", show_label=True))
    marks.append(Mark("after", *after, kind="after", show_label=True))
    sweep = [pair for _, pair in _points(record)]
    front = pareto_front([*sweep, before, after]) if sweep else []
    x = Axis("FLOPs left (share of the network before, logarithmic)", percent=True, log=True)
    return Figure(
        "Test error against FLOPs", scatter_chart("Error against FLOPs", marks, x, Axis("error", percent=True), front)
    )


def training_figures(record: RunRecord) -> list[Figure]:
    """Draw loss, validation accuracy and the share of zero groups of every layer, over all stages.

    Args:
        record: the run.

    Returns:
        The figures that have something to show; none where there is no history.
    """
    rows: list[Mapping[str, Any]] = []
    epochs: list[float] = []
    bands: list[Band] = []
    for stage, stage_rows in record.history.items():
        start = bands[-1].end if bands else 0.0
        bands.append(Band(stage, start, start + len(stage_rows)))
        rows += [*stage_rows, {}]  # the empty row breaks the curves between stages
        epochs += [start + index + 1 for index in range(len(stage_rows) + 1)]
    if not any(rows):
        return []
    x = Axis("epoch")
    figures = []
    losses = [
        Line(label, epochs, ys, tone, dashed)
        for key, label, tone, dashed in (
            ("train_loss", "training", 0.0, False),
            ("validation_loss", "validation", 1.0, True),
        )
        if _known(ys := [_number(row.get(key)) for row in rows])
    ]
    if losses:
        chart = line_chart("Loss", losses, x, Axis("loss (logarithmic)", log=True), bands)
        figures.append(Figure("Loss", chart, tuple(LegendEntry(line.label, line.tone, line.dashed) for line in losses)))
    accuracy = [_number(row.get("validation_accuracy")) for row in rows]
    if _known(accuracy):
        chart = line_chart(
            "Validation accuracy", [Line("validation", epochs, accuracy)], x, Axis("accuracy", percent=True), bands
        )
        figures.append(Figure("Validation accuracy", chart))
    return figures + _sparsity_figures(rows, epochs, bands)


def _sparsity_figures(
    rows: Sequence[Mapping[str, Any]], epochs: Sequence[float], bands: Sequence[Band]
) -> list[Figure]:
    layers = list(dict.fromkeys(layer for row in rows for layer in row.get("sparsity") or {}))
    figures = []
    for kind, title in _SPARSITY_TITLES.items():
        lines = []
        for index, layer in enumerate(layers):
            ys = [_number(((row.get("sparsity") or {}).get(layer) or {}).get(kind)) for row in rows]
            if _known(ys):
                lines.append(Line(layer, epochs, ys, index / max(len(layers) - 1, 1)))
        if any(y for line in lines for y in line.ys):
            axis = Axis("share of zeros", percent=True, include=(0.0, 1.0))
            figures.append(Figure(title, line_chart(title, lines, Axis("epoch"), axis, bands), _legend(lines)))
    return figures


def _legend(lines: Sequence[Line]) -> tuple[LegendEntry, ...]:
    """Name every line, or of many the first, the middle and the last."""
    chosen = lines
    if len(lines) > _MOST_LEGEND_ENTRIES:
        chosen = [lines[0], lines[len(lines) // 2], lines[-1]]
    return tuple(LegendEntry(line.label, line.tone) for line in chosen)


def _points(record: RunRecord) -> list[tuple[Mapping[str, Any], tuple[float, float]]]:
    """Give the sweep's points that have an error and FLOPs, with their share of FLOPs and their error."""
    dense = record.baseline.measurement.flops or 1
    found = []
    for point in record.points:
        error, flops = _number(point.get("error")), _number(point.get("flops"))
        if error is not None and flops:
            found.append((point, (flops / dense, error)))
    return found


def _point_label(point: Mapping[str, Any]) -> str:
    label = str(point.get("label") or point.get("stage") or "sweep")
    strength = _number(point.get("strength"))
    return label if strength is None else f"{label} (strength {strength:.3g})"


def _published_mark(paper: Mapping[str, Any] | None) -> Mark | None:
    error, flops = (_number((paper or {}).get(key)) for key in ("error", "flops"))
    if error is None or not flops:
        return None
    return Mark("published", flops, error, kind="paper", show_label=True)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _known(values: Sequence[float | None]) -> bool:
    return any(value is not None for value in values)
