"""Core grid: neurosynaptic cores as they are programmed, their neurons, and where every spike goes.

TrueNorth (Cassidy et al., IJCNN 2013; Akopyan et al., TCAD 2015): a core has A axons, N neurons and a crossbar of A x N
on/off crosspoints; an axon has one of four types, a neuron one signed weight for each type and one destination.
Departs from the chip: sizes are free, and potentials are 32 bits wide. Fields follow RANC (Mack et al., TCAD 2020)
where it differs from TrueNorth in form only: the negative threshold carries its sign.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from enum import Enum, IntEnum
from typing import Any

import torch
from jaxtyping import Bool, Int, UInt8
from torch import Tensor

from spokeshave.errors import InvalidArgument

NOWHERE = -1
"""Destination axon of a neuron whose spikes are not sent."""
MOST_DELAY = 15
"""Ticks that the scheduler of a core with 16 slots can hold a spike back."""
_CORES_AT_ONCE = 16
_LARGEST = 2**24
"""Of all numbers of a neuron, and of what all axons of a core add together: within that floats are exact."""


class ResetMode(IntEnum):
    """What becomes of the potential V of a neuron that crossed a threshold (TrueNorth's gamma)."""

    RESTORE = 0
    """V = R above the positive threshold, V = -R below the negative one."""
    LINEAR = 1
    """V loses the threshold that it crossed."""
    KEEP = 2
    """V stays."""


class NegativeTest(Enum):
    """When a potential counts as below the negative threshold."""

    BELOW = "below"
    """V < threshold: TrueNorth, RANC's Verilog and its reset type 0."""
    AT_OR_BELOW = "at-or-below"
    """V <= threshold: RANC's reset type 1, which its shipped configuration has."""


@dataclass(frozen=True)
class Neurons:
    """Parameters of the neurons of all cores; see `neurosynaptic_core` for what they do.

    Attributes:
        weights: s, by axon type, -255..255 on the chip.
        leak: lambda, added in every tick.
        positive_threshold: alpha; a neuron spikes where V reaches it.
        negative_threshold: -beta, signed.
        reset_potential: R.
        potential: V before the first tick.
        reset_mode: values of `ResetMode`.
        saturates: kappa; below the negative threshold V becomes the threshold, whatever the reset mode.
        threshold_mask: TM; a random number below 256 masked by it is added to both thresholds' distance from 0.
        stochastic_weights: b; an arriving spike adds sign(s) with probability |s|/256.
        stochastic_leak: c; the leak adds its sign with probability |lambda|/256.
        leak_reversal: epsilon; the leak has the sign of V (and is 0 where V is).
        target: offset (dx, dy) of the destination core; (0, 0) is the neuron's own.
        target_axon: of the destination, or `NOWHERE`.
        delay: ticks until the spike is integrated there, 1 up to the grid's slots; with as many as that it is lost.
    """

    weights: Int[Tensor, "cores neurons types"]
    leak: Int[Tensor, "cores neurons"]
    positive_threshold: Int[Tensor, "cores neurons"]
    negative_threshold: Int[Tensor, "cores neurons"]
    reset_potential: Int[Tensor, "cores neurons"]
    potential: Int[Tensor, "cores neurons"]
    reset_mode: UInt8[Tensor, "cores neurons"]
    saturates: Bool[Tensor, "cores neurons"]
    threshold_mask: Int[Tensor, "cores neurons"]
    stochastic_weights: Bool[Tensor, "cores neurons types"]
    stochastic_leak: Bool[Tensor, "cores neurons"]
    leak_reversal: Bool[Tensor, "cores neurons"]
    target: Int[Tensor, "cores neurons 2"]
    target_axon: Int[Tensor, "cores neurons"]
    delay: Int[Tensor, "cores neurons"]

    @classmethod
    def inert(cls, cores: int, neurons: int, types: int = 4) -> "Neurons":
        """Neurons that never spike and send nothing, to be changed by `dataclasses.replace`.

        Example:
            >>> Neurons.inert(2, 3).weights.shape
            torch.Size([2, 3, 4])
        """
        plain = {
            name: torch.zeros(cores, neurons, dtype=torch.int32)
            for name in ("leak", "negative_threshold", "reset_potential", "potential", "threshold_mask")
        }
        flags = {name: torch.zeros(cores, neurons, dtype=torch.bool) for name in _FLAGS}
        ones = torch.ones(cores, neurons, dtype=torch.int32)
        return cls(
            weights=torch.zeros(cores, neurons, types, dtype=torch.int32),
            stochastic_weights=torch.zeros(cores, neurons, types, dtype=torch.bool),
            reset_mode=torch.zeros(cores, neurons, dtype=torch.uint8),
            positive_threshold=ones, delay=ones.clone(), target_axon=torch.full_like(ones, NOWHERE),
            target=torch.zeros(cores, neurons, 2, dtype=torch.int32), **plain, **flags,
        )  # fmt: skip

    def to(self, device: torch.device | str) -> "Neurons":
        """The same on another device."""
        return replace(self, **{item.name: getattr(self, item.name).to(device) for item in fields(self)})

    @property
    def random(self) -> bool:
        """Whether any neuron draws random numbers."""
        return bool(self.stochastic_weights.any() or self.stochastic_leak.any() or self.threshold_mask.any())


_FLAGS = ("saturates", "stochastic_leak", "leak_reversal")


@dataclass(frozen=True)
class OutputBus:
    """Takes the place of a core and gathers spikes for the world outside.

    Attributes:
        x: of its place.
        y: of its place.
        lines: how many; a spike for its axon k is seen on line k.
    """

    x: int
    y: int
    lines: int


@dataclass(frozen=True)
class CoreGrid:
    """A chip's programme: the cores that are in use.

    Attributes:
        width, height: of the grid, cores.
        coordinates: (x, y) of each core in use.
        axon_types: of each core's axons, below the number of weights of a neuron.
        connections: crosspoints that are on.
        neurons: of each core.
        output: where spikes leave the chip.
        negative_test: see `NegativeTest`.
        slots: of the schedulers; delays are less.

    Raises:
        InvalidArgument: sizes do not agree, or a value is out of its range; says of which core.

    Example:
        >>> grid = CoreGrid.empty(1, axons_each=2, neurons_each=3)
        >>> grid.cores, grid.connections.shape
        (1, torch.Size([1, 3, 2]))
    """

    width: int
    height: int
    coordinates: Int[Tensor, "cores 2"]
    axon_types: UInt8[Tensor, "cores axons"]
    connections: Bool[Tensor, "cores neurons axons"]
    neurons: Neurons
    output: OutputBus | None = None
    negative_test: NegativeTest = NegativeTest.BELOW
    slots: int = field(default=MOST_DELAY + 1)

    def __post_init__(self) -> None:
        _check_shapes(self)
        _check_places(self)
        _check_values(self)

    @classmethod
    def empty(
        cls, cores: int, axons_each: int = 256, neurons_each: int = 256, types: int = 4, **changes: Any
    ) -> "CoreGrid":
        """Cores without connections, in a row.

        Args:
            cores: how many.
            axons_each: of a core.
            neurons_each: of a core.
            types: of axons.
            changes: fields to set otherwise.
        """
        given: dict[str, Any] = {
            "width": cores,
            "height": 1,
            "coordinates": torch.stack([torch.arange(cores), torch.zeros(cores, dtype=torch.int64)], 1),
            "axon_types": torch.zeros(cores, axons_each, dtype=torch.uint8),
            "connections": torch.zeros(cores, neurons_each, axons_each, dtype=torch.bool),
            "neurons": Neurons.inert(cores, neurons_each, types),
        }
        return cls(**(given | changes))

    @property
    def cores(self) -> int:
        """How many are in use."""
        return len(self.coordinates)

    @property
    def axons_per_core(self) -> int:
        """Rows of a crossbar."""
        return self.axon_types.shape[1]

    @property
    def neurons_per_core(self) -> int:
        """Columns of a crossbar."""
        return self.connections.shape[1]

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.connections.device

    def to(self, device: torch.device | str) -> "CoreGrid":
        """The same on another device."""
        return replace(
            self, coordinates=self.coordinates.to(device), axon_types=self.axon_types.to(device),
            connections=self.connections.to(device), neurons=self.neurons.to(device),
        )  # fmt: skip

    def places(self) -> Tensor:
        """[height, width]: number of the core at each place, `NOWHERE` where none is in use."""
        found = torch.full((self.height, self.width), NOWHERE, dtype=torch.int64)
        x, y = self.coordinates.cpu().long().unbind(1)
        found[y, x] = torch.arange(self.cores)
        return found

    def routes(self) -> "Routes":
        """Where each neuron's spikes arrive; those for places without a core, or too late ones, are lost.

        Raises:
            InvalidArgument: a neuron that is not inert sends beyond the output bus's lines.
        """
        neurons = self.neurons.to("cpu")
        x, y = (self.coordinates.cpu().long()[:, None] + neurons.target.long()).unbind(2)
        axon, sends = neurons.target_axon.long(), neurons.target_axon.long() != NOWHERE
        inside = (x >= 0) & (x < self.width) & (y >= 0) & (y < self.height) & sends
        core = self.places()[y.clamp(0, self.height - 1), x.clamp(0, self.width - 1)]
        core = torch.where(inside & (neurons.delay < self.slots) & (axon < self.axons_per_core), core, NOWHERE)
        line = torch.full_like(axon, NOWHERE)
        if self.output is not None:
            out = inside & (x == self.output.x) & (y == self.output.y) & (axon < self.output.lines)
            line = torch.where(out, axon, line)
        return Routes(core, torch.where(core == NOWHERE, NOWHERE, axon), line, neurons.delay.long())


@dataclass(frozen=True)
class Routes:
    """Where spikes arrive, a neuron each; `NOWHERE` for what does not apply.

    Attributes:
        core: number of the core.
        axon: of that core.
        line: of the output bus.
        delay: ticks.
    """

    core: Int[Tensor, "cores neurons"]
    axon: Int[Tensor, "cores neurons"]
    line: Int[Tensor, "cores neurons"]
    delay: Int[Tensor, "cores neurons"]


def parts_of(cores: int) -> Iterator[slice]:
    """Some cores at a time, so that what is made of their crosspoints stays small."""
    for first in range(0, cores, _CORES_AT_ONCE):
        yield slice(first, min(cores, first + _CORES_AT_ONCE))


def reach(grid: CoreGrid) -> tuple[Int[Tensor, "cores neurons"], Int[Tensor, "cores neurons"]]:
    """The most that arriving spikes can add to each neuron, and take from it."""
    types = torch.nn.functional.one_hot(grid.axon_types.long(), grid.neurons.weights.shape[-1]).float()
    counted = [grid.connections[part].float() @ types[part] for part in parts_of(grid.cores)]
    counts, weights = torch.cat(counted).round().long(), grid.neurons.weights.long()
    return (counts * weights.clamp(min=0)).sum(2), (counts * (-weights).clamp(min=0)).sum(2)


def can_spike(grid: CoreGrid) -> Bool[Tensor, "cores neurons"]:
    """Neurons that may spike; the others never will, whatever arrives and however long.

    A neuron that something drives upwards counts, though what drives it downwards may always be stronger.
    """
    neurons = grid.neurons
    rises = (neurons.leak > 0) | (neurons.leak_reversal & (neurons.leak != 0)) | (reach(grid)[0] > 0)
    # Without a rise V is highest at first, or where a reset below the negative threshold puts it.
    put = torch.where(neurons.reset_mode == ResetMode.RESTORE, -neurons.reset_potential, 0)
    put = torch.where(neurons.saturates, neurons.negative_threshold, put)
    leak = torch.where(neurons.stochastic_leak, 0, neurons.leak).long()
    return rises | (neurons.potential.maximum(put) + leak >= neurons.positive_threshold)


def _check_shapes(grid: CoreGrid) -> None:
    cores, neurons, axons = grid.connections.shape
    types = grid.neurons.weights.shape[-1]
    expected: dict[str, tuple[Tensor, tuple[int, ...]]] = {
        "coordinates": (grid.coordinates, (cores, 2)),
        "axon_types": (grid.axon_types, (cores, axons)),
    }
    for item in fields(Neurons):
        last = {"weights": (types,), "stochastic_weights": (types,), "target": (2,)}.get(item.name, ())
        expected[f"neurons.{item.name}"] = (getattr(grid.neurons, item.name), (cores, neurons, *last))
    for name, (tensor, shape) in expected.items():
        if tuple(tensor.shape) != shape:
            raise InvalidArgument(
                f"{name}: expected shape {shape} beside connections of {tuple(grid.connections.shape)}, "
                f"got {tuple(tensor.shape)}"
            )
    if not cores or not neurons or not axons or not types or grid.slots < 2:
        raise InvalidArgument(
            f"expected at least one core, neuron, axon and axon type and two slots, got {cores} cores of "
            f"{neurons} neurons and {axons} axons, {types} types, {grid.slots} slots"
        )


def _check_places(grid: CoreGrid) -> None:
    x, y = grid.coordinates.cpu().long().unbind(1)
    outside = (x < 0) | (x >= grid.width) | (y < 0) | (y >= grid.height)
    if bool(outside.any()):
        core = int(outside.nonzero()[0])
        raise InvalidArgument(
            f"core {core}: its place ({int(x[core])}, {int(y[core])}) is outside the grid of "
            f"{grid.width} x {grid.height}"
        )
    place = x + grid.width * y
    values, counts = place.unique(return_counts=True)
    if bool((counts > 1).any()):
        twice = int(values[counts > 1][0])
        raise InvalidArgument(f"two cores at ({twice % grid.width}, {twice // grid.width})")
    bus = grid.output
    if bus is not None:
        if not (0 <= bus.x < grid.width and 0 <= bus.y < grid.height) or bus.lines < 1:
            raise InvalidArgument(
                f"output bus: expected a place in the grid of {grid.width} x {grid.height} and at least one line, "
                f"got ({bus.x}, {bus.y}) and {bus.lines}"
            )
        if bool((place == bus.x + grid.width * bus.y).any()):
            raise InvalidArgument(f"output bus: a core is in its place, ({bus.x}, {bus.y})")


def _check_values(grid: CoreGrid) -> None:
    neurons = grid.neurons
    _require(grid.axon_types < neurons.weights.shape[-1], "axon type", f"below {neurons.weights.shape[-1]}")
    _require(neurons.reset_mode <= max(ResetMode), "reset mode", "0, 1 or 2")
    _require((neurons.delay >= 1) & (neurons.delay <= grid.slots), "delay", f"1..{grid.slots}")
    _require(neurons.target_axon >= NOWHERE, "destination axon", "at least 0, or -1 for none")
    _require((neurons.threshold_mask >= 0) & (neurons.threshold_mask <= 255), "threshold mask", "0..255")
    for name in ("weights", "leak", "positive_threshold", "negative_threshold", "reset_potential", "potential"):
        values, most = getattr(neurons, name), _LARGEST // (grid.axons_per_core if name == "weights" else 1)
        _require((values <= most) & (values >= -most), name, f"within {most} of 0")
    for random, values in ((neurons.stochastic_weights, neurons.weights), (neurons.stochastic_leak, neurons.leak)):
        _require(~random | (values.abs() <= 256), "stochastic weight or leak", "-256..256")


def _require(fits: Tensor, what: str, expected: str) -> None:
    if not bool(fits.all()):
        core, *place = (~fits).nonzero()[0].tolist()
        raise InvalidArgument(f"core {core}, {what} number {place[0]}: expected {expected}")
