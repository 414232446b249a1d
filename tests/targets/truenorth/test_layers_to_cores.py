"""The mapper: connections, wiring and places of all copies; refusals."""

import pytest
import torch

from spokeshave.errors import InvalidArgument
from spokeshave.targets.truenorth.core_grid import NOWHERE
from spokeshave.targets.truenorth.layers_to_cores import map_layers
from spokeshave.targets.truenorth.tea_benches import mnist_bench_1, mnist_bench_3
from spokeshave.targets.truenorth.tea_layer import LEAK_UNIT


def test_every_spike_arrives_where_the_network_says() -> None:
    network, copies = mnist_bench_3(30), 2
    mapped = map_layers(network, copies)
    assert mapped.grid.cores == 124 and mapped.layer.tolist() == [0] * 49 + [1] * 9 + [2] * 4
    routes, last = mapped.grid.routes(), 4 * 30
    for copy in range(copies):
        first = copy * 62
        for layer, (size, start, following) in enumerate([(112, 0, 49), (256, 49, 58)]):
            source = network.sources[layer + 1]
            for core, axon in [(0, 0), (len(source) - 1, 100), (len(source) // 2, 250)]:
                sending = int(source[core, axon])
                at = first + start + sending // size, sending % size
                assert (int(routes.core[at]), int(routes.axon[at])) == (first + following + core, axon)
        lines = routes.line[first + 58 : first + 62, :30]
        assert torch.equal(lines, torch.arange(last).view(4, 30) + copy * last)
    unused = routes.core[:49, :112] == NOWHERE
    assert int((~unused).sum()) == 9 * 252  # a corner core sends to one window, others to up to four


def test_connections_are_drawn_copy_by_copy_and_poles_are_kept() -> None:
    network = mnist_bench_1(20)
    with torch.no_grad():
        network.tea_layers[0].probability[:, :, :128] = (torch.rand(4, 20, 128) < 0.5).float()
        network.tea_layers[0].scaled_leak[1, 3] = -2.6 / LEAK_UNIT
    grid = map_layers(network, 3, seed=5).grid
    on = grid.connections.view(3, 4, *grid.connections.shape[1:])[:, :, :20]
    wanted = network.tea_layers[0].probability[:, :, :128].bool()
    assert all(torch.equal(copy, wanted) for copy in on[:, :, :, :128])
    assert not torch.equal(on[0], on[1])
    assert grid.neurons.leak[[1, 5, 9], 3].tolist() == [-3] * 3
    assert torch.equal(map_layers(network, 3, seed=5).grid.connections, grid.connections)


def test_inputs_reach_every_copy_on_lines_of_its_own() -> None:
    network = mnist_bench_1(10)
    inputs = map_layers(network, 2).inputs
    assert inputs.count == 2 * 784 and len(inputs.line) == 2 * 1024
    for entry in (0, 700, 1024 + 300):
        copy, core = divmod(int(inputs.core[entry]), 4)
        assert int(inputs.line[entry]) == copy * 784 + int(network.sources[0][core, inputs.axon[entry]])


def test_more_cores_than_the_chip_has_are_refused() -> None:
    network = mnist_bench_1(10)
    assert map_layers(network, 1024).grid.cores == 4096
    with pytest.raises(
        InvalidArgument, match=r"1025 of 4 cores take 4100 of the 4096 cores of the chip; 1\.\.1024 fit"
    ):
        map_layers(network, 1025)


def test_a_network_that_diverged_is_refused() -> None:
    network = mnist_bench_1(10)
    with torch.no_grad():
        network.tea_layers[0].scaled_leak[0, 0] = float("nan")
    with pytest.raises(InvalidArgument, match="layer 0: expected finite"):
        map_layers(network)


def test_draws_have_nothing_to_do_with_what_made_the_probabilities() -> None:
    """The same seed for both: a connection is on as often as its probability says, whatever that is."""
    for network in (mnist_bench_1(200, seed=0), (torch.manual_seed(0), mnist_bench_1(200))[1]):
        p = network.tea_layers[0].probability.detach()
        on = map_layers(network, seed=0).grid.connections[:, :200].float()
        for low in (0.0, 0.25, 0.5, 0.75):
            some = (p >= low) & (p < low + 0.25)
            assert on[some].mean() == pytest.approx(p[some].mean().item(), abs=0.01)


def test_neurons_without_a_destination_are_inert() -> None:
    network = mnist_bench_3(30)
    grid = map_layers(network).grid
    idle = grid.neurons.target_axon == NOWHERE
    assert idle[0, 28:112].all() and not grid.connections[idle].any()  # a corner core sends to one window only
    assert (grid.neurons.positive_threshold[idle] > grid.neurons.leak[idle]).all()


@pytest.mark.parametrize("side", [2, 3, 5, 7, 9, 64])
def test_places_stay_on_the_chip(side: int) -> None:
    network = mnist_bench_1(10)
    for copies in {1, side**2 // 8 + 1, side**2 // 4} if side > 2 else {1}:
        grid = map_layers(network, copies, chip_side=side).grid
        assert grid.width <= side and grid.height <= side + 1
        steps = grid.coordinates.diff(dim=0).abs().sum(1)
        assert (steps == 1).all()  # one core after the other, side by side
