"""The page of a mapped network: all of it is there, nothing is loaded, hostile names are text."""

import dataclasses
import re

import pytest
import torch
from torch import nn

from html_page import Page
from spokeshave.report.crossbar_page import (
    CrossbarRun,
    VariationPoint,
    draw_crossbars,
    render_crossbar_page,
    write_crossbar_page,
)
from spokeshave.targets.crossbar.memristor import Memristor
from spokeshave.targets.crossbar.weights_to_tiles import Crossbar

HOSTILE = '<script>alert("x")</script>&'


def run(name: str = "Small", data: bool = True) -> CrossbarRun:
    torch.manual_seed(0)
    net = nn.Sequential()
    net.add_module("conv", nn.Conv2d(4, 6, 3, groups=2))
    net.add_module("norm", nn.BatchNorm2d(6))
    net.add_module(name if name != "Small" else "fc", nn.Linear(40, 5))
    with torch.no_grad():
        net[2].weight[:, :7] = 0
    mapped = Crossbar(size=(16, 16), device=Memristor.one_level(variation=0.1)).map(net)
    if not data:
        return CrossbarRun(name, mapped, {}, "spokeshave map-crossbar")
    points = (VariationPoint(0.0, (0.02,)), VariationPoint(0.25, (0.05, 0.07, 0.12)))
    return CrossbarRun(name, mapped, {"seed": 3}, name, name, 0.015, 1234, points)


def test_points_are_means_with_their_spread():
    point = VariationPoint(0.25, (0.05, 0.07, 0.12))
    assert point.mean_error == pytest.approx(0.08) and point.error_spread == pytest.approx(0.0360555, rel=1e-5)
    assert VariationPoint(0.0, (0.5,)).error_spread == 0


def test_everything_is_on_the_page(tmp_path):
    done = run()
    write_crossbar_page(done, tmp_path / "page.html")
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    text = page.text.replace("\N{NO-BREAK SPACE}", " ")
    cost, report = done.mapped.cost(), done.mapped.report
    wanted = ["Small on crossbars", "two states", f"{report.crossbars}", f"{cost.wires}", "8.00 %", "± 3.61", "12.00 %"]
    wanted += ["1.50 %", "1,234", "norm", "it is no convolution", "Test error against variation", "2 of"]
    wanted += [layer.name for layer in report.layers]
    assert [words for words in wanted if words not in text] == []
    assert [a.get("id") for tag, a in page.tags if tag == "h2"] == ["price", "variation", "tiles", "made"]
    assert cost.wires < cost.wires_full and "deleted" in text


def test_without_data_nothing_is_said_about_accuracy():
    page = Page(render_crossbar_page(run(data=False)))
    assert [a.get("id") for tag, a in page.tags if tag == "h2"] == ["price", "tiles", "made"]
    assert "test error" not in page.text.lower()


def test_nothing_is_loaded_and_everything_has_a_name():
    text = render_crossbar_page(run())
    page = Page(text)
    assert not re.search(r"https?:|url\(|@import", text)
    assert not [tag for tag, _ in page.tags if tag in ("script", "iframe", "object", "embed", "form")]
    assert all(a.get("aria-label") for tag, a in page.tags if tag == "svg" or a.get("role") == "region")
    assert all(a.get("scope") for tag, a in page.tags if tag == "th")


def test_hostile_names_are_text():
    page = Page(render_crossbar_page(run(HOSTILE)))
    assert "script" not in {tag for tag, _ in page.tags} and page.text.count(HOSTILE) >= 4


def test_a_mapped_network_draws_itself(tmp_path):
    mapped = run(data=False).mapped
    draw_crossbars(mapped, tmp_path / "drawn.html", name="my network")
    text = (tmp_path / "drawn.html").read_text(encoding="utf-8")
    assert "my network on crossbars" in text and f"{mapped.cost().wires:,}" in Page(text).text.replace(
        "\N{NO-BREAK SPACE}", " "
    )


def test_an_unsorted_sweep_is_put_in_order_and_its_worst_point_quoted():
    done = run()
    turned = dataclasses.replace(done, points=done.points[::-1])
    assert Page(render_crossbar_page(turned)).text == Page(render_crossbar_page(done)).text


def test_one_layer_is_singular():
    page = Page(render_crossbar_page(CrossbarRun("One", Crossbar().map(nn.Linear(3, 2)), {}, "spokeshave")))
    assert "1 layer is held by 2 crossbars" in page.text.replace("\N{NO-BREAK SPACE}", " ")


def test_wires_of_the_pictures_are_those_of_the_price_also_where_cells_are_stuck():
    torch.manual_seed(0)
    net = nn.Linear(30, 20)
    with torch.no_grad():
        net.weight[:, :9] = 0
    mapped = Crossbar(size=(8, 8), device=Memristor.one_level(stuck_off=0.95)).map(net)
    assert (mapped.layers[""].weight == 0).all(1).any()  # an output that would need no wire
    page = Page(render_crossbar_page(CrossbarRun("Stuck", mapped, {}, "spokeshave")))
    cost = mapped.cost()
    assert f"the model: {cost.wires} of {cost.wires_full} wires left" in page.text.replace("\N{NO-BREAK SPACE}", " ")
