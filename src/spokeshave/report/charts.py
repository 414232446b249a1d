"""Line and scatter charts as inline SVG that takes its colours from the page, so that it reads in dark mode and print.

Sizes are chosen for a column of about 340 px, so that labels keep their size on a phone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup, escape

from spokeshave.report.label_places import place_labels

_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 38, 38
_NARROW = 400
"""Px; wider drawings are shrunk more on a phone, and have larger letters there."""
_FEW_LABELS = 3
"""So many labels stand beside their points; more of them have to make room for one another."""


@dataclass(frozen=True)
class Line:
    """A named curve; `tone` 0..1 places its colour between the page's two accents."""

    label: str
    xs: Sequence[float]
    ys: Sequence[float | None]
    tone: float = 0.0
    dashed: bool = False
    dotted: bool = False


@dataclass(frozen=True)
class Mark:
    """A named point of a scatter chart; `kind` is its CSS class: before, after, sweep, paper.

    `hint` is what a pointer over it shows; by default its cost and error.
    """

    label: str
    x: float
    y: float
    kind: str = "sweep"
    show_label: bool = False
    hint: str = ""


@dataclass(frozen=True)
class Band:
    """A stretch of the x axis with a name, such as a stage of the training."""

    label: str
    start: float
    end: float


@dataclass(frozen=True)
class Axis:
    """One axis: what it shows, how its numbers are written, and the range it must cover."""

    label: str
    percent: bool = False
    log: bool = False
    include: Sequence[float] = field(default_factory=tuple)


@dataclass(frozen=True)
class _Scale:
    axis: Axis
    low: float
    high: float
    start_px: float
    end_px: float

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if self.axis.log:
            value, low, high = math.log10(value), math.log10(low), math.log10(high)
        return self.start_px + (value - low) / (high - low) * (self.end_px - self.start_px)


def line_chart(
    title: str, lines: Sequence[Line], x: Axis, y: Axis, bands: Sequence[Band] = (), width: int = 340, height: int = 230
) -> Markup:
    """Draw curves; values that are None, NaN or infinite leave a gap.

    Args:
        title: heading, also read out by screen readers.
        lines: the curves.
        x: horizontal axis.
        y: vertical axis.
        bands: stretches of the x axis with names.
        width: of the drawing, px.
        height: of the drawing, px.

    Returns:
        The SVG element.
    """
    pairs = [(a, b) for line in lines for a, b in zip(line.xs, line.ys, strict=True) if _drawable(b, y)]
    x_scale = _scale(
        x,
        [a for a, _ in pairs] + [edge for band in bands for edge in (band.start, band.end)],
        _LEFT,
        width - _RIGHT,
        tight=True,
    )
    y_scale = _scale(y, [b for _, b in pairs if b is not None], height - _BOTTOM, _TOP)
    parts = [_bands(bands, x_scale, height), _axes(x_scale, y_scale, width, height)]
    parts += _curves(lines, x_scale, y_scale)
    return _svg(title, _spoken(lines, y), parts, width, height)


def scatter_chart(
    title: str,
    marks: Sequence[Mark],
    x: Axis,
    y: Axis,
    front: Sequence[tuple[float, float]] = (),
    width: int = 460,
    height: int = 320,
    lines: Sequence[Line] = (),
) -> Markup:
    """Draw points, and a stepped line through the best of them.

    Args:
        title: heading, also read out by screen readers.
        marks: the points.
        x: horizontal axis.
        y: vertical axis.
        front: corners of the stepped line, ordered by x.
        width: of the drawing, px.
        height: of the drawing, px.
        lines: curves to draw under the points.

    Returns:
        The SVG element.
    """
    drawn = [(a, b) for line in lines for a, b in zip(line.xs, line.ys, strict=True) if b is not None]
    x_scale = _scale(x, [mark.x for mark in marks] + [a for a, _ in drawn], _LEFT, width - _RIGHT, tight=bool(lines))
    y_scale = _scale(y, [mark.y for mark in marks] + [b for _, b in drawn], height - _BOTTOM, _TOP)
    parts = [_axes(x_scale, y_scale, width, height), *_curves(lines, x_scale, y_scale)]
    if len(front) > 1:
        corners = [front[0]]
        for a, b in front[1:]:
            corners += [(a, corners[-1][1]), (a, b)]
        points = " ".join(f"{x_scale(a):.1f},{y_scale(b):.1f}" for a, b in corners)
        parts.append(
            f'<polyline class="front-line" points="{points}"><title>Best error at each cost</title></polyline>'
        )
    crowded = sum(mark.show_label for mark in marks) > _FEW_LABELS
    for mark in marks:
        a, b = x_scale(mark.x), y_scale(mark.y)
        said = mark.hint or f"{mark.label}: {_number(mark.x, x)} of the FLOPs, error {_number(mark.y, y)}"
        parts.append(
            f'<g class="mark {mark.kind}" transform="translate({a:.1f} {b:.1f})">'
            f"<title>{escape(said)}</title>{_shape(mark.kind)}</g>"
        )
        if mark.show_label and not crowded:
            side, anchor = (-10, "end") if a > width * 0.6 else (10, "start")
            above = 18 if mark.kind == "after" else -8
            parts.append(_text("mark-label", a + side, b + above, mark.label, anchor))
    if crowded:
        points = [(x_scale(mark.x), y_scale(mark.y), mark.label if mark.show_label else "") for mark in marks]
        for place in place_labels(points, (_LEFT, _TOP, width, height - _BOTTOM)):
            parts.append(_text("mark-label", place.x, place.y, place.text, place.anchor))
    spoken = "; ".join(f"{mark.label}: {_number(mark.x, x)}, {_number(mark.y, y)}" for mark in marks[:12])
    spoken = spoken or _spoken(lines, y)
    return _svg(title, spoken, parts, width, height, "chart wide" if width > _NARROW else "chart")


def _curves(lines: Sequence[Line], x: _Scale, y: _Scale) -> list[str]:
    """Draw curves with the gaps that they have; a single point becomes a dot."""
    parts = []
    for line in lines:
        dash = " dashed" if line.dashed else " dotted" if line.dotted else ""
        for segment in _segments(line, y.axis):
            points = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in segment)
            hint = f"<title>{escape(line.label)}</title>"
            tone = f'style="--tone:{line.tone:.2f}"'
            if len(segment) == 1:
                a, b = segment[0]
                parts.append(f'<circle class="line-dot" {tone} cx="{x(a):.1f}" cy="{y(b):.1f}" r="3">{hint}</circle>')
            else:
                parts.append(f'<polyline class="line{dash}" {tone} points="{points}">{hint}</polyline>')
    return parts


def pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Keep the points that no other one beats in both coordinates (smaller is better), ordered by the first.

    Args:
        points: pairs of cost and error.

    Returns:
        The front; errors fall strictly as costs rise.

    Example:
        >>> pareto_front([(1.0, 5.0), (2.0, 6.0), (3.0, 1.0), (1.0, 4.0)])
        [(1.0, 4.0), (3.0, 1.0)]
    """
    front: list[tuple[float, float]] = []
    for cost, error in sorted(points):
        if not front or error < front[-1][1]:
            front.append((cost, error))
    return front


def ticks(low: float, high: float, log: bool = False, most: int = 5) -> list[float]:
    """Choose round numbers inside a range: steps of 1, 2 or 5 times a power of ten.

    Args:
        low: start of the range.
        high: end of the range, above `low`.
        log: True takes 1, 2, 5 (or only 1) times powers of ten.
        most: about how many to give.

    Returns:
        The numbers, rising.

    Example:
        >>> ticks(0.0, 1.0)
        [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
        >>> ticks(0.02, 1.0, log=True)
        [0.02, 0.05, 0.1, 0.2, 0.5, 1.0]
    """
    if log:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        steps = (1, 2, 5) if math.log10(high / low) < 2.3 else (1,)
        values = [float(f"{step}e{power}") for power in powers for step in steps]
        return [value for value in values if low * 0.999 <= value <= high * 1.001]
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    digits = max(0, -math.floor(math.log10(step)))
    return [round(index * step, digits) for index in range(first, last + 1)]


def _drawable(value: float | None, axis: Axis) -> bool:
    return value is not None and math.isfinite(value) and (not axis.log or value > 0)


def _segments(line: Line, y: Axis) -> list[list[tuple[float, float]]]:
    segments: list[list[tuple[float, float]]] = [[]]
    for a, b in zip(line.xs, line.ys, strict=True):
        if b is not None and _drawable(b, y):
            segments[-1].append((a, b))
        elif segments[-1]:
            segments.append([])
    return [segment for segment in segments if segment]


def _scale(axis: Axis, values: Sequence[float], start_px: float, end_px: float, tight: bool = False) -> _Scale:
    values = [*values, *axis.include] or [0.0, 1.0]
    low, high = min(values), max(values)
    if axis.log:
        margin = max((high / low) ** 0.08, 1.15)
        return _Scale(axis, low / margin, high * margin, start_px, end_px)
    margin = 0.0 if tight and high > low else (high - low) * 0.12 or abs(high) * 0.1 or 1.0
    floor = low if low in axis.include else low - margin
    ceiling = high if high in axis.include and high > low else high + margin
    return _Scale(axis, max(floor, 0.0) if low >= 0 else floor, ceiling, start_px, end_px)


def _number(value: float, axis: Axis) -> str:
    if axis.percent:
        share = value * 100
        return f"{share:.3g} %" if abs(share) < 100 else f"{share:.0f} %"
    return f"{value:,.4g}"


def _axes(x: _Scale, y: _Scale, width: int, height: int) -> str:
    base, right = height - _BOTTOM, width - _RIGHT
    parts = []
    for value in ticks(y.low, y.high, y.axis.log):
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>')
        parts.append(_text("tick", _LEFT - 6, y(value) + 4, _tick(value, y.axis), "end"))
    for value in ticks(x.low, x.high, x.axis.log):
        parts.append(f'<line class="axis" x1="{x(value):.1f}" x2="{x(value):.1f}" y1="{base}" y2="{base + 4}"/>')
        parts.append(_text("tick", x(value), base + 16, _tick(value, x.axis), "middle"))
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{base}" y2="{base}"/>')
    parts.append(_text("axis-label", right, height - 3, x.axis.label, "end"))
    parts.append(_text("axis-label", 2, 12, y.axis.label))
    return "".join(parts)


def _text(kind: str, x: float, y: float, words: str, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _tick(value: float, axis: Axis) -> str:
    if axis.percent:
        return f"{value * 100:.4g}%"
    for size, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= max(size, 1e5):
            return f"{value / size:,.5g} {prefix}"
    return f"{value:,.5g}"


def _bands(bands: Sequence[Band], x: _Scale, height: int) -> str:
    parts = []
    deep = height - _BOTTOM - _TOP
    for index, band in enumerate(bands):
        start, wide = x(band.start), max(x(band.end) - x(band.start), 0.0)
        kind = f"band band-{index % 2}"
        parts.append(f'<rect class="{kind}" x="{start:.1f}" y="{_TOP}" width="{wide:.1f}" height="{deep}"/>')
        if wide > 5.5 * len(band.label):
            parts.append(_text("band-label", start + wide / 2, _TOP - 5, band.label, "middle"))
    return "".join(parts)


def _shape(kind: str) -> str:
    if kind == "before":
        return '<rect x="-5" y="-5" width="10" height="10"/>'
    if kind == "paper":
        return '<path d="M0 -7 L7 0 L0 7 L-7 0 Z"/>'
    return f'<circle r="{6.5 if kind == "after" else 4}"/>'


def _spoken(lines: Sequence[Line], y: Axis) -> str:
    """Say in words where each curve starts and ends."""
    said = []
    for line in lines[:12]:
        values = [value for value in line.ys if value is not None and _drawable(value, y)]
        if values:
            said.append(f"{line.label}: from {_number(values[0], y)} to {_number(values[-1], y)}")
    return "; ".join(said)


def _svg(title: str, spoken: str, parts: Sequence[str], width: int, height: int, kind: str = "chart") -> Markup:
    label = escape(f"{title}. {spoken}" if spoken else title)
    frame = f'<svg class="{kind}" viewBox="0 0 {width} {height}" role="img" aria-label="{label}">'
    return Markup(frame + "".join(parts) + "</svg>")
