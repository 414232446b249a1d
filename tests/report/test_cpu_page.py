"""The page of a benchmark: all of it is there, nothing is loaded, hostile names are text."""

import dataclasses
import re

import pytest

from cpu_benchmark_cases import needs_generated_code, small_benchmark
from html_page import Page
from spokeshave.report.cpu_page import render_cpu_page, write_cpu_page
from spokeshave.report.wording import percent, seconds, times

pytestmark = needs_generated_code
HOSTILE = '<script>alert("x")</script>&'


def test_everything_is_on_the_page():
    done = small_benchmark()
    page = Page(render_cpu_page(done))
    wanted = ["Shortcut on this CPU", seconds(done.whole.dense.median_s), done.command, done.vectors]
    for layer in done.layers:
        wanted += [layer.layer, layer.plan.path.value, layer.plan.why, times(layer.speedup)]
        wanted += [times(layer.plan.predicted_speedup), percent(layer.plan.x, 1).replace(" ", "\N{NO-BREAK SPACE}")]
        for path, timing in layer.measured.items():
            wanted += [seconds(timing.median_s), f"predicted {seconds(layer.plan.predicted_s[path])}"]
    wanted += [seconds(step.time.median_s) for step in done.steps] + [str(done.machine["cpu"]), done.versions["torch"]]
    text = page.text.replace("\N{NO-BREAK SPACE}", " ")
    assert [words for words in wanted if words.replace("\N{NO-BREAK SPACE}", " ") not in text] == []
    headings = [attributes.get("id") for tag, attributes in page.tags if tag == "h2"]
    assert headings == ["layers", "roofline", "densities", "steps", "made"]


def test_nothing_is_loaded_and_everything_has_a_name():
    text = render_cpu_page(small_benchmark())
    page = Page(text)
    assert not re.search(r"https?:|url\(|@import", text)
    assert not [tag for tag, _ in page.tags if tag in ("script", "iframe", "object", "embed", "form", "img")]
    assert all(a.get("aria-label") for tag, a in page.tags if tag == "svg" or a.get("role") == "region")
    assert all(a.get("scope") for tag, a in page.tags if tag == "th")


def test_hostile_names_are_text():
    done = small_benchmark()
    layers = tuple(dataclasses.replace(layer, layer=HOSTILE) for layer in done.layers)
    curves = tuple(dataclasses.replace(curve, layer=HOSTILE) for curve in done.curves)
    hostile = dataclasses.replace(done, model=HOSTILE, layers=layers, curves=curves, command=HOSTILE)
    page = Page(render_cpu_page(hostile))
    assert "script" not in {tag for tag, _ in page.tags} and page.text.count(HOSTILE) >= 7


@pytest.mark.parametrize("why", ["", "1: run in torch"])
def test_a_benchmark_without_curves_or_file_has_a_page(tmp_path, why):
    done = small_benchmark()
    weights = dataclasses.replace(done.footprint, sparse_file=0 if why else 99, why_no_file=why)
    write_cpu_page(dataclasses.replace(done, curves=(), footprint=weights), tmp_path / "page.html")
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert "densities" not in [attributes.get("id") for tag, attributes in page.tags if tag == "h2"]
    assert (f"No file: {why}" in page.text) is bool(why)
