"""Crossbar layer: one convolution or linear layer as pairs of crossbars, all tiles of it in one batched product.

Output o of a layer: y = bias + sum over tiles ADC( sum over wires i of scale (g+[i, o] - g-[i, o]) DAC(x[i]) ).
Without ADC the sum over tiles is one product of the whole matrix, run by torch's own convolution; with one, tiles are
a batch of matrix products. Wire resistance, to first order, weakens a cell with its distance along both its wires:
g / (1 + g R (i + j)), where i pieces of wire lie between it and the driver, j between it and the sense amplifier.
Departs from the paper: it simulates nothing; biases are digital here, and the exact solution of the wires' network
(all currents share the wires' voltage drop) is not computed.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from spokeshave.structures.tiles import TileGrid
from spokeshave.targets.crossbar.converters import Converters, Range, Readout, convert, largest, steps_of
from spokeshave.targets.crossbar.layer_product import LayerProduct, bias_shape, weight_of
from spokeshave.targets.crossbar.memristor import Memristor, seeded

_BLOCK_NUMBERS = 1 << 18
"""Numbers that a block of images may take between the steps: a megabyte of float32, which the caches hold."""

Tiles = Float[Tensor, "groups rows columns tile_inputs tile_outputs"]


@dataclass(frozen=True)
class _Kept:
    """What was computed from conductances in a state; it holds them, so that no others get their address."""

    state: tuple[object, ...]
    sources: tuple[Tensor, ...]
    weight: Tensor
    sigma: Tensor | None


class CrossbarLayer(nn.Module):
    """A layer whose weights are conductances.

    Gradients reach the inputs, the bias and both conductances; converters pass them straight through where nothing is
    cut off. Levels and variation act when a network is mapped, not afterwards. After writing to `g_plus.data` or
    `g_minus.data`, call `forget_products`: torch does not count such a change. Nor does it count steps of fused
    optimizers, but what they change has a gradient, so that nothing is kept. Every other change is noticed.

    Args:
        product: geometry of the layer.
        grid: how one group's matrix is cut.
        g_plus: conductances of the positive crossbars, in units of the device's `g_max_s`; 0 where a tile has no cell.
        g_minus: of the negative ones.
        scale: weight of a difference of g_max.
        bias: one an output, or None; digital.
        used: cells whose weight, as it was asked for, is not zero; they are what wires are needed for.
        device: kind of memristor.
        converters: of every tile.
        wire_resistance_ohm: of the piece of wire between neighbouring cells.
        seed: of the read noise.
        name: of the layer, which the read noise depends on too.
    """

    def __init__(
        self,
        product: LayerProduct,
        grid: TileGrid,
        g_plus: Tiles,
        g_minus: Tiles,
        scale: float,
        bias: Tensor | None,
        *,
        used: Bool[Tensor, "groups rows columns tile_inputs tile_outputs"],
        device: Memristor,
        converters: Converters,
        wire_resistance_ohm: float = 0.0,
        seed: int = 0,
        name: str = "",
    ) -> None:
        super().__init__()
        self.product, self.grid = product, grid
        self.device, self.converters, self.wire_resistance_ohm = device, converters, wire_resistance_ohm
        self.seed, self.name = seed, name
        self.calls = 0
        """Calls with read noise so far; the noise of a call depends on seed, name and this number alone."""
        self.g_plus, self.g_minus = nn.Parameter(g_plus), nn.Parameter(g_minus)
        self.bias = None if bias is None else nn.Parameter(bias)
        self.register_buffer("scale", g_plus.new_tensor(scale))
        self.register_buffer("input_range", g_plus.new_zeros(()))
        self.register_buffer("tile_range", g_plus.new_zeros(()))
        self.register_buffer("used", used)
        self._calibrating = False
        self._kept: _Kept | None = None

    scale: Tensor
    used: Tensor
    input_range: Tensor
    """Largest input that the DAC converts, where it was calibrated; in units of the inputs."""
    tile_range: Tensor
    """Largest sum of a tile that the ADC converts, where it was calibrated; in units of the outputs."""

    @property
    def crossbars(self) -> int:
        """Number of crossbars: two a tile, for both signs."""
        return 2 * self.product.groups * self.grid.rows * self.grid.columns

    @property
    def weight(self) -> Tensor:
        """What the crossbars multiply by without read noise, in the shape of the layer's weight."""
        plus, minus = self._cells()
        return self._folded(self.scale * (plus - minus))

    def forget_products(self) -> None:
        """Drop what was computed from the conductances, after they were changed through `.data`."""
        self._kept = None

    @contextmanager
    def calibrating(self) -> Iterator[None]:
        """Within, calls set both ranges to the largest magnitudes seen; ADC and read noise are off.

        Where an exception leaves it, both ranges are as they were.
        """
        before = self.input_range.clone(), self.tile_range.clone()
        self.input_range.zero_()
        self.tile_range.zero_()
        self._calibrating = True
        try:
            yield
        except BaseException:
            self.input_range.copy_(before[0])
            self.tile_range.copy_(before[1])
            raise
        finally:
            self._calibrating = False

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output.

        Args:
            x: input as the layer that was mapped takes it.
        """
        if self._calibrating:
            self.input_range.copy_(torch.maximum(self.input_range, largest(x)))
        converters = self.converters
        if converters.dac_bits is not None:
            x = convert(x, converters.dac_bits, self._limit(self.input_range, x))
        split = converters.adc_bits is not None
        batched = split and (self.grid.rows > 1 or converters.readout is Readout.EACH)
        weight = self._noisy(*self._products(batched))
        if batched:
            return self._tile_sums(x, weight)
        if not split:
            return self.product.native(x, weight, self.bias)
        if self._runs_in_place(x):
            weight, size, steps = self._in_steps(weight)
            return self._with_bias_(self.product.native(x, weight, None).round_().clamp_(-steps, steps).mul_(size))
        sums = self._converted(self.product.native(x, weight, None))
        return sums if self.bias is None else sums + self.bias.view(bias_shape(self.product))

    def _tile_sums(self, x: Tensor, weight: Float[Tensor, "group_rows outputs tile_inputs"]) -> Tensor:
        """The definition: lower, multiply all tiles at once, convert, add."""
        if self._runs_in_place(x) and x.dim() == self.product.axes + 2 and x.shape[0]:
            return self._tile_sums_in_blocks(x, weight)
        wires, places = self.product.lower(x, self.grid.rows * self.grid.tile_inputs)
        sums = self._converted(torch.bmm(weight, self._by_tile(wires)))
        sums = self._difference(sums.unflatten(0, (self.product.groups, self.grid.rows)).sum(1))
        sums = self.product.lift(sums, places)
        return sums if self.bias is None else sums + self.bias.view(bias_shape(self.product))

    def _runs_in_place(self, x: Tensor) -> bool:
        """Whether the range of the ADC is known beforehand, and nothing is differentiated."""
        known = self.converters.range is Range.CALIBRATED and not self._calibrating
        return known and not (torch.is_grad_enabled() and any(t.requires_grad for t in (x, *self.parameters())))

    def _in_steps(self, weight: Tensor) -> tuple[Tensor, float, int]:
        """Weights in steps of the ADC, the size of a step, and the number of them on each side."""
        assert self.converters.adc_bits is not None
        steps = steps_of(self.converters.adc_bits)
        size = float(self.tile_range) / steps
        return weight / size if size else torch.zeros_like(weight), size, steps

    def _with_bias_(self, outputs: Tensor) -> Tensor:
        return outputs if self.bias is None else outputs.add_(self.bias.view(bias_shape(self.product)))

    def _tile_sums_in_blocks(self, x: Tensor, weight: Float[Tensor, "group_rows outputs tile_inputs"]) -> Tensor:
        """The same, a few images at a time, so that what lies between the steps stays in the cache."""
        wires = self.grid.rows * self.grid.tile_inputs * self.product.groups
        outputs = weight.shape[0] * weight.shape[1]
        images = max(1, _BLOCK_NUMBERS // max(1, (wires + outputs) * math.prod(self.product.places(x.shape[1:]))))
        weight, size, steps = self._in_steps(weight)
        made = []
        sums = None
        for block in x.split(images):
            lowered, places = self.product.lower(block, self.grid.rows * self.grid.tile_inputs)
            tiles = self._by_tile(lowered)
            if sums is None or sums.shape[-1] != tiles.shape[-1]:
                sums = tiles.new_empty(*weight.shape[:2], tiles.shape[-1])
            torch.bmm(weight, tiles, out=sums).round_().clamp_(-steps, steps)
            added = self._difference(sums.unflatten(0, (self.product.groups, self.grid.rows)).sum(1))
            made.append(self.product.lift(added.mul_(size), places))
        return self._with_bias_(made[0] if len(made) == 1 else torch.cat(made))

    def _by_tile(self, wires: Float[Tensor, "groups rows positions"]) -> Tensor:
        return wires.unflatten(1, (self.grid.rows, self.grid.tile_inputs)).flatten(0, 1)

    def _difference(self, sums: Float[Tensor, "groups outputs positions"]) -> Tensor:
        if self.converters.readout is Readout.PAIR:
            return sums
        plus, minus = sums.chunk(2, 1)
        return plus - minus

    def _converted(self, sums: Tensor) -> Tensor:
        """What the ADCs make of the sums of tiles."""
        if self._calibrating:
            self.tile_range.copy_(torch.maximum(self.tile_range, largest(sums)))
            return sums
        assert self.converters.adc_bits is not None
        return convert(sums, self.converters.adc_bits, self._limit(self.tile_range, sums))

    def _limit(self, calibrated: Tensor, values: Tensor) -> Tensor:
        return largest(values) if self.converters.range is Range.PER_CALL else calibrated

    def _noisy(self, weight: Tensor, sigma: Tensor | None) -> Tensor:
        if sigma is None or self._calibrating:
            return weight
        generator = seeded(self.seed, "read", self.name, self.calls)
        self.calls += 1
        noise = torch.randn(weight.shape, generator=generator, dtype=weight.dtype).to(weight.device)
        return torch.addcmul(weight, noise, sigma, out=None if weight.requires_grad else noise)

    def _products(self, batched: bool) -> tuple[Tensor, Tensor | None]:
        """Weights to multiply by, and the standard deviation of their read noise; kept while nothing changes."""
        learns = torch.is_grad_enabled() and (self.g_plus.requires_grad or self.g_minus.requires_grad)
        sources = (self.g_plus, self.g_minus, self.scale)
        # Torch does not say when these change: a fused optimizer, which acts on gradients, and inference tensors.
        if learns or any(source.is_inference() or source.grad is not None for source in sources):
            self._kept = None
            return self._computed(batched)
        state = (batched, *((source.data_ptr(), source._version, source.dtype) for source in sources))
        if self._kept is None or self._kept.state != state:
            # Not as inference tensors, which a later call could not differentiate through.
            with torch.inference_mode(False), torch.no_grad():
                kept = tuple(source.detach() for source in sources)
                self._kept = _Kept(state, kept, *self._computed(batched))
        return self._kept.weight, self._kept.sigma

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept": None}

    def _computed(self, batched: bool) -> tuple[Tensor, Tensor | None]:
        plus, minus = self._cells()
        noise = self.device.read_noise
        arrange = self._stacked if batched else self._folded
        if batched and self.converters.readout is Readout.EACH:
            both = self.scale * torch.cat([arrange(plus), arrange(minus)], 1)
            return both, noise * both.detach() if noise else None
        # Two independent normal errors of a pair are one normal error of their difference.
        sigma = arrange(noise * self.scale * torch.hypot(plus, minus).detach()) if noise else None
        return arrange(self.scale * (plus - minus)), sigma

    def _folded(self, tiles: Tiles) -> Tensor:
        return weight_of(self.product, self.grid.join(tiles)).contiguous()

    def _stacked(self, tiles: Tiles) -> Float[Tensor, "group_rows outputs tile_inputs"]:
        """Tiles below one another in their batch; those side by side have the same inputs, so they are one matrix."""
        groups, rows, columns, height, width = tiles.shape
        stacked = tiles.permute(0, 1, 2, 4, 3).reshape(groups * rows, columns * width, height)
        return stacked[:, : self.grid.outputs].contiguous()

    def _cells(self) -> tuple[Tiles, Tiles]:
        """Conductances as the wires let them appear."""
        if not self.wire_resistance_ohm:
            return self.g_plus, self.g_minus
        loss = self.device.g_max_s * self.wire_resistance_ohm * wire_distances(self.grid).to(self.g_plus)
        return self.g_plus / (1 + self.g_plus * loss), self.g_minus / (1 + self.g_minus * loss)

    def extra_repr(self) -> str:
        """Size and tiles, for printing."""
        grid = self.grid
        return (
            f"{self.product.kind}, {self.product.groups} x {grid.inputs} x {grid.outputs} weights, "
            f"{grid.rows} x {grid.columns} tiles of {grid.tile_inputs} x {grid.tile_outputs}"
        )


def wire_distances(grid: TileGrid) -> Int64[Tensor, "tile_inputs tile_outputs"]:
    """Pieces of wire between each cell of a tile and its driver and sense amplifier, together.

    The driver stands before the first output wire, the amplifier below the last input wire.

    Example:
        >>> wire_distances(TileGrid(3, 2, 3, 2))
        tensor([[4, 5],
                [3, 4],
                [2, 3]])
    """
    along_input = torch.arange(1, grid.tile_outputs + 1)
    along_output = torch.arange(grid.tile_inputs, 0, -1)
    return along_output.unsqueeze(1) + along_input
