"""The page: everything of the record is on it, nothing is loaded, hostile names are text; and it opens in Chromium."""

import dataclasses
import re
from pathlib import Path

import pytest

from html_page import Page
from spokeshave.report.page import render_page, write_page
from spokeshave.report.run_record import RunRecord
from spokeshave.report.wording import count, percent, times

HOSTILE = '<script>alert("x")</script>&\'"'


def test_everything_of_the_record_is_on_the_page(record: RunRecord) -> None:
    page = Page(render_page(record))
    old, new = record.baseline.measurement, record.final.measurement
    assert record.comparison is not None and record.commit is not None
    wanted = [record.title, percent(0.0092), percent(0.0098), count(old.flops), count(new.flops), count(new.bytes, "B")]
    wanted += [times(old.flops / new.flops), times(old.parameters / new.parameters)]
    wanted += [times(row.ratio) for row in record.comparison.rows]
    wanted += [layer.name for layer in old.layers if layer.flops] + ["3-12", "4-12"]
    wanted += ["gathers 88 of 500 patch rows", "stage3.block2", "folded into conv2's bias", "3.2 × 10⁻⁷"]
    wanted += [record.commit[:12], "12 min 14 s", "Some CPU at 3 GHz", "2.13.0", "strengths.filters", "0, 1, 2"]
    wanted += ["16 rows and 4 columns zero", "LeNet 3, Table 1 (NIPS 2016), beside ours", "7.44×"]
    wanted += ["spokeshave run ssl --row lenet-3", "group lasso", "fine-tuning", "Filters that are zero"]
    assert [words for words in wanted if words not in page.text] == []
    exact = {attributes["value"] for tag, attributes in page.tags if tag == "data"}
    assert {str(layer.flops) for layer in [*old.layers, *new.layers] if layer.flops} <= exact


def test_nothing_is_loaded_from_elsewhere(record: RunRecord) -> None:
    text = render_page(record)
    page = Page(text)
    assert not re.search(r"https?:|//\w|url\(|@import", re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", text))
    assert not [tag for tag, _ in page.tags if tag in ("script", "iframe", "object", "embed", "video", "form")]
    links = [value for _, attributes in page.tags for name, value in attributes.items() if name in ("src", "href")]
    assert links and all(value and value.startswith("data:") for value in links)
    policy = [a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy and policy[0] is not None and policy[0].startswith("default-src 'none'")


def test_hostile_names_are_text(record: RunRecord) -> None:
    def renamed(outcome):
        layers = tuple(
            dataclasses.replace(layer, name=HOSTILE if layer.name == "conv1" else layer.name)
            for layer in outcome.measurement.layers
        )
        return dataclasses.replace(outcome, measurement=dataclasses.replace(outcome.measurement, layers=layers))

    row = {"train_loss": 1.0, "sparsity": {HOSTILE: {"filters": 0.5}}}
    hostile = dataclasses.replace(
        record,
        title=HOSTILE,
        row=HOSTILE,
        baseline=renamed(record.baseline),
        final=renamed(record.final),
        config={HOSTILE: HOSTILE},
        history={HOSTILE: [row, row]},
        points=[{"label": HOSTILE, "error": 0.1, "flops": 5}],
        paper={"label": HOSTILE, HOSTILE: HOSTILE},
        shrink={"layers": [], "removed_branches": [HOSTILE], "notes": [HOSTILE], "max_relative_error": 0.0},
        weights={HOSTILE: next(iter(record.weights.values()))},
        command=HOSTILE,
        data=HOSTILE,
        machine={HOSTILE: HOSTILE},
        versions={HOSTILE: HOSTILE},
    )
    page = Page(render_page(hostile))
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.text.count(HOSTILE) >= 12
    assert any(a.get("alt", "").startswith(f"Weights of {HOSTILE}") for tag, a in page.tags if tag == "img")  # pyright: ignore[reportOptionalMemberAccess]


def test_a_bare_record_has_a_page_too(record: RunRecord) -> None:
    bare = dataclasses.replace(
        record, comparison=None, shrink=None, history={}, points=[], paper=None, command=None, commit=None, weights={}
    )
    page = Page(render_page(bare))
    headings = [a.get("id") for tag, a in page.tags if tag == "h2"]
    assert headings == ["cost", "layers", "made"]
    assert "measured" not in page.text.split("Layer by layer")[0].lower()


def test_figures_tables_and_scrolling_boxes_have_names(record: RunRecord) -> None:
    page = Page(render_page(record))
    assert all(a.get("aria-label") for tag, a in page.tags if tag == "svg" or a.get("role") == "region")
    assert all(a.get("alt") for tag, a in page.tags if tag == "img")
    assert all(a.get("scope") for tag, a in page.tags if tag == "th")
    assert [a.get("lang") for tag, a in page.tags if tag == "html"] == ["en"]
    assert [tag for tag, _ in page.tags].count("h1") == 1


def test_write_page_takes_a_file_or_a_folder(record: RunRecord, tmp_path: Path) -> None:
    assert write_page(record, tmp_path) == tmp_path / "report.html"
    path = write_page(record, tmp_path / "new" / "page.html")
    assert path.read_text(encoding="utf-8") == (tmp_path / "report.html").read_text(encoding="utf-8")
    assert path.stat().st_size < 1_000_000


@pytest.fixture
def open_page(open_file, record: RunRecord, tmp_path: Path):
    """Opens the page at a width and colour scheme."""
    path = write_page(record, tmp_path / "report.html")
    return lambda width, scheme="light": open_file(path, width, scheme)


def luminance(colour: str) -> float:
    red, green, blue = (int(part) / 255 for part in re.findall(r"\d+", colour)[:3])
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.browser
@pytest.mark.parametrize("width", [360, 768, 1280])
def test_page_fits_its_window(open_page, width: int) -> None:
    page = open_page(width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    inside = "[...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll, .command, svg'))"
    sticking_out = (
        f"{inside}.filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 90))"
    )
    assert page.evaluate(sticking_out) == []
    page.close()


@pytest.mark.browser
def test_figures_are_seen(open_page, record: RunRecord) -> None:
    page = open_page(1280)
    sizes = page.evaluate("[...document.querySelectorAll('svg.chart')].map(e => [e.clientWidth, e.clientHeight])")
    assert len(sizes) == 7 and min(min(size) for size in sizes) > 100
    shown = "[e.complete, e.naturalWidth, e.clientWidth, e.clientHeight]"
    images = page.evaluate(f"[...document.querySelectorAll('.pictures img')].map(e => {shown})")
    assert len(images) == len(record.weights)
    assert all(complete and min(natural, width, height) > 5 for complete, natural, width, height in images)
    strokes = page.evaluate("[...document.querySelectorAll('polyline.line')].map(e => getComputedStyle(e).stroke)")
    assert strokes and "none" not in strokes
    bars = page.evaluate(
        "[...document.querySelectorAll('.kept')].map(e => parseFloat(getComputedStyle(e, '::after').width))"
    )
    assert bars and all(bar > 0 for bar in bars)
    page.close()


@pytest.mark.browser
@pytest.mark.parametrize(("scheme", "is_dark"), [("light", False), ("dark", True)])
def test_colours_follow_the_system(open_page, scheme: str, is_dark: bool) -> None:
    page = open_page(1000, scheme)
    ground, ink = page.evaluate("(s => [s.backgroundColor, s.color])(getComputedStyle(document.body))")
    assert (luminance(ground) < 0.2) is is_dark and (luminance(ink) > 0.7) is is_dark
    muted = page.evaluate("getComputedStyle(document.querySelector('.note')).color")
    lighter, darker = sorted([luminance(ground) ** 2.2, luminance(muted) ** 2.2], reverse=True)
    assert (lighter + 0.05) / (darker + 0.05) > 4.5, "small grey text keeps the contrast of WCAG AA"
    tick = page.evaluate("getComputedStyle(document.querySelector('.chart text')).fill")
    assert tick == muted
    page.close()


@pytest.mark.browser
def test_wide_tables_scroll_in_their_own_box_on_a_phone(open_page) -> None:
    page = open_page(360)
    inner, outer = page.evaluate(
        "(e => [e.scrollWidth, e.clientWidth])(document.querySelector('.layers').parentElement)"
    )
    assert inner > outer
    assert outer <= 360
    page.close()
