"""The page of a network on cores: all of it is there, nothing is loaded, hostile names are text; Chromium opens it."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from html_page import Page
from spokeshave.errors import InvalidArgument
from spokeshave.report.connection_probabilities import probabilities_by_layer
from spokeshave.report.deployed_accuracy import DeployedAccuracy
from spokeshave.report.truenorth_page import TrueNorthRun, draw_truenorth, render_truenorth_page, write_truenorth_page
from spokeshave.targets.truenorth.deployed_network import TrueNorth
from spokeshave.targets.truenorth.tea_benches import mnist_bench_3
from tea_cases import one_core_tea, small_tea

HOSTILE = '<script>alert("x")</script>&'
SECTIONS = ["accuracy", "probabilities", "cores", "price", "made"]


def run(name: str = "Small", before: bool = True, copies: int = 3, **more: Any) -> TrueNorthRun:
    grid = torch.tensor([[0.80, 0.85, 0.90, 0.91], [0.88, 0.92, 0.94, 0.945], [0.95, 0.95, 0.96, 0.955]])
    accuracy = DeployedAccuracy(0.9712, torch.stack([grid, grid + 0.01])[:, :copies].double())
    other = DeployedAccuracy(0.9634, (accuracy.draws - 0.05))
    given: dict[str, Any] = {"data": name, "images": 1234, "accuracy": accuracy, "files": {"numbers": "map.json"}}
    if before:
        given |= {"before_accuracy": other, "before_layers": probabilities_by_layer(small_tea(seed=6))}
    chip, images = TrueNorth(copies, 4, chip_side=8), torch.rand(9, 36)
    return TrueNorthRun.of(name, small_tea(), chip, images, {"seed": 3}, name, **(given | more))


def words_of(done: TrueNorthRun) -> str:
    return Page(render_truenorth_page(done)).text.replace("\N{NO-BREAK SPACE}", " ").replace("\u202f", " ")


def test_everything_is_on_the_page(tmp_path: Path) -> None:
    done = run()
    write_truenorth_page(done, tmp_path / "page.html")
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    text = page.text.replace("\N{NO-BREAK SPACE}", " ")
    wanted = [
        "Small on neurosynaptic cores",
        "One copy takes 6 cores of the chip's 64, 3 copies 18.",
        "28.12 % of the chip",
    ]
    wanted += [
        "one copy is right on 80.50 % of 1,234 test images",
        "the float network on 97.12 %",
        "per frame on 96.50 %",
    ]
    wanted += [
        "97.12 %",
        "96.34 %",
        "80.50 % ± 0.71",
        "75.50 % ± 0.71",
        "4 spikes",
        "mean of 2 draws",
        "5.00 ms",
        "250",
    ]
    wanted += [
        f"{done.layers[0].synapses}",
        f"{done.layers[-1].variance:.4f}",
        f"{done.before_layers[1].variance:.4f} without",
    ]
    wanted += [f"{100 * done.layers[0].at_poles:.1f} %", "all layers", "One copy, 6 cores: who sends to whom"]
    wanted += ["3 copies, 18 cores: load of the mesh", "map.json", "seed", "Gained by biasing, points"]
    assert [words for words in wanted if words not in text] == []
    assert [a.get("id") for tag, a in page.tags if tag == "h2"] == SECTIONS
    assert done.traffic.images == 9 and "Means of 9 images for one copy, of 9 for all." in text


def test_what_is_enough_is_said() -> None:
    """Best without biasing 91.5 %, so that 91.4 % are wanted: three copies have 90.5 %, with biasing 95.5 %."""
    text = words_of(run())
    assert (
        "within 0.1 points of the latter, at one spike per frame: 3 copies with biasing, no number of copies without"
        in text
    )
    assert "Neither more copies alone nor more spikes alone come within 0.1 points of that best." in text
    flat = DeployedAccuracy(0.9, torch.full((1, 3, 4), 0.5, dtype=torch.float64))
    once = words_of(run(before=False, accuracy=flat))
    assert (
        "Within 0.1 points of that best: 1 copy with one spike per frame, or one copy with 1 spike per frame." in once
    )
    assert "biasing" not in once and "±" not in once


def test_without_data_nothing_is_said_about_accuracy() -> None:
    done = run(before=False, accuracy=None, data=None, images=0)
    page = Page(render_truenorth_page(done))
    assert [a.get("id") for tag, a in page.tags if tag == "h2"] == SECTIONS[1:]
    assert "accuracy" not in page.text.lower() and "an image of noise" in page.text


def test_one_layer_has_no_sum_and_one_copy_one_price() -> None:
    done = TrueNorthRun.of("One", one_core_tea(), TrueNorth(), None, {}, "spokeshave")
    text = words_of(done)
    assert "all layers" not in text and "copies" not in text.partition("How it was made")[0].partition("Copies")[0]
    assert "One copy takes 1 core of the chip's 4,096." in text and done.traffic.images == 64


def test_nothing_is_loaded_and_everything_has_a_name() -> None:
    text = render_truenorth_page(run())
    page = Page(text)
    assert not re.search(r"https?:|url\(|@import", text)
    assert not [tag for tag, _ in page.tags if tag in ("script", "iframe", "object", "embed", "form")]
    assert all(a.get("aria-label") for tag, a in page.tags if tag == "svg" or a.get("role") == "region")
    assert all(a.get("scope") for tag, a in page.tags if tag == "th")


def test_hostile_names_are_text() -> None:
    done = dataclasses.replace(run(HOSTILE), files={HOSTILE: HOSTILE}, config={HOSTILE: HOSTILE})
    page = Page(render_truenorth_page(done))
    assert "script" not in {tag for tag, _ in page.tags} and page.text.count(HOSTILE) >= 8


def test_a_network_draws_itself(tmp_path: Path) -> None:
    draw_truenorth(small_tea(), tmp_path / "drawn.html", TrueNorth(2, 3), torch.rand(5, 36), name="my network")
    text = Page((tmp_path / "drawn.html").read_text(encoding="utf-8")).text
    assert "my network on neurosynaptic cores" in text and "2 copies, 12 cores: load of the mesh" in text
    assert "an image of the images given" in text and "Means of 5 images" in text
    draw_truenorth(small_tea(), tmp_path / "plain.html")
    assert "One copy, 6 cores: load of the mesh" in Page((tmp_path / "plain.html").read_text(encoding="utf-8")).text
    with pytest.raises(InvalidArgument, match="36 pixels"):
        draw_truenorth(small_tea(), tmp_path / "wrong.html", images=torch.rand(5, 35))
    assert not (tmp_path / "wrong.html").exists()


def test_the_more_cores_the_fewer_images_are_counted() -> None:
    done = TrueNorthRun.of("Many", one_core_tea(), TrueNorth(2000, 1), None, {}, "spokeshave")
    assert (done.one_traffic.images, done.traffic.images) == (64, 8)


def test_numbers_of_the_record_are_those_of_the_run() -> None:
    done = run()
    record = done.to_dict()
    assert record["cost"]["cores"] == 18 and record["images"] == 1234 and record["images_of_traffic"] == 9
    assert record["spikes_per_image"] == pytest.approx(float(done.traffic.spikes.sum()))
    assert record["accuracy"]["float"] == 0.9712 and record["before_accuracy"]["best"] == pytest.approx(0.915)
    assert [layer["name"] for layer in record["layers"]] == ["layer 1", "layer 2", "all layers"]
    assert run(before=False, accuracy=None).to_dict()["accuracy"] is None


@pytest.fixture(scope="module")
def whole_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With sixteen copies and ticks, and a network of 62 cores, so that nothing is small."""
    grid = 0.9 + 0.05 * torch.rand(1, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    given = {"accuracy": DeployedAccuracy(0.95, grid), "before_accuracy": DeployedAccuracy(0.95, grid.flip(1))}
    done = run(**given)
    deep = TrueNorthRun.of("deep", mnist_bench_3(), TrueNorth(2, 2), None, {}, "spokeshave")
    done = dataclasses.replace(
        done, one=deep.one, one_traffic=deep.one_traffic, deployed=deep.deployed, traffic=deep.traffic
    )
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_truenorth_page(done, path)
    assert path.stat().st_size < 1_000_000
    return path


@pytest.mark.browser
@pytest.mark.parametrize("width", [360, 768, 1280])
def test_page_fits_its_window(open_file, whole_page: Path, width: int) -> None:
    page = open_file(whole_page, width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    inside = "[...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll, .command'))"
    sticking_out = (
        f"{inside}.filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 90))"
    )
    assert page.evaluate(sticking_out) == []
    sizes = page.evaluate("[...document.querySelectorAll('svg.chart')].map(e => [e.clientWidth, e.clientHeight])")
    assert len(sizes) == 6 and min(min(size) for size in sizes) > 100
    page.close()


def luminance(colour: str) -> float:
    parts = [float(part) for part in re.findall(r"[-\d.]+", colour)]
    if colour.startswith("oklab"):  # https://bottosson.github.io/posts/oklab
        lightness, a, b = parts[:3]
        ell, m, s = (
            (lightness + x * a + y * b) ** 3
            for x, y in ((0.3963377774, 0.2158037573), (-0.1055613458, -0.0638541728), (-0.0894841775, -1.2914855480))
        )
        red = 4.0767416621 * ell - 3.3077115913 * m + 0.2309699292 * s
        green = -1.2684380046 * ell + 2.6097574011 * m - 0.3413193965 * s
        blue = -0.0041960863 * ell - 0.7034186147 * m + 1.7076147010 * s
    else:
        red, green, blue = (
            part / 255 / 12.92 if part <= 10 else ((part / 255 + 0.055) / 1.055) ** 2.4 for part in parts[:3]
        )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_numbers_can_be_read_on_every_depth(open_file, whole_page: Path, scheme: str) -> None:
    page = open_file(whole_page, 1280, scheme)
    pairs = page.evaluate(
        "[...document.querySelectorAll('.heat rect.cell')].filter(e => e.nextElementSibling?.matches('.value'))"
        ".map(e => [getComputedStyle(e).fill, getComputedStyle(e.nextElementSibling).fill])"
    )
    assert len(pairs) == 3 * 256
    for fill, ink in pairs:
        darker, lighter = sorted((luminance(fill), luminance(ink)))
        assert (lighter + 0.05) / (darker + 0.05) > 3.5, (fill, ink)
    fills = {fill for fill, _ in pairs}
    assert len(fills) > 30
    page.close()
