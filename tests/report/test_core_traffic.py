"""Core traffic: counts are those of one simulation of the whole grid; ways through the mesh are walked link by link."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from spokeshave.errors import InvalidArgument
from spokeshave.report.core_traffic import CoreTraffic, count_traffic, mean_hops, mesh_load
from spokeshave.targets.truenorth.core_grid import CoreGrid, OutputBus
from spokeshave.targets.truenorth.deployed_network import DeployedNetwork, TrueNorth
from spokeshave.targets.truenorth.spike_coding import SpikeCode, encode
from spokeshave.targets.truenorth.spike_simulator import Engine, SpikeSimulator
from spokeshave.targets.truenorth.tea_benches import mnist_bench_1
from tea_cases import small_tea


def whole(deployed: DeployedNetwork, images: torch.Tensor) -> torch.Tensor:
    """Spikes an image from core to core, of all copies at once; the last column is the bus."""
    copies, ticks = deployed.mapped.copies, deployed.spikes_per_frame
    spikes = encode(images.repeat(1, copies), ticks, deployed.chip.code, np.random.default_rng(0))
    simulator = SpikeSimulator(deployed.mapped.grid, deployed.mapped.inputs, Engine.TORCH)
    traffic = simulator.run(spikes, ticks + deployed.depth - 1, traffic=True).traffic
    assert traffic is not None
    return traffic.double() / len(images)


def table(traffic: CoreTraffic) -> torch.Tensor:
    found = torch.zeros(traffic.cores, traffic.cores + 1, dtype=torch.float64)
    found[traffic.sender, traffic.receiver] = traffic.spikes
    return found


@pytest.mark.parametrize("shared", [False, True])
def test_parts_give_what_the_whole_grid_gives(shared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spokeshave.report.core_traffic._CORES_AT_ONCE", 13)  # two copies of six cores
    monkeypatch.setattr("spokeshave.report.core_traffic._IMAGES_AT_ONCE", 3)
    images = torch.rand(7, 36)
    chip = TrueNorth(5, 3, code=SpikeCode.THRESHOLD, shared_input=shared, seed=3)  # a code without chance
    deployed = chip.map(small_tea())
    traffic, wanted = count_traffic(deployed, images), whole(deployed, images)
    assert traffic.images == 7 and traffic.cores == 30
    torch.testing.assert_close(table(traffic), wanted)
    torch.testing.assert_close(traffic.sent, wanted.sum(1))
    assert float(traffic.sent.min()) > 0 and len(set(traffic.sent[:30:6].tolist())) > 1  # copies differ


def test_counts_of_a_random_code_are_near_those_of_other_draws() -> None:
    deployed = TrueNorth(2, 8, seed=1).map(small_tea())
    images = torch.rand(64, 36)
    one, other = (table(count_traffic(deployed, images, seed)) for seed in (1, 2))
    assert not torch.equal(one, other)
    torch.testing.assert_close(one, other, rtol=0.2, atol=1.0)
    assert torch.equal(one, table(count_traffic(deployed, images, 1)))


def test_shared_input_is_the_same_for_copies_of_any_part(monkeypatch: pytest.MonkeyPatch) -> None:
    network = small_tea()
    with torch.no_grad():
        for layer in network.tea_layers:
            layer.probability.round_()
    monkeypatch.setattr("spokeshave.report.core_traffic._CORES_AT_ONCE", 6)
    sent = count_traffic(TrueNorth(3, 4, shared_input=True).map(network), torch.rand(5, 36)).sent.view(3, 6)
    assert torch.equal(sent[0], sent[1]) and torch.equal(sent[0], sent[2])
    own = count_traffic(TrueNorth(3, 4).map(network), torch.rand(5, 36)).sent.view(3, 6)
    assert not torch.equal(own[0], own[1])


@pytest.mark.parametrize("shape", [(0, 36), (2, 35), (3, 1, 5, 7)])
def test_images_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidArgument, match="at least one image of 36 pixels"):
        count_traffic(TrueNorth().map(small_tea()), torch.zeros(shape))


def scattered(seed: int) -> tuple[CoreGrid, CoreTraffic]:
    """Nine cores on a grid of 5 x 4, the bus in the middle, and traffic between any of them."""
    generator = torch.Generator().manual_seed(seed)
    taken = torch.randperm(20, generator=generator)[:10]
    places = torch.stack([taken % 5, taken // 5], 1)
    grid = CoreGrid.empty(
        9, 2, 2, width=5, height=4, coordinates=places[:9], output=OutputBus(*places[9].tolist(), lines=2)
    )
    spikes = torch.rand(9, 10, generator=generator, dtype=torch.float64) * (
        torch.rand(9, 10, generator=generator) < 0.4
    )
    sender, receiver = spikes.nonzero().unbind(1)
    return grid, CoreTraffic(9, sender, receiver, spikes[sender, receiver], 1)


@pytest.mark.parametrize("seed", range(4))
def test_every_link_carries_the_packets_that_pass_it(seed: int) -> None:
    grid, traffic = scattered(seed)
    assert grid.output is not None
    places = [*map(tuple, grid.coordinates.tolist()), (grid.output.x, grid.output.y)]
    along_x, along_y, hops = Counter(), Counter(), 0.0
    for sender, receiver, spikes in zip(
        traffic.sender.tolist(), traffic.receiver.tolist(), traffic.spikes.tolist(), strict=True
    ):
        (x, y), (x1, y1) = places[sender], places[receiver]
        while (x, y) != (x1, y1):
            hops += spikes
            if x != x1:
                step = 1 if x1 > x else -1
                along_x[y, min(x, x + step)] += spikes
                x += step
            else:
                step = 1 if y1 > y else -1
                along_y[min(y, y + step), x] += spikes
                y += step
    load = mesh_load(grid, traffic)
    assert load.along_x.shape == (4, 4) and load.along_y.shape == (3, 5)
    for loads, walked in ((load.along_x, along_x), (load.along_y, along_y)):
        wanted = [[walked[y, x] for x in range(loads.shape[1])] for y in range(loads.shape[0])]
        torch.testing.assert_close(loads, torch.tensor(wanted, dtype=torch.float64), atol=1e-9, rtol=0)
        assert torch.equal(loads > 0, torch.tensor(wanted) > 0)
    assert mean_hops(grid, traffic) == pytest.approx(hops / float(traffic.spikes.sum()))


def test_without_spikes_there_are_no_hops() -> None:
    grid, traffic = scattered(0)
    none = torch.zeros(0, dtype=torch.int64)
    silent = replace(traffic, sender=none, receiver=none, spikes=torch.zeros(0, dtype=torch.float64))
    assert mean_hops(grid, silent) == 0 and float(mesh_load(grid, silent).along_x.abs().sum()) == 0
    assert silent.sent.tolist() == [0] * 9


def test_replicas_have_lines_of_their_own() -> None:
    deployed = TrueNorth(3, 2, seed=1).map(mnist_bench_1(10, replicas=2))
    traffic = count_traffic(deployed, torch.rand(4, 784))
    assert traffic.cores == 24 and (traffic.sent > 0).all()
