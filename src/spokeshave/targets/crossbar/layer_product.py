"""Layer product: how a convolution or linear layer multiplies, natively and lowered to tile inputs (im2col).

Lowered, an output of group g is sum_t W[g, t, o] x[g, t, n]: t is a tap (channel, row, column) as in
`crossbar_matrices`, n a position (place, image). The image is innermost, so that lowering copies long runs.
Departs from the paper: nothing known.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from spokeshave.errors import InvalidArgument, UnsupportedLayer
from spokeshave.structures.tiles import CONVOLUTIONS

_CONVOLVE = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


@dataclass(frozen=True)
class LayerProduct:
    """The geometry of a layer; everything but its numbers.

    Attributes:
        weight_shape: of the layer's weight: outputs, inputs of a group, kernel; two numbers for a linear layer.
        groups: convolution groups, 1 for a linear layer.
        stride: one number a kernel axis.
        dilation: likewise.
        pads: cells added before and after each kernel axis, the last axis first, as `torch.nn.functional.pad` wants.
        padding_mode: one of torch's: zeros, reflect, replicate, circular.

    Raises:
        InvalidArgument: where the numbers do not belong together.
    """

    weight_shape: tuple[int, ...]
    groups: int = 1
    stride: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    padding_mode: str = "zeros"

    def __post_init__(self) -> None:
        axes = self.axes
        lengths = (len(self.stride), len(self.dilation), len(self.pads)) == (axes, axes, 2 * axes)
        positive = min(*self.weight_shape, self.groups, *self.stride, *self.dilation, 1) >= 1
        if not (0 <= axes <= 3 and lengths and positive and min(*self.pads, 0, 0) >= 0):
            raise InvalidArgument(f"the numbers of this layer do not belong together: {self}")
        if self.weight_shape[0] % self.groups or self.padding_mode not in PADDING_MODES:
            raise InvalidArgument(f"groups must divide the outputs, padding be one of {PADDING_MODES}: {self}")

    @staticmethod
    def of(layer: str, module: nn.Module) -> "LayerProduct":
        """The geometry of a module.

        Args:
            layer: its name, for the error.
            module: a convolution (not transposed) or a linear layer.

        Raises:
            UnsupportedLayer: for another module.
        """
        if isinstance(module, nn.Linear):
            return LayerProduct((module.out_features, module.in_features))
        if not isinstance(module, CONVOLUTIONS):
            raise UnsupportedLayer(f"{layer} ({type(module).__name__}): crossbars hold convolutions and linear layers")
        if module.padding == "valid":
            pads = (0,) * (2 * len(module.kernel_size))
        elif module.padding == "same":
            rims = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
            pads = tuple(side for rim in reversed(rims) for side in (rim // 2, rim - rim // 2))
        else:
            pads = tuple(int(side) for side in reversed(module.padding) for _ in range(2))
        shape = (module.out_channels, module.in_channels // module.groups, *module.kernel_size)
        return LayerProduct(shape, module.groups, module.stride, module.dilation, pads, module.padding_mode)

    @property
    def axes(self) -> int:
        """Axes of the kernel: 0 for a linear layer."""
        return len(self.weight_shape) - 2

    @property
    def kind(self) -> str:
        """Its name in torch."""
        return f"Conv{self.axes}d" if self.axes else "Linear"

    @property
    def inputs(self) -> int:
        """Rows of a group's crossbar matrix."""
        return math.prod(self.weight_shape[1:])

    @property
    def outputs(self) -> int:
        """Columns of it."""
        return self.weight_shape[0] // self.groups

    def places(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Output places along each kernel axis, for an input of a shape (channels and places, without the batch)."""
        rims = [before + after for before, after in zip(self.pads[::2], self.pads[1::2], strict=True)][::-1]
        reaches = [d * (k - 1) + 1 for d, k in zip(self.dilation, self.weight_shape[2:], strict=True)]
        return tuple(
            (length + rim - reach) // stride + 1
            for length, rim, reach, stride in zip(
                shape[1:] if self.axes else (), rims, reaches, self.stride, strict=True
            )
        )

    def native(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The layer's output by torch's own operation.

        Args:
            x: input as the layer takes it.
            weight: of `weight_shape`.
            bias: one an output, or None.
        """
        if not self.axes:
            return functional.linear(x, weight, bias)
        before, after = self.pads[::2], self.pads[1::2]
        settings: dict[str, Any] = {"stride": self.stride, "dilation": self.dilation, "groups": self.groups}
        if self.padding_mode == "zeros" and before == after:
            return _CONVOLVE[self.axes](x, weight, bias, padding=before[::-1], **settings)
        return _CONVOLVE[self.axes](self._padded(x), weight, bias, **settings)

    def lower(self, x: Tensor, rows: int) -> tuple[Float[Tensor, "groups rows positions"], tuple[int, ...]]:
        """Lay the input out as what the crossbars' input wires see.

        Args:
            x: input as the layer takes it.
            rows: input wires of all tiles together, at least `inputs`; those too many stay 0.

        Returns:
            the values of the wires at every position, and what `lift` needs to know.
        """
        if not self.axes:
            flat = x.reshape(-1, x.shape[-1])
            padded = functional.pad(flat, (0, rows - self.inputs)) if rows > self.inputs else flat
            return padded.T.unsqueeze(0), tuple(x.shape[:-1])
        images = self._padded(x if x.dim() == self.axes + 2 else x.unsqueeze(0))
        # Channels, places, image: with the image innermost, a row of output places is one run in memory.
        windows = images.movedim(0, -1).contiguous()
        for axis in range(self.axes):
            reach = self.dilation[axis] * (self.weight_shape[2 + axis] - 1) + 1
            windows = windows.unfold(1 + axis, reach, self.stride[axis])[..., :: self.dilation[axis]]
        # now: channel, places, image, kernel
        kernel = range(2 + self.axes, 2 + 2 * self.axes)
        windows = windows.permute(0, *kernel, *range(1, 2 + self.axes))
        places = tuple(windows.shape[1 + self.axes :])
        channels = self.weight_shape[1]
        wires = windows.new_empty(self.groups, rows, *places)
        wires[:, self.inputs :].zero_()
        shaped = wires[:, : self.inputs].unflatten(1, (channels, *self.weight_shape[2:]))
        shaped.copy_(windows.unflatten(0, (self.groups, channels)))
        return wires.flatten(2), (*places, *((0,) if x.dim() == self.axes + 1 else ()))

    def lift(self, sums: Float[Tensor, "groups outputs positions"], places: tuple[int, ...]) -> Tensor:
        """Give lowered outputs the shape of the layer's output; the opposite of `lower`.

        Args:
            sums: outputs of every group at every position.
            places: as `lower` gave them.
        """
        if not self.axes:
            return sums.squeeze(0).T.reshape(*places, self.weight_shape[0])
        shaped = sums.reshape(self.weight_shape[0], *places[: self.axes + 1]).movedim(-1, 0)
        return shaped.squeeze(0) if len(places) > self.axes + 1 else shaped.contiguous()

    def _padded(self, x: Tensor) -> Tensor:
        if not any(self.pads):
            return x
        mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
        return functional.pad(x, self.pads, mode=mode)


def bias_shape(product: LayerProduct) -> tuple[int, ...]:
    """Shape in which one number an output is added to a layer's output."""
    return (-1, *(1,) * product.axes)


def matrices_of(product: LayerProduct, weight: Tensor) -> Float[Tensor, "groups inputs outputs"]:
    """A weight as one matrix a group, as `crossbar_matrices` has it of a module."""
    return weight.reshape(product.groups, product.outputs, product.inputs).transpose(1, 2)


def weight_of(product: LayerProduct, matrices: Float[Tensor, "groups inputs outputs"]) -> Tensor:
    """The opposite of `matrices_of`."""
    return torch.reshape(matrices.transpose(1, 2), product.weight_shape)


def plain_layer(product: LayerProduct, weight: Tensor, bias: Tensor | None = None) -> nn.Module:
    """An ordinary layer of this geometry.

    Args:
        product: the geometry.
        weight: of its shape.
        bias: one an output, or None.

    Raises:
        UnsupportedLayer: for padding that differs between the sides, which torch's layers cannot be told in numbers.
    """
    outputs, inputs, *kernel = product.weight_shape
    if not product.axes:
        made: nn.Module = nn.Linear(inputs, outputs, device="meta")
    elif product.pads[::2] != product.pads[1::2]:
        raise UnsupportedLayer(f"expected the same padding on both sides, got {product.pads}")
    else:
        settings: dict[str, Any] = {
            "kernel_size": tuple(kernel), "stride": product.stride, "padding": product.pads[::2][::-1],
            "dilation": product.dilation, "groups": product.groups, "padding_mode": product.padding_mode,
        }  # fmt: skip
        made = CONVOLUTIONS[product.axes - 1](inputs * product.groups, outputs, device="meta", **settings)
    made.weight = nn.Parameter(weight)
    made.register_parameter("bias", None if bias is None else nn.Parameter(bias.detach().clone()))
    return made
