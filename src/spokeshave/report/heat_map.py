"""Heat map: a table of numbers as squares, the deeper the larger, or in two colours around zero; inline SVG.

Numbers stand in the squares where there is room. Colours are the page's own, so that it reads in dark mode and print.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from jaxtyping import Bool, Float
from markupsafe import escape
from torch import Tensor

from spokeshave.errors import InvalidArgument
from spokeshave.report.figures import Figure
from spokeshave.report.svg_parts import svg_drawing, svg_number, svg_text

_LEFT, _TOP, _FOOT, _WIDTH, _NARROWEST = 34, 36, 34, 480, 270
_LETTER = 6.3
"""Px of a letter of a row's or a column's name."""
_WIDEST, _TALLEST, _LOWEST, _ALL_ROWS = 56.0, 24.0, 6.0, 400
_ROOM = 25.0, 13.0
"""Px of a square that a number fits into."""
_STEPS = 25
"""Of the scale below the squares."""


@dataclass(frozen=True)
class Side:
    """What rows or columns are, and the number or name that each stands for."""

    label: str
    numbers: Sequence[int | str]


@dataclass(frozen=True)
class _Look:
    """How values are written, and the ends of the scale in words."""

    short: str
    long: str
    ends: tuple[str, str]
    both_ways: bool = False

    def words(self, value: float) -> str:
        """For a hint or a screen reader."""
        return _minus(self.long.format(100 * value))


def heat_map(
    title: str,
    values: Float[Tensor, "rows columns"],
    rows: Side,
    columns: Side,
    limits: tuple[float, float] | None = None,
    outlined: Bool[Tensor, "rows columns"] | None = None,
) -> Figure:
    """Draw shares as percent, the deeper the larger.

    Args:
        title: heading, also read out by screen readers.
        values: 0..1.
        rows: from top to bottom.
        columns: from left to right.
        limits: values of no and of full depth, so that two maps can be compared; by default the least and the greatest.
        outlined: squares to be framed; None for none.

    Raises:
        InvalidArgument: where there are other numbers of rows or columns than of values.
    """
    _require_shape(title, values, rows, columns)
    low, high = limits or (float(values.min()), float(values.max()))
    depths = ((values - low) / (high - low)).clamp(0, 1) if high > low else 0 * values + 0.5
    look = _Look("{:.1f}", "{:.2f} %", (f"{100 * low:.1f} %", f"{100 * high:.1f} %"))
    return _figure(title, values, depths, rows, columns, look, outlined)


def difference_map(title: str, values: Float[Tensor, "rows columns"], rows: Side, columns: Side) -> Figure:
    """Draw differences of shares as points of percent: gains in one colour, losses in the other.

    Args:
        title: heading, also read out by screen readers.
        values: -1..1.
        rows: from top to bottom.
        columns: from left to right.

    Raises:
        InvalidArgument: where there are other numbers of rows or columns than of values.
    """
    _require_shape(title, values, rows, columns)
    most = float(values.abs().max())
    depths = values / most if most > 0 else 0 * values
    ends = f"−{100 * most:.1f} points", f"+{100 * most:.1f} points"
    return _figure(title, values, depths, rows, columns, _Look("{:.1f}", "{:+.2f} points", ends, both_ways=True))


def round_steps(last: int, most: int = 16) -> list[int]:
    """Numbers from 1 to `last`: all of them, or of many some whose distances grow, the last among them.

    Example:
        >>> round_steps(4), round_steps(40)
        ([1, 2, 3, 4], [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 40])
    """
    if last <= most:
        return list(range(1, last + 1))
    steps = {factor << power for power in range(last.bit_length()) for factor in (1, 3)}
    return sorted({step for step in steps if step < last} | {last})


def _require_shape(title: str, values: Tensor, rows: Side, columns: Side) -> None:
    expected = len(rows.numbers), len(columns.numbers)
    if tuple(values.shape) != expected or not values.numel():
        raise InvalidArgument(
            f"{title}: expected at least one value, and {expected[0]} x {expected[1]} as the sides have numbers, "
            f"got {tuple(values.shape)}"
        )


def _figure(
    title: str,
    values: Tensor,
    depths: Tensor,
    rows: Side,
    columns: Side,
    look: _Look,
    outlined: Tensor | None = None,
) -> Figure:
    left = max(_LEFT, 10 + _LETTER * max(len(str(name)) for name in rows.numbers))
    wide = min((_WIDTH - left - 2) / len(columns.numbers), _WIDEST)
    high = max(_LOWEST, min(_TALLEST, wide, _ALL_ROWS / len(rows.numbers)))
    below, width = _TOP + high * len(rows.numbers), max(left + wide * len(columns.numbers) + 2, _NARROWEST)
    parts = [svg_text("axis-label", 2, 11, f"{rows.label} ↓  {columns.label} →")]
    parts += [
        svg_text("tick", left + wide * (place + 0.5), _TOP - 5, str(columns.numbers[place]), "middle")
        for place in _labelled(columns, wide, max(24, _LETTER * max(len(str(name)) for name in columns.numbers) + 4))
    ]
    parts += [
        svg_text("tick", left - 6, _TOP + high * (place + 0.5) + 4, str(rows.numbers[place]), "end")
        for place in _labelled(rows, high, 13)
    ]
    written = wide >= _ROOM[0] and high >= _ROOM[1]
    for row, column in product(range(len(rows.numbers)), range(len(columns.numbers))):
        value, depth = float(values[row, column]), float(depths[row, column])
        x, y = left + wide * column, _TOP + high * row
        parts.append(_cell(x, y, wide, high, depth, f"{_where(rows, columns, row, column)}: {look.words(value)}"))
        if written:
            number = _minus(look.short.format(100 * value))
            parts.append(svg_number(x + wide / 2, y + high / 2 + 3.5, number, depth))
    for row, column in [] if outlined is None else outlined.nonzero().tolist():
        frame = f'x="{left + wide * column + 1.5:.1f}" y="{_TOP + high * row + 1.5:.1f}"'
        parts.append(f'<rect class="frame" {frame} width="{wide - 3:.1f}" height="{high - 3:.1f}"/>')
    parts += _scale(below + 14, look)
    ends = product(sorted({0, len(rows.numbers) - 1}), sorted({0, len(columns.numbers) - 1}))
    said = [f"{_where(rows, columns, *place)}: {look.words(float(values[place]))}" for place in ends]
    said.append(f"from {look.words(float(values.min()))} to {look.words(float(values.max()))}")
    spoken = f"{title}. {'; '.join(said)}"
    return Figure(title, svg_drawing("chart wide heat", spoken, parts, width, below + _FOOT, 1.08 * width))


def _scale(y: float, look: _Look) -> list[str]:
    """The colours from one end to the other."""
    step, start = 6.0, _LEFT + 6.0 * len(look.ends[0]) + 6
    places = [place / (_STEPS - 1) for place in range(_STEPS)]
    depths = [2 * place - 1 for place in places] if look.both_ways else places
    cells = [_cell(start + step * place, y, step, 10, depth) for place, depth in enumerate(depths)]
    return [
        svg_text("tick", start - 6, y + 9, look.ends[0], "end"),
        *cells,
        svg_text("tick", start + step * _STEPS + 6, y + 9, look.ends[1]),
    ]


def _cell(x: float, y: float, wide: float, high: float, depth: float, said: str = "") -> str:
    hint = f"<title>{escape(said)}</title>" if said else ""
    kind, box = "cell less" if depth < 0 else "cell", f'x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{high:.1f}"'
    return f'<rect class="{kind}" style="--depth:{abs(depth):.2f}" {box}>{hint}</rect>'


def _labelled(side: Side, size_px: float, room_px: float) -> range:
    """Places whose numbers have room beside each other."""
    return range(0, len(side.numbers), max(1, -int(-room_px // size_px)))


def _where(rows: Side, columns: Side, row: int, column: int) -> str:
    return f"{rows.label} {rows.numbers[row]}, {columns.label} {columns.numbers[column]}"


def _minus(words: str) -> str:
    return words.replace("-", "−")
