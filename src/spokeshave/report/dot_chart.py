"""Dot chart: one row for each thing that is compared, a dot for each seed and a larger one for their mean.

Unlike bars it may stand on a logarithmic scale, which errors of 1 % and of 60 % in one figure need.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from markupsafe import Markup, escape

from spokeshave.report.charts import ticks

_WIDTH, _LEFT, _RIGHT, _TOP, _ROW, _FOOT = 460, 8, 16, 10, 34, 40
_WIDE = 12.0
"""The scale is logarithmic where the largest value is so many times the smallest."""


@dataclass(frozen=True)
class Dots:
    """One row: its name, its values (shares, one a seed), and whether it stands out."""

    label: str
    values: Sequence[float]
    main: bool = False


def dot_chart(title: str, rows: Sequence[Dots], axis: str) -> Markup:
    """Draw the rows below each other on one scale of percent; a line marks the mean of the first row.

    Args:
        title: heading, also read out by screen readers.
        rows: at least one, each with at least one value.
        axis: what the scale shows.

    Returns:
        The SVG element.
    """
    values = [value for row in rows for value in row.values]
    positive = [value for value in values if value > 0]
    log = bool(positive) and len(positive) == len(values) and max(values) > _WIDE * min(values)
    low, high = _range(values, log)
    height = _TOP + _ROW * len(rows) + _FOOT
    base = height - _FOOT

    def place(value: float) -> float:
        share = math.log(value / low) / math.log(high / low) if log else (value - low) / (high - low)
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    parts = []
    for value in ticks(low, high, log):
        parts.append(f'<line class="grid" x1="{place(value):.1f}" x2="{place(value):.1f}" y1="{_TOP}" y2="{base}"/>')
        parts.append(_text("tick", place(value), base + 16, f"{100 * value:.4g}%", "middle"))
    first = place(mean(rows[0].values))
    parts.append(f'<line class="axis" x1="{first:.1f}" x2="{first:.1f}" y1="{_TOP}" y2="{base}"/>')
    spoken = []
    for index, row in enumerate(rows):
        y = _TOP + _ROW * index + 25
        centre = mean(row.values)
        said = f"{row.label}: {100 * centre:.2f} %"
        spoken.append(said)
        right = place(centre) < _WIDTH / 2
        parts.append(
            _text("mark-label", place(centre) + (9 if right else -9), y - 9, said, "start" if right else "end")
        )
        if len(row.values) > 1:
            ends = place(min(row.values)), place(max(row.values))
            parts.append(f'<line class="axis" x1="{ends[0]:.1f}" x2="{ends[1]:.1f}" y1="{y}" y2="{y}"/>')
            for value in row.values:
                parts.append(
                    f'<g class="mark sweep" transform="translate({place(value):.1f} {y})"><circle r="2.5"/></g>'
                )
        kind = "before" if index == 0 else "after" if row.main else "sweep"
        shape = '<rect x="-5" y="-5" width="10" height="10"/>' if index == 0 else '<circle r="5"/>'
        spot = f'<g class="mark {kind}" transform="translate({place(centre):.1f} {y})">'
        parts.append(f"{spot}<title>{escape(said)}</title>{shape}</g>")
    scale = f"{axis} (logarithmic)" if log else axis
    parts.append(_text("axis-label", _WIDTH - _RIGHT, height - 4, scale, "end"))
    label = escape(f"{title}. {'; '.join(spoken)}")
    frame = f'<svg class="chart wide" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{label}">'
    return Markup(frame + "".join(parts) + "</svg>")


def _range(values: Sequence[float], log: bool) -> tuple[float, float]:
    low, high = min(values), max(values)
    if log:
        return low / 1.3, high * 1.3
    margin = (high - low) * 0.12 or 0.1 * high or 0.01
    return max(0.0, low - margin), high + margin


def _text(kind: str, x: float, y: float, words: str, anchor: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'
