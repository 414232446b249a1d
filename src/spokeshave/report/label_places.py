"""Places for labels beside the points of a chart, where they cover neither points nor one another.

Greedy: each label, in the order given, takes the first free place around its point; one that finds none is left out,
and its point still says its name under a pointer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

_CHARACTER, _LINE, _POINT, _GAP = 6.6, 13.0, 6.0, 9.0
"""Px: width of a character and height of a line at 11.5 px, half a point's side, distance of a label from its point."""

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class LabelPlace:
    """A text and where its baseline starts, ends or has its middle, as `anchor` says: start, end, middle."""

    text: str
    x: float
    y: float
    anchor: str


def place_labels(points: Sequence[tuple[float, float, str]], frame: Box) -> list[LabelPlace]:
    """Find places.

    Args:
        points: x, y (px, y downwards) and label of each; '' where it has none.
        frame: left, top, right, bottom that labels stay inside.

    Returns:
        the labels that found a place.

    Example:
        >>> [place.anchor for place in place_labels([(50, 50, "a"), (62, 50, "b")], (0, 0, 100, 100))]
        ['end', 'start']
    """
    taken: list[Box] = [(x - _POINT, y - _POINT, x + _POINT, y + _POINT) for x, y, _ in points]
    places = []
    for x, y, text in points:
        wide = _CHARACTER * len(text)
        for place, left in (
            (LabelPlace(text, x + _GAP, y + 4, "start"), x + _GAP),
            (LabelPlace(text, x - _GAP, y + 4, "end"), x - _GAP - wide),
            (LabelPlace(text, x, y - _GAP, "middle"), x - wide / 2),
            (LabelPlace(text, x, y + _GAP + 10, "middle"), x - wide / 2),
        ):
            box = (left, place.y - _LINE + 3, left + wide, place.y + 2)
            if text and _inside(box, frame) and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                places.append(place)
                break
    return places


def _inside(box: Box, frame: Box) -> bool:
    return box[0] >= frame[0] and box[1] >= frame[1] and box[2] <= frame[2] and box[3] <= frame[3]


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
