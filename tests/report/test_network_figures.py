"""Curves and points of the figures are those of the model, the paper and the measurement."""

import pytest

from network_cases import made_up_benchmark, made_up_probe
from spokeshave.communication.published_throughput import PaperCluster
from spokeshave.communication.wire_bytes import Exchange
from spokeshave.report.network_figures import (
    bytes_figure,
    link_figure,
    on_this_link,
    paper_figures,
    scaling_figure,
    speedup_figure,
    worker_counts,
)


def labels(figure):
    return [entry.label for entry in figure.legend]


def test_throughput_has_a_line_for_each_exchange_and_the_points_of_this_link():
    figure = scaling_figure(made_up_benchmark())
    assert figure.title == "Throughput at 1 Gbit/s" and figure.chart.count("<polyline") == len(Exchange)
    assert figure.chart.count('<g class="mark') == 2
    assert "alltoall, 4 workers: 110 images/s, measured" in figure.chart
    assert labels(figure) == [each.value for each in Exchange] + ["ternary, measured", "floats, measured"]


def test_speedups_are_drawn_with_their_break_evens_and_this_link():
    bench = made_up_benchmark()
    figure = speedup_figure(bench)
    assert figure.chart.count("<polyline") == len(Exchange) - 1 + 2
    assert [label for label in labels(figure) if label.startswith("faster")] == [
        f"faster than {each.value} below {rate}"
        for each, rate in ((Exchange.FLOAT32, "4.45 Gbit/s"), (Exchange.BFLOAT16, "2.31 Gbit/s"))
    ]
    # Two links where floats were measured too, and this link's own prediction.
    assert figure.chart.count('<g class="mark') == 3 and "alltoall at 100 Mbit/s: 8.50×, measured" in figure.chart
    assert "this link" in figure.chart


def test_break_evens_outside_the_figure_are_left_out():
    figure = speedup_figure(made_up_benchmark(workers=1, measured=()))
    assert not [label for label in labels(figure) if label.startswith("faster")] and "this link" not in figure.chart


def test_bytes_have_a_line_for_each_exchange():
    figure = bytes_figure(made_up_benchmark())
    assert figure.chart.count("<polyline") == len(Exchange) and "fp32: from 243.6 to 486.3" in figure.chart


@pytest.mark.parametrize(
    ("workers", "devices", "first", "last"), [(4, 1, 1, 512), (8, 4, 8, 512), (12, 3, 6, 384), (700, 1, 1, 700)]
)
def test_curves_go_over_whole_machines(workers, devices, first, last):
    counts = worker_counts(made_up_benchmark(workers=workers, devices=devices))
    assert (counts[0], counts[-1]) == (first, last) and workers in counts
    assert all(count % devices == 0 for count in counts)


def test_only_links_as_fast_as_this_one_count_as_this_link():
    assert [row.bit_per_s for row in on_this_link(made_up_benchmark(bit_per_s=1.05e9))] == [1e9, 1e9]
    assert on_this_link(made_up_benchmark(bit_per_s=2e9)) == []


def test_collectives_are_points_and_lines():
    figure = link_figure(made_up_probe())
    assert figure.chart.count('<g class="mark') == 9 and figure.chart.count("<polyline") == 3
    assert labels(figure)[:3] == ["all-reduce", "all-gather", "all-to-all"]


@pytest.mark.parametrize("cluster", list(PaperCluster))
def test_every_bar_of_the_paper_is_a_point(cluster):
    figures = paper_figures(cluster)
    assert [figure.title for figure in figures] == ["AlexNet", "GoogLeNet", "VggNet-A"]
    assert all(figure.chart.count('<g class="mark') == 20 for figure in figures)
    if cluster is PaperCluster.ETHERNET:
        assert "TernGrad, 8 GPUs: 2,189 images/s published" in figures[0].chart
