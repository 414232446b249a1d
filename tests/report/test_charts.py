"""Charts: where points land, which numbers the axes bear, what is left out."""

import itertools
import math
import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spokeshave.report.charts import Axis, Band, Line, Mark, line_chart, pareto_front, scatter_chart, ticks

SVG = {"": "http://www.w3.org/2000/svg"}


def parse(markup: str) -> ET.Element:
    return ET.fromstring(str(markup))


def points_of(polyline: ET.Element) -> list[tuple[float, float]]:
    pairs = [pair.split(",") for pair in polyline.attrib["points"].split()]
    return [(float(x), float(y)) for x, y in pairs]


def test_a_straight_line_is_drawn_straight() -> None:
    svg = parse(line_chart("t", [Line("a", [0, 1, 2, 3], [0, 2, 4, 6])], Axis("x"), Axis("y")))
    (line,) = list(svg.iter("polyline"))
    (x0, y0), *rest = points_of(line)
    slopes = [(y - y0) / (x - x0) for x, y in rest]
    assert slopes == pytest.approx([slopes[0]] * 3, abs=0.01)
    assert slopes[0] < 0, "larger values stand higher"


def test_log_axes_give_equal_steps_to_equal_ratios() -> None:
    svg = parse(line_chart("t", [Line("a", [0, 1, 2], [1, 10, 100])], Axis("x"), Axis("y", log=True)))
    (line,) = list(svg.iter("polyline"))
    (_, low), (_, middle), (_, high) = points_of(line)
    assert low - middle == pytest.approx(middle - high, abs=0.11)


def test_numbers_that_cannot_be_drawn_leave_gaps() -> None:
    values = [1.0, 2.0, math.nan, 3.0, None, 4.0, 5.0, math.inf]
    svg = parse(line_chart("t", [Line("a", list(range(8)), values)], Axis("x"), Axis("y")))
    assert [len(points_of(line)) for line in svg.iter("polyline")] == [2, 2]
    assert len(list(svg.iter("circle"))) == 1
    assert "nan" not in ET.tostring(svg, "unicode")


@pytest.mark.parametrize("values", [[], [None], [3.0], [0.0, 0.0]])
def test_empty_and_constant_curves_are_drawn(values: list) -> None:
    svg = parse(line_chart("t", [Line("a", list(range(len(values))), values)], Axis("x"), Axis("y")))
    assert svg.attrib["role"] == "img"
    assert not re.search(r"nan|inf", ET.tostring(svg, "unicode"))


def test_names_are_escaped() -> None:
    svg = parse(line_chart('<b>"t"', [Line("<i>&", [0, 1], [0, 1])], Axis("<x>"), Axis("<y>"), [Band("<stage>", 0, 1)]))
    texts = [item.text for item in svg.iter("text")]
    assert {"<x>", "<y>", "<stage>"} <= set(texts)
    assert svg.attrib["aria-label"].startswith('<b>"t". <i>&: from 0 to 1')


def test_every_mark_is_drawn_with_its_kind_and_numbers() -> None:
    marks = [Mark("before", 1.0, 0.01, "before", True), Mark("s", 0.1, 0.02), Mark("p", 0.05, 0.012, "paper")]
    svg = parse(
        scatter_chart(
            "t", marks, Axis("x", percent=True, log=True), Axis("y", percent=True), [(0.1, 0.02), (1.0, 0.01)]
        )
    )
    assert [item.attrib["class"] for item in svg.iter("g")] == ["mark before", "mark sweep", "mark paper"]
    assert "s: 10 % of the FLOPs, error 2 %" in [item.text for item in svg.iter("title")]
    (front,) = list(svg.iter("polyline"))
    assert len(points_of(front)) == 3


def test_pareto_front_against_brute_force() -> None:
    points = [(3.0, 1.0), (1.0, 4.0), (2.0, 2.0), (2.0, 3.0), (4.0, 1.0), (1.0, 4.0)]
    best = {p for p in points if not any(q[0] <= p[0] and q[1] <= p[1] and q != p for q in points)}
    assert pareto_front(points) == sorted(best)
    assert pareto_front([]) == []


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_lie_inside_and_are_evenly_spaced(low: float, span: float) -> None:
    values = ticks(low, low + span)
    assert 2 <= len(values) <= 12
    assert values[0] >= low - 1e-6 * span and values[-1] <= low + span * (1 + 1e-6)
    steps = [b - a for a, b in itertools.pairwise(values)]
    assert max(steps) - min(steps) <= 1e-6 * max(1.0, abs(low), span)


@given(st.floats(1e-6, 1e3), st.floats(1.5, 1e6))
def test_log_ticks_are_one_two_five(low: float, ratio: float) -> None:
    values = ticks(low, low * ratio, log=True)
    assert all(low * 0.99 <= value <= low * ratio * 1.01 for value in values)
    assert all(f"{value:e}"[0] in "125" for value in values)
