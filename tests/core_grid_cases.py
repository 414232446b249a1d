"""Random grids of neurosynaptic cores, and what they do written down neuron by neuron, packet by packet.

The reference is the definition in plain Python: no tensors, one image at a time, integers without bounds.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from spokeshave.targets.truenorth.core_grid import CoreGrid, NegativeTest, Neurons, OutputBus
from spokeshave.targets.truenorth.spike_simulator import InputLines

Draw = Callable[..., Tensor]


def drawing(seed: int) -> tuple[Draw, torch.Generator]:
    generator = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high + 1, shape, generator=generator, dtype=torch.int32)

    return draw, generator


def random_grid(seed: int, weight: int = 5, axons: int = 20, neurons: int = 12, **changes: object) -> CoreGrid:
    """Four cores of a grid of 3 x 2 with the bus at (1, 1): all parameters random, destinations beyond it too."""
    draw, _ = drawing(seed)
    places = torch.tensor([[0, 0], [1, 0], [2, 0], [0, 1]])
    cores = len(places)
    # Every core, the bus more often, a place without a core, and one beyond the grid.
    places_to = torch.tensor([*places.tolist(), [1, 1], [1, 1], [1, 1], [2, 1], [-1, 0]])
    target = (places_to[draw(0, len(places_to) - 1, cores, neurons).long()] - places[:, None]).int()
    programmed = replace(
        Neurons.inert(cores, neurons),
        weights=draw(-weight, weight, cores, neurons, 4),
        leak=draw(-3, 3, cores, neurons),
        positive_threshold=draw(-4, 9, cores, neurons),
        negative_threshold=draw(-9, 4, cores, neurons),
        reset_potential=draw(-3, 3, cores, neurons),
        potential=draw(-5, 5, cores, neurons),
        reset_mode=draw(0, 2, cores, neurons).to(torch.uint8),
        saturates=draw(0, 3, cores, neurons) == 0,
        target=target,
        target_axon=draw(-1, axons - 1, cores, neurons),
        delay=draw(1, 16, cores, neurons),
    )
    return CoreGrid(
        width=3,
        height=2,
        coordinates=places,
        axon_types=draw(0, 3, cores, axons).to(torch.uint8),
        connections=draw(0, 1, cores, neurons, axons) == 1,
        neurons=replace(programmed, **changes),
        output=OutputBus(1, 1, axons - 3),
        negative_test=(NegativeTest.BELOW, NegativeTest.AT_OR_BELOW)[seed % 2],
    )


def random_inputs(seed: int, grid: CoreGrid, lines: int = 30, entries: int = 50) -> InputLines:
    draw, _ = drawing(seed + 1000)
    return InputLines(
        lines, draw(0, lines - 1, entries).long(), draw(0, grid.cores - 1, entries).long(),
        draw(0, grid.axons_per_core - 1, entries).long(), draw(1, grid.slots, entries).long(),
    )  # fmt: skip


def random_spikes(seed: int, images: int, ticks: int, lines: int = 30, share: float = 0.1) -> Tensor:
    return torch.rand(images, ticks, lines, generator=torch.Generator().manual_seed(seed + 2000)) < share


def written_out(grid: CoreGrid, inputs: InputLines, spikes: Tensor, ticks: int) -> list[set[int]]:
    """Lines of the bus that get a spike in each tick, for one image [ticks, lines] without anything random."""
    places = {(int(x), int(y)): core for core, (x, y) in enumerate(grid.coordinates.tolist())}
    n = {name: value.tolist() for name, value in vars(grid.neurons).items()}
    types, on = grid.axon_types.tolist(), grid.connections.tolist()
    potential = [list(row) for row in n["potential"]]
    waiting: dict[int, set[tuple[int, int]]] = {}
    seen: list[set[int]] = []
    entries = list(zip(*(v.tolist() for v in (inputs.line, inputs.core, inputs.axon, inputs.delay)), strict=True))
    for tick in range(ticks):
        if tick < len(spikes):
            for line, core, axon, delay in entries:
                if bool(spikes[tick, line]) and delay < grid.slots:
                    waiting.setdefault(tick + delay - 1, set()).add((core, axon))
        now = waiting.pop(tick, set())
        out: set[int] = set()
        for core in range(grid.cores):
            arrived = [axon for axon in range(len(types[core])) if (core, axon) in now]
            for neuron in range(len(on[core])):
                one = {name: value[core][neuron] for name, value in n.items()}
                v = potential[core][neuron]
                for axon in arrived:
                    if on[core][neuron][axon]:
                        v += one["weights"][types[core][axon]]
                v += (v > 0) * one["leak"] - (v < 0) * one["leak"] if one["leak_reversal"] else one["leak"]
                high, low, reset = one["positive_threshold"], one["negative_threshold"], one["reset_potential"]
                if v >= high:
                    _deliver(grid, places, core, one, tick, waiting, out)
                    v = {0: reset, 1: v - high, 2: v}[one["reset_mode"]]
                elif v < low or (v == low and grid.negative_test is NegativeTest.AT_OR_BELOW):
                    v = low if one["saturates"] else {0: -reset, 1: v - low, 2: v}[one["reset_mode"]]
                potential[core][neuron] = v
        seen.append(out)
    return seen


def _deliver(
    grid: CoreGrid, places: dict[tuple[int, int], int], core: int, one: dict, tick: int, waiting: dict, out: set[int]
) -> None:
    x, y = (a + b for a, b in zip(grid.coordinates[core].tolist(), one["target"], strict=True))
    assert grid.output is not None
    if one["target_axon"] < 0:
        return
    if (x, y) == (grid.output.x, grid.output.y):
        if one["target_axon"] < grid.output.lines:
            out.add(one["target_axon"])
    elif (x, y) in places and one["delay"] < grid.slots:
        waiting.setdefault(tick + one["delay"], set()).add((places[x, y], one["target_axon"]))
