"""Layers to cores: a Tea network as programmed cores on a chip, as many copies as wanted side by side.

Wen et al., DAC 2016: a layer's core is one core of the chip; copies have connections of their own. Neurons compare
their sum with 0 and forget it: threshold 0, potential reset to 0 in every tick, the bias as leak.
"""

import hashlib
import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor

from spokeshave.errors import InvalidArgument
from spokeshave.targets.truenorth.connection_sampling import sample_connections
from spokeshave.targets.truenorth.core_grid import NOWHERE, CoreGrid, NegativeTest, Neurons, OutputBus
from spokeshave.targets.truenorth.spike_simulator import InputLines
from spokeshave.targets.truenorth.tea_network import TeaNetwork

CHIP_SIDE = 64
"""Cores of a TrueNorth chip along each side."""
_MOST_LEAK = 1 << 20
"""Far more than all axons of a core can add."""


@dataclass(frozen=True)
class MappedCores:
    """A network on the cores of a chip.

    Attributes:
        grid: the cores: those of copy 0 first, of each copy layer by layer.
        inputs: a line for each pixel of each stream of each copy; those of copy 0 first.
        copies: how many.
        layer: number of the layer of each core of a copy.
    """

    grid: CoreGrid
    inputs: InputLines
    copies: int
    layer: Int[Tensor, "cores"]


def map_layers(network: TeaNetwork, copies: int = 1, chip_side: int = CHIP_SIDE, seed: int = 0) -> MappedCores:
    """Draw the connections of all copies and put their cores on a chip.

    Lines of the output bus: the neurons of the last layer, those of copy 0 first. It stands in a row of its own behind
    the cores, for the links at the chip's edge.

    Args:
        network: to map.
        copies: at least 1.
        chip_side: cores along each side of the chip.
        seed: of the draws.

    Raises:
        InvalidArgument: more cores than the chip has; a leak or probabilities that are not finite, or huge.
    """
    cores, needed = network.cores, copies * network.cores
    if copies < 1 or needed > chip_side**2:
        raise InvalidArgument(
            f"copies: {copies} of {cores} cores take {needed} of the {chip_side**2} cores of the chip; "
            f"1..{chip_side**2 // cores} fit"
        )
    layers = network.tea_layers
    for number, layer in enumerate(layers):
        if not bool(torch.isfinite(layer.leak).all()) or not bool(torch.isfinite(layer.probability).all()):
            raise InvalidArgument(f"layer {number}: expected finite probabilities and leaks; did the training diverge?")
        largest = float(layer.leak.detach().abs().max())
        if largest > _MOST_LEAK:
            raise InvalidArgument(
                f"layer {number}: expected leaks within {_MOST_LEAK} of 0, got {largest:g}; no spikes outweigh such a "
                "leak: train with a smaller learning rate"
            )
    axons = max(layer.probability.shape[2] for layer in layers)
    neurons = max(layer.probability.shape[1] for layer in layers)
    types = max(layer.get_buffer("weights").shape[2] for layer in layers)
    places = _serpentine(needed, chip_side)
    width, height = int(places[:, 0].max()) + 1, int(places[:, 1].max()) + 1
    last = layers[-1].probability.shape[0] * layers[-1].probability.shape[1]
    grid = CoreGrid.empty(
        needed, axons, neurons, types, width=width, height=height + 1, coordinates=places,
        output=OutputBus(0, height, copies * last), negative_test=NegativeTest.BELOW,
    )  # fmt: skip
    generator = _draws(seed)
    programmed = grid.neurons
    first = 0
    for number, (layer, source) in enumerate(zip(layers, network.sources, strict=True)):
        count, size, inputs = layer.probability.shape
        sends = _sends(network, number)
        drawn = sample_connections(layer.inside, copies, generator) & (source.cpu() != NOWHERE)[:, None]
        drawn &= sends[:, :, None]
        for copy in range(copies):
            here = slice(copy * cores + first, copy * cores + first + count)
            grid.connections[here, :size, :inputs] = drawn[copy]
            grid.axon_types[here, :inputs] = layer.get_buffer("axon_types").cpu()
            weights = layer.get_buffer("weights").cpu()
            programmed.weights[here, :size, : weights.shape[2]] = weights
            programmed.leak[here, :size] = layer.leak.detach().round().int().cpu() * sends
            programmed.positive_threshold[here, :size] = (~sends).int()
            _send(programmed, places, here, network, number, copy, (0, height), last)
        first += count
    layer_of = torch.cat([torch.full((len(layer.probability),), number) for number, layer in enumerate(layers)])
    checked = replace(grid, neurons=programmed)
    return MappedCores(checked, _input_lines(network, copies), copies, layer_of)


def _sends(network: TeaNetwork, number: int) -> Tensor:
    """Neurons of a layer that have a destination; the others are left inert."""
    shape = network.tea_layers[number].probability.shape[:2]
    if number + 1 == len(network.layers):
        return torch.ones(shape, dtype=torch.bool)
    source = network.sources[number + 1].cpu()
    found = torch.zeros(shape.numel(), dtype=torch.bool)
    found[source[source != NOWHERE]] = True
    return found.view(shape)


def _send(
    neurons: Neurons, places: Tensor, here: slice, network: TeaNetwork, number: int, copy: int,
    bus: tuple[int, int], last: int,
) -> None:  # fmt: skip
    """Give the neurons of a layer of a copy their destinations."""
    size = network.tea_layers[number].probability.shape[1]
    if number + 1 == len(network.layers):
        count = here.stop - here.start
        neurons.target_axon[here, :size] = (torch.arange(count * size).view(count, size) + copy * last).int()
        neurons.target[here, :size] = (torch.tensor(bus) - places[here])[:, None].int()
        return
    source = network.sources[number + 1].cpu()
    core, axon = (source != NOWHERE).nonzero(as_tuple=True)
    from_core, from_neuron = source[core, axon] // size + here.start, source[core, axon] % size
    neurons.target_axon[from_core, from_neuron] = axon.int()
    neurons.target[from_core, from_neuron] = (places[core + here.stop] - places[from_core]).int()


def _input_lines(network: TeaNetwork, copies: int) -> InputLines:
    source = network.sources[0].cpu()
    core, axon = (source != NOWHERE).nonzero(as_tuple=True)
    pixel, copy = source[core, axon], torch.arange(copies)[:, None]
    lines = network.pixels * network.streams
    line = (pixel + copy * lines).flatten()
    cores = (core + copy * network.cores).flatten()
    return InputLines(copies * lines, line, cores, axon.repeat(copies), torch.ones_like(line))


def _serpentine(cores: int, side: int) -> Tensor:
    """(x, y) of cores in rows, there and back by turns: neighbours in number are neighbours in place."""
    width = min(side, math.isqrt(cores - 1) + 1)
    number = torch.arange(cores)
    y, x = number // width, number % width
    return torch.stack([torch.where(y % 2 == 0, x, width - 1 - x), y], 1)


def _draws(seed: int) -> torch.Generator:
    """A generator that has nothing to do with others of the same seed, such as the one that made the probabilities."""
    digest = hashlib.blake2b(f"connections/{seed}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
