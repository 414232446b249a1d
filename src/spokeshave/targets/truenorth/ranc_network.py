"""RANC network: cores and packets that RANC can run, and what TrueNorth has that RANC lacks.

RANC (Mack et al., TCAD 2020; https://github.com/UA-RCL/RANC) is a public emulator of chips like TrueNorth: the
deterministic part of the neuron, with a C++ simulator and an FPGA design. Its delivery tick d is a delay here of

    delay = d + 1:   d = 0 is integrated in the next tick (packets: in the tick that they are given for),
                     d = slots - 1 would hit the word that is read, and is lost.

Departs from RANC: cores that no file mentions are not there, rather than empty; what is sent to them is lost anyhow.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from spokeshave.errors import InvalidArgument
from spokeshave.targets.truenorth.core_grid import NOWHERE, CoreGrid, ResetMode, can_spike
from spokeshave.targets.truenorth.spike_simulator import InputLines

Packets = tuple[Int[Tensor, "_ 4"], ...]
"""By tick, a packet in each row: x and y of the core, axon, delivery tick d."""


class Fault(NamedTuple):
    """What is wrong with a neuron, or with a packet (then `core` is its tick, and `number` its place in the tick)."""

    core: int
    number: int
    why: str


@dataclass(frozen=True)
class RancNetwork:
    """Programmed cores, and the packets that are sent to them from outside.

    Attributes:
        grid: the cores.
        packets: by tick, a packet in each row: x and y of the core, axon, delivery tick d.

    Raises:
        InvalidArgument: a packet does not fit the grid.

    Example:
        >>> network = RancNetwork(CoreGrid.empty(1, 4, 4), (torch.tensor([[0, 0, 3, 0], [0, 0, 1, 2]]),))
        >>> network.inputs().axon.tolist(), network.inputs().delay.tolist(), network.spikes().tolist()
        ([1, 3], [3, 1], [[[True, True]]])
    """

    grid: CoreGrid
    packets: Packets = ()

    def __post_init__(self) -> None:
        fault = packet_fault(self.grid, self.packets)
        if fault:
            raise InvalidArgument(f"packet {fault.number} of tick {fault.core}: {fault.why}")

    @classmethod
    def given(cls, grid: CoreGrid, inputs: InputLines, spikes: Bool[Tensor, "1 ticks lines"]) -> "RancNetwork":
        """The packets that bring spikes on input lines to their axons.

        Args:
            grid: the cores.
            inputs: where the lines lead.
            spikes: of one image, tick by tick: RANC's neurons keep their potentials from image to image.

        Raises:
            InvalidArgument: inputs that do not fit the grid or the spikes.
        """
        inputs.check(grid)
        if spikes.shape[2] != inputs.count:
            raise InvalidArgument(f"spikes: expected {inputs.count} lines, got {spikes.shape[2]}")
        place = grid.coordinates.cpu().long()[inputs.core.cpu()]
        entries = torch.cat([place, inputs.axon.cpu()[:, None], inputs.delay.cpu()[:, None] - 1], 1).long()
        line = inputs.line.cpu()
        return cls(grid, tuple(entries[tick[line]] for tick in spikes[0].cpu()))

    def inputs(self) -> InputLines:
        """A line for each axon and delivery tick that packets name; those to places without a core are lost."""
        lines = self._lines()[0]
        core, axon, tick = lines.unbind(1)
        return InputLines(len(lines), torch.arange(len(lines)), core, axon, tick + 1)

    def spikes(self) -> Bool[Tensor, "1 ticks lines"]:
        """What the packets are on the lines of `inputs`."""
        lines, line, tick = self._lines()
        spikes = torch.zeros(1, len(self.packets), len(lines), dtype=torch.bool)
        spikes[0, tick, line] = True
        return spikes

    def _lines(self) -> tuple[Tensor, Tensor, Tensor]:
        """(core, axon and delivery tick of each line; line of each packet, and its tick)."""
        rows = torch.cat([torch.zeros(0, 4, dtype=torch.int64), *(packets.cpu().long() for packets in self.packets)])
        counts = torch.tensor([len(packets) for packets in self.packets], dtype=torch.int64)
        tick = torch.arange(len(counts)).repeat_interleave(counts)
        core = self.grid.places()[rows[:, 1], rows[:, 0]]
        found = torch.cat([core[:, None], rows[:, 2:]], 1)[core != NOWHERE]
        lines, line = found.unique(dim=0, return_inverse=True)
        return lines, line, tick[core != NOWHERE]


def packet_fault(grid: CoreGrid, packets: Packets) -> Fault | None:
    """The first packet that a grid cannot take, if there is one.

    Args:
        grid: the cores.
        packets: by tick.
    """
    for tick, rows in enumerate(packets):
        x, y, axon, delivery = rows.cpu().unbind(1)
        bus, outside = grid.output, (x < 0) | (x >= grid.width) | (y < 0) | (y >= grid.height)
        for wrong, why in (
            (outside, f"the grid has {grid.width} x {grid.height} cores"),
            ((axon < 0) | (axon >= grid.axons_per_core), f"a core has {grid.axons_per_core} axons"),
            ((delivery < 0) | (delivery >= grid.slots), f"its delivery tick is to be 0..{grid.slots - 1}"),
            (torch.zeros_like(outside) if bus is None else (x == bus.x) & (y == bus.y),
             "it goes straight to the output bus, where no core sees it"),
        ):  # fmt: skip
            if bool(wrong.any()):
                number = int(wrong.nonzero()[0])
                at, to, line, late = rows[number].tolist()
                return Fault(tick, number, f"got ({at}, {to}), axon {line}, delivery tick {late}, but {why}")
    return None


def stray_neuron(grid: CoreGrid) -> Fault | None:
    """The first neuron that may spike and whose spikes have no place to go to, if there is one.

    Args:
        grid: the cores; RANC's simulator refuses it or crashes there.
    """
    spiking, found = can_spike(grid), []
    for wrong, why in _strays(grid):
        places = (wrong & spiking).nonzero()
        if len(places):
            core, neuron = places[0].tolist()
            found.append(Fault(core, neuron, why))
    if not found:
        return None
    core, neuron, why = min(found)
    x, y = (grid.coordinates[core] + grid.neurons.target[core, neuron]).tolist()
    axon = int(grid.neurons.target_axon[core, neuron])
    return Fault(core, neuron, f"it may spike and sends to axon {axon} at ({x}, {y}), but {why}")


def without_strays(grid: CoreGrid) -> CoreGrid:
    """The same where neurons that never spike send nowhere if they name no real destination.

    Axon 0 of their own core, at once, is none: files have no other word for it.
    """
    neurons = grid.neurons
    none = (neurons.target == 0).all(2) & (neurons.target_axon == 0) & (neurons.delay == 1)
    for wrong, _ in _strays(grid):
        none |= wrong
    none &= ~can_spike(grid)
    return replace(grid, neurons=replace(
        neurons, target=torch.where(none[:, :, None], 0, neurons.target),
        target_axon=torch.where(none, NOWHERE, neurons.target_axon), delay=torch.where(none, 1, neurons.delay),
    ))  # fmt: skip


def require_ranc(grid: CoreGrid) -> CoreGrid:
    """See that RANC can run a grid.

    Args:
        grid: the cores.

    Returns:
        the grid, on the CPU, with axon 0 of the own core for what neurons that never spike send nowhere.

    Raises:
        InvalidArgument: names the first core and neuron with something that RANC lacks.
    """
    grid = without_strays(grid.to("cpu"))
    neurons = grid.neurons
    if grid.output is None:
        raise InvalidArgument("RANC needs an output bus, and the grid has none")
    for lacks, what in (
        (neurons.stochastic_weights.any(2), "stochastic weights"),
        (neurons.stochastic_leak, "a stochastic leak"),
        (neurons.threshold_mask != 0, "a random threshold"),
        (neurons.leak_reversal, "leak reversal"),
        (neurons.saturates, "saturation at the negative threshold"),
        (neurons.reset_mode == ResetMode.KEEP, "the reset mode KEEP"),
    ):
        if bool(lacks.any()):
            core, neuron = lacks.nonzero()[0].tolist()
            raise InvalidArgument(f"{at(grid, core, neuron)}: it has {what}, which RANC lacks")
    fault = stray_neuron(grid)
    if fault:
        raise InvalidArgument(f"{at(grid, fault.core, fault.number)}: {fault.why}")
    axon = torch.where(neurons.target_axon == NOWHERE, 0, neurons.target_axon)
    return replace(grid, neurons=replace(neurons, target_axon=axon))


def at(grid: CoreGrid, core: int, neuron: int) -> str:
    """Words for a neuron's place."""
    x, y = grid.coordinates[core].tolist()
    return f"core {core} at ({x}, {y}), neuron {neuron}"


def _strays(grid: CoreGrid) -> list[tuple[Tensor, str]]:
    """(neurons, what is wrong with their destination)."""
    x, y = (grid.coordinates.long()[:, None] + grid.neurons.target.long()).unbind(2)
    axon = grid.neurons.target_axon
    outside = (x < 0) | (x >= grid.width) | (y < 0) | (y >= grid.height)
    found = [(outside, f"the grid has {grid.width} x {grid.height} cores"), (axon < 0, "there is no such axon")]
    bus = grid.output
    to_bus = torch.zeros_like(outside) if bus is None else (x == bus.x) & (y == bus.y)
    if bus is not None:
        found.append((to_bus & (axon >= bus.lines), f"the output bus there has {bus.lines} lines"))
    found.append((~to_bus & (axon >= grid.axons_per_core), f"a core has {grid.axons_per_core} axons"))
    return found
