"""The page of a network benchmark: all of it is there, nothing is loaded, hostile names are text."""

import dataclasses
import re

import pytest

from html_page import Page
from network_cases import made_up_benchmark, made_up_probe
from spokeshave.communication.link_probe import summary
from spokeshave.communication.network_benchmark import verdict
from spokeshave.communication.published_throughput import PaperCluster, PaperNetwork, published_speedup
from spokeshave.communication.wire_bytes import Exchange
from spokeshave.report.network_page import render_network_page, write_network_page
from spokeshave.report.wording import bound, count, seconds, times

HOSTILE = '<script>alert("x")</script>&'


def plain(page: Page) -> str:
    return page.text.replace("\N{NO-BREAK SPACE}", " ")


def test_everything_is_on_the_page():
    bench = made_up_benchmark(probe=made_up_probe())
    page = Page(render_network_page(bench))
    wanted = [
        "AlexNet over the network",
        verdict(bench).replace("x over", "× over"),
        bench.command,
        "Some CPU at 3 GHz",
    ]
    steps = bench.predictions()
    for exchange, step in steps.items():
        wanted += [exchange.value, seconds(step.step_s), count(step.bytes_sent, "B"), f"{step.images_per_s:,.1f}"]
        wanted += [times(steps[Exchange.BFLOAT16].step_s / step.step_s)]
        wanted += [bound(bench.break_even(exchange, Exchange.FLOAT32))] if exchange.ternary else []
    assert bench.probe is not None
    wanted += [summary(bench.probe), "110.0 measured", "34.0 measured"]
    for cluster in PaperCluster:
        wanted += [cluster.value, *(times(published_speedup(cluster, network, 64)) for network in PaperNetwork)]
    assert [words for words in wanted if words not in plain(page)] == []
    headings = [attributes.get("id") for tag, attributes in page.tags if tag == "h2"]
    assert headings == ["exchanges", "scaling", "links", "paper", "made"]


def test_nothing_is_loaded_and_everything_has_a_name():
    text = render_network_page(made_up_benchmark(probe=made_up_probe()))
    page = Page(text)
    assert not re.search(r"https?:|url\(|@import", text)
    assert not [tag for tag, _ in page.tags if tag in ("script", "iframe", "object", "embed", "form", "img")]
    assert all(a.get("aria-label") for tag, a in page.tags if tag == "svg" or a.get("role") == "region")
    assert all(a.get("scope") for tag, a in page.tags if tag == "th")


def test_hostile_names_are_text():
    bench = made_up_benchmark(model=HOSTILE)
    page = Page(render_network_page(dataclasses.replace(bench, machine={"cpu": HOSTILE})))
    assert "script" not in {tag for tag, _ in page.tags} and page.text.count(HOSTILE) >= 4


@pytest.mark.parametrize(
    "change", [{"workers": 1}, {"bit_per_s": 1e12}, {"measured": ()}, {"workers": 8, "devices": 4}, {"workers": 2}]
)
def test_other_clusters_have_a_page(tmp_path, change):
    bench = made_up_benchmark(**change)
    write_network_page(bench, tmp_path / "page.html")
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert verdict(bench).replace("x over", "× over") in plain(page)
    assert "links" not in [attributes.get("id") for tag, attributes in page.tags if tag == "h2"]
    assert "the links were given" in plain(page)
