"""Parts of inline SVG: a text, and the frame of a drawing that says in words what it shows."""

from collections.abc import Sequence

from markupsafe import Markup, escape

_DEEP_LIGHT, _DEEP_DARK = 0.9, 0.63
"""Depths from which the page's ground has more contrast to a square than its ink has, by colour scheme."""


def svg_text(kind: str, x: float, y: float, words: str, anchor: str = "start") -> str:
    """A text.

    Args:
        kind: its CSS classes.
        x: of its start, middle or end, as `anchor` says.
        y: of its baseline, downwards.
        words: as they are to be read; markup in them is text.
        anchor: start, middle or end.

    Example:
        >>> svg_text("tick", 1, 2, "a < b")
        '<text class="tick" x="1.0" y="2.0" text-anchor="start">a &lt; b</text>'
    """
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def svg_number(x: float, y: float, words: str, depth: float) -> str:
    """A number in the middle of a square, in the colour that it is read best in.

    Args:
        x: of its middle.
        y: of its baseline.
        words: the number.
        depth: share of colour that the square is filled with, 0..1; its sign does not matter.
    """
    depth = abs(depth)
    kind = "value deep" if depth > _DEEP_LIGHT else "value mid" if depth > _DEEP_DARK else "value"
    return svg_text(kind, x, y, words, "middle")


def svg_drawing(
    kind: str, spoken: str, parts: Sequence[str], width: float, height: float, most_px: float | None = None
) -> Markup:
    """The whole drawing.

    Args:
        kind: its CSS classes; `chart` gives it the page's letters and the width of its column.
        spoken: what screen readers say.
        parts: its content.
        width: units from left to right.
        height: units from top to bottom.
        most_px: width on the screen, unless the column is narrower; None fills the column.
    """
    limit = "" if most_px is None else f' style="width:{most_px:.0f}px;max-width:100%"'
    frame = f'<svg class="{escape(kind)}"{limit} viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
    return Markup(f'{frame}aria-label="{escape(spoken)}">{"".join(parts)}</svg>')
