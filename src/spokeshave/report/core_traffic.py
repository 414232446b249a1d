"""Core traffic: how many spikes cores send for an image, to whom, and over which links of the chip's mesh.

A packet goes along x first, then along y (TrueNorth: Akopyan et al., TCAD 2015; RANC likewise).
Departs from the chip: spikes that come from outside are not routed, so that links may carry more than is said.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from spokeshave.errors import InvalidArgument
from spokeshave.targets.truenorth.core_grid import CoreGrid
from spokeshave.targets.truenorth.deployed_network import DeployedNetwork
from spokeshave.targets.truenorth.layers_to_cores import MappedCores
from spokeshave.targets.truenorth.spike_simulator import Engine, InputLines, SpikeSimulator

_CORES_AT_ONCE, _IMAGES_AT_ONCE = 256, 16
"""Of the simulator's torch version, which is the one that counts: what it holds for them stays small."""


@dataclass(frozen=True)
class CoreTraffic:
    """Spikes that arrive somewhere, from core to core, mean of some images.

    Attributes:
        cores: of the grid; as a number of a receiver, it is the output bus.
        sender: number of the core, of each pair between which spikes go.
        receiver: likewise.
        spikes: an image.
        images: that were counted.
    """

    cores: int
    sender: Int[Tensor, "pairs"]
    receiver: Int[Tensor, "pairs"]
    spikes: Float[Tensor, "pairs"]
    images: int

    @property
    def sent(self) -> Float[Tensor, "cores"]:
        """Spikes an image that each core sends."""
        return torch.zeros(self.cores, dtype=torch.float64).index_add_(0, self.sender, self.spikes)


@dataclass(frozen=True)
class MeshLoad:
    """Spikes an image over the links between neighbouring places, both directions together.

    Attributes:
        along_x: [y, x] of the link from (x, y) to (x + 1, y).
        along_y: [y, x] of the link from (x, y) to (x, y + 1).
    """

    along_x: Float[Tensor, "height columns"]
    along_y: Float[Tensor, "rows width"]


def count_traffic(deployed: DeployedNetwork, images: Float[Tensor, "images *pixels"], seed: int = 0) -> CoreTraffic:
    """Show a network some images for a frame each, and count.

    Copies are simulated one after the other, since no spike goes from one to another.

    Args:
        deployed: on its chip.
        images: pixels in 0..1, at least one image.
        seed: of the input spikes.

    Raises:
        InvalidArgument: images of another size, none at all, or with values outside 0..1.
    """
    if not len(images):
        raise InvalidArgument(f"expected at least one image of {deployed.pixels} pixels, got {tuple(images.shape)}")
    mapped, random, ticks = deployed.mapped, np.random.default_rng(seed), deployed.spikes_per_frame
    batches, found = images.split(_IMAGES_AT_ONCE), []
    # Where copies share their input, those of another part have to see the same spikes.
    shared = [deployed.input_spikes(batch, 1, ticks, random) for batch in batches] if deployed.chip.shared_input else []
    lines = deployed.pixels * deployed.streams
    for first, last in _parts(mapped):
        simulator = SpikeSimulator(*_some_copies(mapped, first, last, lines), engine=Engine.TORCH, seed=seed)
        start, end = first * len(mapped.layer), last * len(mapped.layer)
        total = torch.zeros(end - start, end - start + 1, dtype=torch.int64)
        for number, batch in enumerate(batches):
            copies = last - first
            given = shared[number].repeat(1, 1, copies) if shared else None
            given = deployed.input_spikes(batch, copies, ticks, random) if given is None else given
            counted = simulator.run(given, ticks + deployed.depth - 1, traffic=True).traffic
            assert counted is not None
            total += counted
        sender, receiver = total.nonzero().unbind(1)
        to = torch.where(receiver == end - start, mapped.grid.cores, receiver + start)
        found.append((sender + start, to, total[sender, receiver].double() / len(images)))
    sender, receiver, spikes = (torch.cat(part) for part in zip(*found, strict=True))
    return CoreTraffic(mapped.grid.cores, sender, receiver, spikes, len(images))


def places_of(grid: CoreGrid) -> Int[Tensor, "places 2"]:
    """(x, y) of every core, then of the output bus."""
    assert grid.output is not None
    return torch.cat([grid.coordinates.cpu().long(), torch.tensor([[grid.output.x, grid.output.y]])])


def mean_hops(grid: CoreGrid, traffic: CoreTraffic) -> float:
    """Links that a spike passes, mean of all spikes; 0 where there are none.

    Args:
        grid: where the cores are.
        traffic: between them.
    """
    places = places_of(grid)
    hops = (places[traffic.sender] - places[traffic.receiver]).abs().sum(1)
    return float((hops * traffic.spikes).sum() / traffic.spikes.sum().clamp(min=1e-12))


def mesh_load(grid: CoreGrid, traffic: CoreTraffic) -> MeshLoad:
    """Send every spike along x, then along y.

    Args:
        grid: where the cores are.
        traffic: between them.
    """
    places = places_of(grid)
    (x0, y0), (x1, y1) = places[traffic.sender].unbind(1), places[traffic.receiver].unbind(1)
    # A way adds its spikes to the difference between neighbouring links where it begins, and takes them off at its end.
    along_x = torch.zeros(grid.height, grid.width, dtype=torch.float64)
    along_y = torch.zeros(grid.height, grid.width, dtype=torch.float64)
    along_x.index_put_((y0, torch.minimum(x0, x1)), traffic.spikes, accumulate=True)
    along_x.index_put_((y0, torch.maximum(x0, x1)), -traffic.spikes, accumulate=True)
    along_y.index_put_((torch.minimum(y0, y1), x1), traffic.spikes, accumulate=True)
    along_y.index_put_((torch.maximum(y0, y1), x1), -traffic.spikes, accumulate=True)
    found = along_x.cumsum(1)[:, :-1], along_y.cumsum(0)[:-1]
    rounding = 1e-9 * float(traffic.spikes.sum())
    return MeshLoad(*(torch.where(load > rounding, load, 0.0) for load in found))


def _parts(mapped: MappedCores) -> Iterator[tuple[int, int]]:
    """First and behind the last of some copies."""
    each = max(1, _CORES_AT_ONCE // len(mapped.layer))
    for first in range(0, mapped.copies, each):
        yield first, min(mapped.copies, first + each)


def _some_copies(mapped: MappedCores, first: int, last: int, lines: int) -> tuple[CoreGrid, InputLines]:
    """The cores of some copies at their places, and the lines to them."""
    grid, inputs, cores = mapped.grid, mapped.inputs, len(mapped.layer)
    here = slice(first * cores, last * cores)
    neurons = replace(grid.neurons, **{name: value[here] for name, value in vars(grid.neurons).items()})
    some = replace(
        grid, coordinates=grid.coordinates[here], axon_types=grid.axon_types[here],
        connections=grid.connections[here], neurons=neurons,
    )  # fmt: skip
    chosen = (inputs.core >= here.start) & (inputs.core < here.stop)
    line, core = inputs.line[chosen] - first * lines, inputs.core[chosen] - here.start
    return some, InputLines((last - first) * lines, line, core, inputs.axon[chosen], inputs.delay[chosen])
