"""Spike simulator: a grid of neurosynaptic cores tick by tick, for many images at once, on a CPU or a GPU.

In each tick every core integrates the spikes that its scheduler holds for it, its neurons leak, fire and reset, and
spikes travel to the axons of other cores, where they are integrated `delay` ticks later; two on the same axon in the
same tick are one. The torch version here is the definition; `bit_planes` runs the same networks in a fraction of the
time where nothing is random.
Departs from the chip: packets do not wait for each other on the way.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from spokeshave.errors import InvalidArgument, JitRefused
from spokeshave.targets.truenorth.bit_planes import BitPlanes, why_not_bit_planes
from spokeshave.targets.truenorth.core_grid import NOWHERE, CoreGrid, Neurons
from spokeshave.targets.truenorth.neurosynaptic_core import (
    fired_and_reset,
    leaked,
    stochastic_input,
    synapse_weights,
)

_MOST_A_TICK = 1 << 27
"""More than a potential can change by in a tick: spikes, leak and thresholds are within 2**24 each."""
_KEPT_WEIGHTS = 1 << 27
"""Crosspoints up to which synapse weights are kept as floats; larger grids make them for some cores at a time."""
_IMAGES_AT_ONCE = 256
"""Of the torch version on a CPU: what all cores hold for them stays in its caches."""


_IMAGES_AT_ONCE_ELSEWHERE = 4096


class Engine(Enum):
    """What runs the ticks."""

    AUTO = "auto"
    """BIT_PLANES where it can, else TORCH."""
    TORCH = "torch"
    """Products of matrices; on any device, with random numbers where the neurons want them."""
    BIT_PLANES = "bit-planes"
    """Generated code for this CPU: an image is a bit, and numbers are sums of bits; nothing may be random."""


@dataclass(frozen=True)
class InputLines:
    """Where spikes from outside arrive: entry i takes line[i] to an axon of a core; a line may have several entries.

    Attributes:
        count: how many lines.
        line: number of the line.
        core: number of the core in the grid.
        axon: of that core.
        delay: 1 for spikes that are integrated in the tick that they are given for, more for later ones.
    """

    count: int
    line: Int[Tensor, "entries"]
    core: Int[Tensor, "entries"]
    axon: Int[Tensor, "entries"]
    delay: Int[Tensor, "entries"]

    def check(self, grid: CoreGrid) -> None:
        """See that all entries fit a grid.

        Raises:
            InvalidArgument: names the first that does not.
        """
        for name, values, low, high in (
            ("line", self.line, 0, self.count - 1),
            ("core", self.core, 0, grid.cores - 1),
            ("axon", self.axon, 0, grid.axons_per_core - 1),
            ("delay", self.delay, 1, grid.slots),
        ):
            wrong = ((values < low) | (values > high)).nonzero()
            if len(values) != len(self.line) or len(wrong):
                where = int(wrong[0]) if len(wrong) else len(values)
                got = int(values[where]) if len(wrong) else "a missing value"
                raise InvalidArgument(f"input entry {where}: {name}: expected {low}..{high}, got {got}")


@dataclass(frozen=True)
class SpikeRecord:
    """What a simulation gave.

    Attributes:
        outputs: spikes on the output bus, in the tick in which they were sent.
        spikes_by_core: spikes that each core's neurons sent, over all images and ticks.
        traffic: spikes that were sent from core to core, [from, to], likewise; the last column is the output bus.
    """

    outputs: Bool[Tensor, "images ticks lines"]
    spikes_by_core: Int[Tensor, "cores"] | None = None
    traffic: Int[Tensor, "cores targets"] | None = None


class SpikeSimulator:
    """Runs a grid of cores.

    Args:
        grid: the programmed cores.
        inputs: where spikes from outside arrive.
        engine: what runs the ticks.
        device: of the torch version.
        seed: of everything random.

    Raises:
        InvalidArgument: an input does not fit the grid, the grid has no output bus, or the engine cannot run it.

    Example:
        >>> from spokeshave.targets.truenorth.core_grid import Neurons, OutputBus
        >>> from dataclasses import replace
        >>> one = torch.ones(1, 1, dtype=torch.int32)
        >>> neuron = replace(Neurons.inert(1, 1), weights=torch.full((1, 1, 4), 2, dtype=torch.int32),
        ...     positive_threshold=3 * one, target=torch.tensor([[[1, 0]]]), target_axon=0 * one)
        >>> grid = CoreGrid.empty(1, 1, 1, neurons=neuron, width=2, output=OutputBus(1, 0, 1),
        ...     connections=torch.ones(1, 1, 1, dtype=torch.bool))
        >>> line = torch.zeros(1, dtype=torch.int64)
        >>> simulator = SpikeSimulator(grid, InputLines(1, line, line, line, line + 1))
        >>> simulator.run(torch.ones(1, 4, 1, dtype=torch.bool)).outputs.flatten().tolist()  # V: 2, 4, 2, 4
        [False, True, False, True]
    """

    def __init__(
        self,
        grid: CoreGrid,
        inputs: InputLines,
        engine: Engine = Engine.AUTO,
        device: torch.device | str = "cpu",
        seed: int = 0,
    ) -> None:
        inputs.check(grid)
        if grid.output is None:
            raise InvalidArgument("the grid has no output bus: nothing of what it does could be seen")
        self.grid, self.inputs, self.device, self.seed = grid, inputs, torch.device(device), seed
        why = why_not_bit_planes(grid, self.device)
        if engine is Engine.BIT_PLANES and why:
            raise InvalidArgument(f"bit planes cannot run this grid: {why}; use Engine.TORCH")
        self.planes = None
        if engine is not Engine.TORCH and not why:
            try:
                self.planes = BitPlanes(grid, inputs)
            except JitRefused:
                if engine is Engine.BIT_PLANES:
                    raise
        self.engine = Engine.TORCH if self.planes is None else Engine.BIT_PLANES
        self._torch: _TorchTicks | None = None

    def run(
        self, spikes: Bool[Tensor, "images ticks lines"], ticks: int | None = None, traffic: bool = False
    ) -> SpikeRecord:
        """Run each image from the neurons' first potentials, independently of the others.

        Args:
            spikes: on the input lines, tick by tick.
            ticks: to run; by default as many as there are inputs. After the last input nothing more arrives.
            traffic: count spikes by core and from core to core too (by the torch version).

        Returns:
            what left the chip.

        Raises:
            InvalidArgument: spikes that do not fit the input lines.
        """
        if spikes.ndim != 3 or spikes.shape[2] != self.inputs.count or spikes.dtype != torch.bool:
            raise InvalidArgument(
                f"spikes: expected booleans [images, ticks, {self.inputs.count}], got {spikes.dtype} "
                f"{tuple(spikes.shape)}"
            )
        ticks = spikes.shape[1] if ticks is None else ticks
        if ticks < 1 or not len(spikes):
            raise InvalidArgument(f"expected at least one image and one tick, got {len(spikes)} and {ticks}")
        if self.planes is not None and not traffic:
            return SpikeRecord(self.planes.run(spikes, ticks))
        if self._torch is None:
            self._torch = _TorchTicks(self.grid, self.inputs, self.device)
        generator = torch.Generator(self.device).manual_seed(self.seed)
        at_once = _IMAGES_AT_ONCE if self.device.type == "cpu" else _IMAGES_AT_ONCE_ELSEWHERE
        runs = [self._torch.run(part.to(self.device), ticks, generator) for part in spikes.split(at_once)]
        outputs = torch.cat([outputs for outputs, _ in runs]).to(spikes.device)
        if not traffic:
            return SpikeRecord(outputs)
        counts = torch.stack([counts for _, counts in runs]).sum(0)
        return SpikeRecord(outputs, counts.sum(1).cpu(), self._torch.traffic(counts).cpu())


class _TorchTicks:
    """The definition: what a tick does, written with torch; images are the last dimension."""

    def __init__(self, grid: CoreGrid, inputs: InputLines, device: torch.device) -> None:
        assert grid.output is not None
        self.grid = grid.to(device)
        self.lines = grid.output.lines
        routes = grid.routes()
        sends = routes.core != NOWHERE
        source = torch.arange(sends.numel()).view(sends.shape)
        target = routes.core * grid.axons_per_core + routes.axon
        self.routes = _by_delay(source[sends], target[sends], routes.delay[sends], device)
        leaves = routes.line != NOWHERE
        self.outputs = _by_delay(source[leaves], routes.line[leaves], torch.ones_like(source[leaves]), device)
        entry = inputs.core * grid.axons_per_core + inputs.axon
        kept = inputs.delay < grid.slots
        self.entries = _by_delay(inputs.line[kept], entry[kept], inputs.delay[kept], device)
        self.seen = torch.where(leaves, grid.cores, routes.core).to(device)
        self.most = max((delay for delay, _, _ in (*self.routes, *self.entries)), default=1)
        self.random = grid.neurons.random
        kept_whole = grid.connections.numel() <= _KEPT_WEIGHTS
        self.weights = self._weights(slice(None)) if kept_whole else None

    def _weights(self, cores: slice) -> Tensor:
        grid = self.grid
        return synapse_weights(grid.connections[cores], grid.axon_types[cores], _some(grid.neurons, cores))

    def _integrated(self, arriving: Tensor) -> Tensor:
        if self.weights is not None:
            return (self.weights @ arriving.float()).int()
        cores, each = self.grid.cores, max(1, _KEPT_WEIGHTS // self.grid.connections[0].numel() // 4)
        parts = [slice(first, min(cores, first + each)) for first in range(0, cores, each)]
        return torch.cat([(self._weights(part) @ arriving[part].float()).int() for part in parts])

    @torch.no_grad()
    def run(self, spikes: Tensor, ticks: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """(outputs, spikes of each neuron)."""
        grid, neurons, images = self.grid, self.grid.neurons, len(spikes)
        given = spikes.permute(1, 2, 0)
        axons = grid.cores * grid.axons_per_core
        slots = torch.zeros(self.most + 1, axons, images, dtype=torch.bool, device=grid.device)
        # Potentials that add up over many ticks would wrap around at 32 bits.
        wide = torch.int64 if ticks * _MOST_A_TICK >= 2**31 else torch.int32
        potential = neurons.potential[:, :, None].expand(-1, -1, images).to(wide)
        left = torch.zeros(ticks, self.lines, images, dtype=torch.bool, device=grid.device)
        counts = torch.zeros(grid.cores, grid.neurons_per_core, dtype=torch.int64, device=grid.device)
        for tick in range(ticks):
            if tick < len(given):
                for delay, source, target in self.entries:
                    slots[(tick + delay - 1) % len(slots)][target] |= given[tick][source]
            arriving = slots[tick % len(slots)].view(grid.cores, grid.axons_per_core, images)
            potential = potential + self._integrated(arriving)
            if self.random:
                potential = potential + stochastic_input(
                    arriving, grid.connections, grid.axon_types, neurons, generator
                )
            potential = leaked(potential, neurons, generator)
            fired, potential = fired_and_reset(potential, neurons, grid.negative_test, generator)
            slots[tick % len(slots)] = False
            flat = fired.flatten(0, 1)
            for delay, source, target in self.routes:
                slots[(tick + delay) % len(slots)][target] |= flat[source]
            for _, source, target in self.outputs:
                left[tick][target] |= flat[source]
            counts += fired.sum(2)
        return left.permute(2, 0, 1), counts

    def traffic(self, counts: Tensor) -> Tensor:
        """[from, to or output] of the spikes that arrive somewhere."""
        cores = self.grid.cores
        found = torch.zeros(cores, cores + 1, dtype=torch.int64, device=counts.device)
        for core in range(cores):
            known = self.seen[core] != NOWHERE
            found[core].index_add_(0, self.seen[core][known], counts[core][known])
        return found


def _some(neurons: Neurons, cores: slice) -> Neurons:
    """The neurons of some cores."""
    return replace(neurons, **{name: value[cores] for name, value in vars(neurons).items()})


def _by_delay(source: Tensor, target: Tensor, delay: Tensor, device: torch.device) -> list[tuple[int, Tensor, Tensor]]:
    """(delay, sources, targets): groups in which no target comes twice, so that each is one indexed operation."""
    return [
        (int(one), source[chosen].to(device), target[chosen].to(device))
        for one in delay.unique()
        for chosen in _rounds(target, (delay == one).nonzero().flatten())
    ]


def _rounds(target: Tensor, chosen: Tensor) -> Iterator[Tensor]:
    """Parts of `chosen` with different targets each."""
    order = chosen[target[chosen].argsort(stable=True)]
    wanted = target[order]
    first = torch.ones_like(wanted, dtype=torch.bool)
    first[1:] = wanted[1:] != wanted[:-1]
    starts = torch.where(first, torch.arange(len(wanted)), 0).cummax(0).values
    turn = torch.arange(len(wanted)) - starts
    for number in range(int(turn.max()) + 1 if len(turn) else 0):
        yield order[turn == number]
