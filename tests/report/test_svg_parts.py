"""Parts of SVG: hostile words are text, numbers take the colour that is read best on their square."""

import xml.etree.ElementTree as ET

import pytest

from spokeshave.report.svg_parts import svg_drawing, svg_number, svg_text

HOSTILE = '<b>&"'


def test_words_are_text_and_what_is_spoken_is_an_attribute() -> None:
    drawing = svg_drawing("chart", HOSTILE, [svg_text("tick", 1.26, 2, HOSTILE, "end")], 20, 10, 30)
    svg = ET.fromstring(str(drawing))
    (text,) = svg.iter("text")
    assert (text.text, text.get("x"), text.get("text-anchor")) == (HOSTILE, "1.3", "end")
    assert (svg.get("aria-label"), svg.get("role"), svg.get("viewBox")) == (HOSTILE, "img", "0 0 20 10")
    assert svg.get("style") == "width:30px;max-width:100%"
    assert "style" not in ET.fromstring(str(svg_drawing("chart", "", [], 20, 10))).attrib


@pytest.mark.parametrize(
    ("depth", "kind"), [(0, "value"), (0.7, "value mid"), (-0.7, "value mid"), (0.95, "value deep")]
)
def test_numbers_change_their_colour_with_the_depth_of_their_square(depth: float, kind: str) -> None:
    (text,) = ET.fromstring(f"<svg>{svg_number(3, 4, '5', depth)}</svg>")
    assert (text.get("class"), text.text, text.get("text-anchor")) == (kind, "5", "middle")
