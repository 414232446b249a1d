"""Deployed network: a Tea network on a chip: copies, spikes per frame, votes, price.

Wen et al., DAC 2016: the score of a class is the number of its spikes over all copies (in space) and all ticks of a
frame (in time); both average the chance in connections and input spikes away.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from rich.box import SIMPLE_HEAD
from rich.table import Table
from torch import Tensor, nn

from spokeshave.errors import InvalidArgument, UnsupportedLayer
from spokeshave.processes import usable_device
from spokeshave.targets.truenorth.bit_plane_packing import aligned_copy, counted, random_planes
from spokeshave.targets.truenorth.layers_to_cores import CHIP_SIDE, MappedCores, map_layers
from spokeshave.targets.truenorth.spike_coding import SpikeCode, chances, encode
from spokeshave.targets.truenorth.spike_simulator import Engine, SpikeSimulator
from spokeshave.targets.truenorth.tea_network import TeaNetwork

TICK_S = 1e-3
"""Of a TrueNorth chip."""
_BITS_AT_ONCE = 1 << 27
"""Input and output spikes that are held at a time."""


@dataclass(frozen=True)
class TrueNorthCost:
    """What a network takes of a chip.

    Attributes:
        cores: of all copies.
        chip_share: of the chip's cores.
        copies: how many.
        frame_spikes: ticks of input that an image is shown for.
        connections_share: crosspoints that are on, of those of all cores in use.
        latency_s: from the first input of a frame to its last vote.
        frame_s: between images: a new one may follow the other's last input.
    """

    cores: int
    chip_share: float
    copies: int
    frame_spikes: int
    connections_share: float
    latency_s: float
    frame_s: float

    def to_dict(self) -> dict[str, Any]:
        """As plain numbers."""
        return asdict(self)

    def table(self) -> Table:
        """As a table for the terminal."""
        table = Table(title="on neurosynaptic cores", box=SIMPLE_HEAD, pad_edge=False)
        table.add_column("")
        table.add_column("", justify="right")
        for name, value in (
            ("cores", f"{self.cores:,} ({100 * self.chip_share:.2f} % of the chip)"),
            ("copies", f"{self.copies}"),
            ("spikes per frame", f"{self.frame_spikes}"),
            ("crosspoints on", f"{100 * self.connections_share:.1f} %"),
            ("latency", f"{1000 * self.latency_s:g} ms"),
            ("images a second", f"{1 / self.frame_s:,.0f}"),
        ):
            table.add_row(name, value)
        return table


class DeployedNetwork(nn.Module):
    """Copies of a network on a chip, simulated spike by spike; made by `TrueNorth.map`.

    Every call draws new input spikes; connections stay as they were drawn. `restart` begins the draws anew. Where it
    runs is the chip's to say: moving the module moves nothing.

    Args:
        network: that was mapped.
        mapped: its cores.
        chip: how it was put on them.
    """

    def __init__(self, network: TeaNetwork, mapped: MappedCores, chip: "TrueNorth") -> None:
        super().__init__()
        self.mapped, self.chip = mapped, chip
        self.pixels, self.streams, self.classes = network.pixels, network.streams, network.classes
        self.scale, self.depth = network.scale, len(network.layers)
        self._ballots = network.ballots.detach().cpu().bool()
        self.restart()

    @property
    def spikes_per_frame(self) -> int:
        """Ticks of input of a frame."""
        return self.chip.spikes_per_frame

    @cached_property
    def simulator(self) -> SpikeSimulator:
        """Of all copies."""
        chip = self.chip
        return SpikeSimulator(self.mapped.grid, self.mapped.inputs, chip.engine, chip.device, chip.seed)

    def __getstate__(self) -> dict[str, Any]:
        # Machine code belongs to this process; a copy makes its own.
        return {name: value for name, value in self.__dict__.items() if name != "simulator"}

    def restart(self, seed: int | None = None) -> None:
        """Draw the same input spikes again as after the start, or those of another seed."""
        self._random = np.random.default_rng(self.chip.seed if seed is None else seed)

    def input_spikes(
        self, images: Float[Tensor, "images *pixels"], copies: int, ticks: int, random: np.random.Generator
    ) -> Bool[Tensor, "images ticks lines"]:
        """Spikes on the input lines of some copies: for each a line for each pixel of each stream.

        Args:
            images: pixels in 0..1.
            copies: how many.
            ticks: of the frame.
            random: of the draws.

        Raises:
            InvalidArgument: images of another size or with values outside 0..1.
        """
        values, chip = self._values(images), self.chip
        draws = self.streams * (1 if chip.shared_input else copies)
        spikes = encode(values.repeat(1, draws), ticks, chip.code, random)
        return spikes.repeat(1, 1, copies) if chip.shared_input else spikes

    def votes(
        self, images: Float[Tensor, "images *pixels"], ticks: int | None = None
    ) -> Int[Tensor, "copies ticks images classes"]:
        """Number of votes for each class, by copy and tick of the frame.

        Args:
            images: pixels in 0..1.
            ticks: of the frame; the chip's spikes per frame by default.

        Raises:
            InvalidArgument: no images, images of another size or with values outside 0..1.
        """
        values, ticks = self._values(images), ticks or self.spikes_per_frame
        grid = self.mapped.grid
        assert grid.output is not None
        bits = (ticks + self.depth) * (self.mapped.inputs.count + 5 * grid.output.lines)
        at_once = max(1, _BITS_AT_ONCE // bits)
        planes = self.simulator.planes
        if planes is not None:  # a register that is not full takes as long, and as much memory
            at_once = max(1, at_once // (8 * planes.octets)) * 8 * planes.octets
        run = self._votes if planes is None or self.chip.code is not SpikeCode.STOCHASTIC else self._votes_in_planes
        return torch.cat([run(part, ticks) for part in values.split(at_once)], 2)

    def _values(self, images: Tensor) -> Tensor:
        values = images.detach().flatten(1).float().cpu()
        if values.shape[1] != self.pixels or not len(values):
            raise InvalidArgument(f"expected at least one image of {self.pixels} pixels, got {tuple(images.shape)}")
        return values

    def _votes(self, values: Tensor, ticks: int) -> Tensor:
        spikes = self.input_spikes(values, self.mapped.copies, ticks, self._random)
        left = self.simulator.run(spikes, ticks + self.depth - 1).outputs[:, self.depth - 1 :]
        by_copy = left.unflatten(2, (self.mapped.copies, -1)).float()
        return (by_copy @ self._ballots.float()).to(torch.int32).permute(2, 1, 0, 3)

    def _votes_in_planes(self, values: Tensor, ticks: int) -> Tensor:
        """The same without a byte for each spike: drawn, run and counted as planes."""
        planes, copies = self.simulator.planes, self.mapped.copies
        assert planes is not None
        draws = self.streams * (1 if self.chip.shared_input else copies)
        drawn = random_planes(chances(values), ticks, draws, planes.vectors, torch.get_num_threads(), self._random)
        if self.chip.shared_input:
            drawn = aligned_copy(np.tile(drawn, (1, 1, copies, 1)))
        left = planes.run_planes(drawn, ticks + self.depth - 1)[:, self.depth - 1 :]
        by_copy = left.reshape(*left.shape[:2], copies, -1, left.shape[3])
        ballots = self._ballots.numpy()
        votes = [counted(by_copy[:, :, :, ballots[:, label]]) for label in range(self.classes)]
        found = np.stack(votes, -1).transpose(2, 1, 0, 3, 4).reshape(copies, ticks, -1, self.classes)
        return torch.from_numpy(found[:, :, : len(values)])

    def forward(self, images: Float[Tensor, "images *pixels"]) -> Float[Tensor, "images classes"]:
        """Scores: shares of votes over all copies and ticks, times the network's scale."""
        most = self.mapped.copies * self.spikes_per_frame * self._voters
        return (self.scale * self.votes(images).sum((0, 1)) / most).float().to(images.device)

    @property
    def _voters(self) -> Tensor:
        """Neurons of one copy that vote for each class."""
        return self._ballots.double().sum(0).clamp(min=1)

    def cost(self) -> TrueNorthCost:
        """What it takes of the chip."""
        grid = self.mapped.grid
        return TrueNorthCost(
            grid.cores,
            grid.cores / self.chip.chip_side**2,
            self.mapped.copies,
            self.spikes_per_frame,
            int(torch.count_nonzero(grid.connections)) / grid.connections.numel(),
            TICK_S * (self.spikes_per_frame + self.depth - 1),
            TICK_S * self.spikes_per_frame,
        )

    def accuracy_grid(self, batches: Iterable[tuple[Tensor, Tensor]]) -> Float[Tensor, "copies ticks"]:
        """Accuracy with the first 1, 2, ... copies and spikes per frame: the whole table of one deployment.

        Classes with equally many votes share an image: with few votes many are tied, and which class comes first in the
        alphabet would decide. A rate code has frames of its own for each number of ticks.

        Args:
            batches: of images (0..1) and labels.

        Raises:
            InvalidArgument: for no images.
        """
        right, images = torch.zeros(self.mapped.copies, self.spikes_per_frame, dtype=torch.float64), 0
        for inputs, labels in batches:
            if self.chip.code is SpikeCode.RATE:
                frames = [self.votes(inputs, ticks + 1).sum(1) for ticks in range(self.spikes_per_frame)]
                sums = torch.stack(frames, 1).cumsum(0)
            else:
                sums = self.votes(inputs).cumsum(0).cumsum(1)
            right += shared_hits(sums / self._voters, labels.cpu()).sum(2)
            images += len(labels)
        if not images:
            raise InvalidArgument("batches: expected at least one image, got none")
        return right / images


def shared_hits(
    scores: Float[Tensor, "*rest images classes"], labels: Int[Tensor, "images"]
) -> Float[Tensor, "*rest images"]:
    """1 where the label alone has the highest score, 1 / n where n classes have it and the label is among them, else 0.

    Example:
        >>> shared_hits(torch.tensor([[2.0, 1.0], [1.0, 1.0], [0.0, 1.0]]), torch.tensor([0, 0, 0])).tolist()
        [1.0, 0.5, 0.0]
    """
    best = scores == scores.max(-1, keepdim=True).values
    mine = best.gather(-1, labels.expand(best.shape[:-1])[..., None])[..., 0]
    return mine.double() / best.sum(-1)


@dataclass(frozen=True)
class TrueNorth:
    """A chip of neurosynaptic cores, and how a network is put on it.

    Attributes:
        copies: of the network, each with connections of its own.
        spikes_per_frame: ticks that an image is shown for.
        code: pixels to spikes.
        shared_input: the same input spikes for all copies; else each copy has its own.
        chip_side: cores along each side of the chip; TrueNorth has 64 x 64.
        engine: of the simulator.
        seed: of connections and input spikes; the latter are others with another engine or width of registers.
        device: of the simulator, cpu or cuda.

    Raises:
        InvalidArgument: for a value out of its range.

    Example:
        >>> from spokeshave.targets.truenorth.tea_benches import mnist_bench_1
        >>> TrueNorth(copies=2).map(mnist_bench_1(neurons=10)).cost().cores
        8
    """

    copies: int = 1
    spikes_per_frame: int = 1
    code: SpikeCode = SpikeCode.STOCHASTIC
    shared_input: bool = False
    chip_side: int = CHIP_SIDE
    engine: Engine = Engine.AUTO
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        if min(self.copies, self.spikes_per_frame, self.chip_side) < 1:
            raise InvalidArgument(
                "copies, spikes_per_frame, chip_side: expected at least 1, got "
                f"{self.copies}, {self.spikes_per_frame} and {self.chip_side}"
            )
        if self.seed < 0:
            raise InvalidArgument(f"seed: expected at least 0, got {self.seed}")

    def map(self, model: nn.Module, example: object = None) -> DeployedNetwork:
        """Draw connections and program the cores.

        Args:
            model: a `TeaNetwork`; it is not modified.
            example: not needed.

        Raises:
            UnsupportedLayer: for any other model: neurosynaptic cores hold connections that were learned for them.
            InvalidArgument: the copies do not fit the chip, the model is not finite, or there is no such device.
        """
        if not isinstance(model, TeaNetwork):
            raise UnsupportedLayer(
                f"{type(model).__name__}: neurosynaptic cores hold networks of Tea layers only; build and train a "
                "TeaNetwork (spokeshave.targets.truenorth), such as mnist_bench_1()"
            )
        usable_device(self.device)
        mapped = map_layers(model, self.copies, self.chip_side, self.seed)
        return DeployedNetwork(model, mapped, self).train(model.training)
