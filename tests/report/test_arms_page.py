"""The page of arms: all of it is there, nothing is loaded, hostile names are text."""

import re
from dataclasses import replace

from arms_cases import FLOAT, TUNED, made_up
from html_page import Page
from spokeshave.report.arms_page import arm_cells, arm_headings, render_arms_page, write_arms_page
from spokeshave.report.arms_record import Chart, Curve
from spokeshave.report.heat_table import HeatTable
from spokeshave.report.image_gallery import Gallery, GalleryRow, Picture

HOSTILE = '<script>alert("x")</script>&'


def words_of(text: str) -> str:
    return Page(text).text.replace("\N{NO-BREAK SPACE}", " ").replace("\N{NARROW NO-BREAK SPACE}", " ")


def test_everything_is_on_the_page(tmp_path):
    write_arms_page(made_up(), tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    shown = words_of(text)
    wanted = ["On mnist, test error is 1.10 ± 0.10 % for the float network and 1.30 ± 0.10 % for quantized and trained"]
    wanted += ["+0.20 ± 0.10 points", "62.00 ± 2.00 %", "+0.19 points", "50.0 %", "1,200", "conv1", "0.0625", "25.0 %"]
    wanted += [
        "weights of conv1",
        "by strength",
        "attacked digits",
        "seven",
        "taken for another",
        "abc1234",
        "some CPU",
        "training.steps",
        "of an abstract",
        made_up().command or "",
    ]
    assert [words for words in wanted if words not in shown] == []
    assert "never measured" not in shown
    headings = [attributes.get("id") for tag, attributes in Page(text).tags if tag == "h2"]
    assert headings == ["arms", "layers", "figures", "tables", "images", "training", "made"]


def test_losses_below_zero_are_drawn() -> None:
    record = made_up()
    below = {name: [row | {"train_loss": -0.5} for row in rows] for name, rows in record.history.items()}
    assert "loss (logarithmic)" in render_arms_page(record)
    assert "loss (logarithmic)" not in render_arms_page(made_up(history=below))


def test_nothing_is_loaded_and_everything_has_a_name():
    text = render_arms_page(made_up())
    page = Page(text)
    assert not re.search(r"https?:|url\(|@import", text)
    assert not [tag for tag, _ in page.tags if tag in ("script", "iframe", "object", "embed", "form", "img")]
    assert all(a.get("aria-label") for tag, a in page.tags if tag == "svg" or a.get("role") == "region")
    assert all(a.get("scope") for tag, a in page.tags if tag == "th")


def test_hostile_names_are_text():
    arms = [replace(FLOAT, name=HOSTILE, label=HOSTILE), replace(TUNED, label=HOSTILE)]
    charts = [Chart(HOSTILE, HOSTILE, HOSTILE, [Curve(HOSTILE, [0.0, 1.0], [0.5, 1.0])], percent=True, log=True)]
    layers = {HOSTILE: [{"layer": HOSTILE, HOSTILE: HOSTILE}]}
    tables = [HeatTable(HOSTILE, HOSTILE, [HOSTILE], HOSTILE, [HOSTILE], [[0.5]], framed=HOSTILE)]
    images = [Gallery(HOSTILE, [GalleryRow(HOSTILE, [Picture(f'"{HOSTILE}', HOSTILE, True)])], HOSTILE)]
    record = made_up(
        title=HOSTILE, arms=arms, charts=charts, layers=layers, command=HOSTILE, tables=tables, galleries=images
    )
    page = Page(render_arms_page(record))
    assert "script" not in {tag for tag, _ in page.tags} and page.text.count(HOSTILE) >= 14


def test_points_stand_alone_and_lines_of_a_group_have_one_colour():
    curves = [
        Curve("a", [0.0, 1.0], [0.5, 1.0], group=0),
        Curve("b", [0.0, 0.5, 1.0], [0.4, 0.7, 0.9], points=True, group=0),
        Curve("c", [0.0, 1.0], [0.5, 0.1], dashed=True, group=1),
    ]
    page = Page(render_arms_page(made_up(charts=[Chart("t", "x", "y", curves)], history={})))
    drawn = [(tag, a.get("class"), a.get("style")) for tag, a in page.tags if tag in ("polyline", "circle")]
    dot = ("circle", "line-dot", "--tone:0.00")
    lines = [("polyline", "line", "--tone:0.00"), dot, dot, dot, ("polyline", "line dashed", "--tone:1.00")]
    assert [one for one in drawn if (one[1] or "").startswith("line")] == lines
    keys = [a.get("class") for tag, a in page.tags if tag == "span" and (a.get("class") or "").startswith("key")]
    assert keys[:3] == ["key line", "key points", "key line dashed"]


def test_a_run_of_one_arm_without_anything_else_has_a_page():
    record = made_up(
        arms=[FLOAT], headline="float", quantities={}, layers={}, charts=[], tables=[], galleries=[], history={},
        paper=None, data=None, commit=None, command=None,
    )  # fmt: skip
    page = Page(render_arms_page(record))
    assert [a.get("id") for tag, a in page.tags if tag == "h2"] == ["arms", "made"]
    assert "spokeshave run one_level --row lenet" in page.text


def test_columns_follow_what_was_measured_and_published():
    record = made_up()
    assert arm_headings(record) == [
        "arm", "validation error", "test error", "above float", "published: gap", "zeros", "cells",
    ]  # fmt: skip
    assert arm_cells(record, FLOAT)[3:] == ["", "", "-", "-"]
    published = made_up(paper={"accuracy": {"tuned": 99.0}})
    assert "published: error" in arm_headings(published) and arm_cells(published, TUNED)[4] == "1.00 %"
