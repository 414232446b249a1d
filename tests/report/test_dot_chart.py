"""The dot chart: places by hand, linear or logarithmic, hostile names are text."""

import re

import pytest

from spokeshave.report.dot_chart import Dots, dot_chart


def centres(svg: str) -> list[float]:
    found = re.findall(r'class="mark (?:before|after|sweep)" transform="translate\(([\d.]+) \d+\)"><title>', svg)
    return [float(x) for x in found]


def test_close_values_stand_on_a_linear_scale():
    svg = dot_chart("t", [Dots("a", [0.01]), Dots("b", [0.02]), Dots("c", [0.03], main=True)], "test error")
    first, second, third = centres(svg)
    assert second - first == pytest.approx(third - second, abs=0.11) and first < second
    assert "logarithmic" not in svg and "a: 1.00 %; b: 2.00 %; c: 3.00 %" in svg


def test_far_values_stand_on_a_logarithmic_one():
    svg = dot_chart("t", [Dots("a", [0.01]), Dots("b", [0.1]), Dots("c", [0.9, 1.1])], "test error")
    first, second, third = centres(svg)
    assert second - first == pytest.approx(third - second, abs=0.11) and "test error (logarithmic)" in svg
    assert svg.count('r="2.5"') == 2


@pytest.mark.parametrize("values", [[0.0], [0.5], [0.0, 0.0], [1.0]])
def test_equal_values_and_zeros_have_a_place(values):
    svg = dot_chart("t", [Dots("a", values), Dots("b", values)], "test error")
    assert all(0 <= x <= 460 for x in centres(svg)) and "nan" not in svg


def test_hostile_names_are_text():
    assert "<script>" not in dot_chart("<script>", [Dots("<script>", [0.1])], "<script>")
