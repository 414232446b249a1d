"""Connection probabilities: counted synapse by synapse, only those that a spike can pass."""

import xml.etree.ElementTree as ET

import pytest
import torch

from spokeshave.report.connection_probabilities import (
    LayerProbabilities,
    histogram_figure,
    probabilities_by_layer,
    used_synapses,
)
from tea_cases import one_core_tea, small_tea


def listed(number: int) -> list[float]:
    """Probabilities of the used synapses of a layer of the small network, one by one."""
    network = small_tea()
    probability, found = network.tea_layers[number].inside.tolist(), []
    for core, neurons in enumerate(probability):
        for neuron, row in enumerate(neurons):
            for axon, value in enumerate(row):
                if number == 0 and (neuron == 4 or (neuron == 3 and core in (1, 3))):
                    continue  # it sends nowhere
                if number == 1 and axon == 7:
                    continue  # nothing arrives
                found.append(value)
    return found


@pytest.mark.parametrize("number", [0, 1])
def test_every_layer_is_counted_synapse_by_synapse(number: int) -> None:
    values, row = listed(number), probabilities_by_layer(small_tea())[number]
    assert (row.name, row.cores, row.synapses) == (f"layer {number + 1}", (4, 2)[number], len(values))
    assert row.at_poles == pytest.approx(sum(v <= 0.05 or v >= 0.95 for v in values) / len(values))
    assert row.variance == pytest.approx(sum(v * (1 - v) for v in values) / len(values), rel=1e-5)
    bins = [sum(place / 20 <= v < (place + 1) / 20 for v in values) / len(values) for place in range(20)]
    assert row.shares == pytest.approx(bins, abs=1e-6) and sum(row.shares) == pytest.approx(1)


def test_all_layers_come_last() -> None:
    rows, values = probabilities_by_layer(small_tea()), listed(0) + listed(1)
    assert [row.name for row in rows] == ["layer 1", "layer 2", "all layers"]
    assert (rows[-1].cores, rows[-1].synapses) == (6, len(values))
    assert rows[-1].variance == pytest.approx(sum(v * (1 - v) for v in values) / len(values), rel=1e-5)


def test_poles_are_in_the_outer_bins_and_vary_by_nothing() -> None:
    network = one_core_tea()
    with torch.no_grad():
        network.tea_layers[0].probability.copy_(torch.tensor([[[0.0, 1.0, -0.3, 1.2], [0.0, 0.0, 0.5, 1.0]]]))
    row = probabilities_by_layer(network)[0]
    assert row.at_poles == 7 / 8 and row.variance == pytest.approx(0.25 / 8)
    assert (row.shares[0], row.shares[10], row.shares[19]) == (0.5, 0.125, 0.375)


def test_neurons_without_a_vote_do_not_count() -> None:
    network = one_core_tea()
    network.votes[0, 1] = -1
    (used,) = used_synapses(network)
    assert used.tolist() == [[[True] * 4, [False] * 4]]


def row(*shares: float) -> LayerProbabilities:
    return LayerProbabilities("all layers", 1, 100, shares[0] + shares[-1], 0.1, shares)


def test_the_outline_of_a_histogram_has_the_heights_of_its_shares() -> None:
    figure = histogram_figure({"without biasing": row(0.1, 0.3, 0.4, 0.2), "with biasing": row(0.5, 0.1, 0.0, 0.4)})
    svg = ET.fromstring(str(figure.chart))
    before, after = svg.iter("polyline")
    assert (before.get("class"), after.get("class")) == ("line dashed", "line")
    assert [entry.label for entry in figure.legend] == ["without biasing", "with biasing"]
    for line, shares in ((before, (0.1, 0.3, 0.4, 0.2)), (after, (0.5, 0.1, 0.0, 0.4))):
        corners = [tuple(map(float, pair.split(","))) for pair in line.get("points", "").split()]
        (x0, ground), *_, (x1, _) = corners
        steps = corners[1:-1]
        assert [x for x, _ in steps] == pytest.approx(
            [x0 + (x1 - x0) * edge / 4 for edge in (0, 1, 1, 2, 2, 3, 3, 4)], abs=0.11
        )
        unit = (ground - steps[0][1]) / shares[0]
        assert [(ground - y) / unit for _, y in steps] == pytest.approx(
            [s for s in shares for _ in range(2)], abs=0.005
        )
    assert "without biasing: 30.0 % within 0.05 of 0 or 1; with biasing: 90.0 %" in svg.get("aria-label", "")


def test_one_network_needs_no_legend() -> None:
    assert histogram_figure({"the network": row(0.5, 0.5)}).legend == ()
