"""Constant input: a convolution that remembers a removed constant channel.

A removed channel that always held the number c added c * W to every output position. Without zero padding that is one
number, and goes into the bias. With zero padding the positions near the border miss some taps: out = conv(x) + K * 1,
where 1 is a plane of ones as large as the input and K = sum over removed channels of c * W. It is exact at every size.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
_OPERATIONS = {
    nn.Conv1d: F.conv1d,
    nn.Conv2d: F.conv2d,
    nn.Conv3d: F.conv3d,
    nn.ConvTranspose1d: F.conv_transpose1d,
    nn.ConvTranspose2d: F.conv_transpose2d,
    nn.ConvTranspose3d: F.conv_transpose3d,
}


class ConstantInput(nn.Module):
    """A convolution plus what one constant input channel adds to it.

    The kernel is not trained, so what it adds is computed once for the usual input size; the bias of the layer trains.

    Args:
        layer: the convolution that is left; it carries the bias.
        kernel: what a plane of ones adds, (out, 1, *kernel_size), or (1, out, *kernel_size) when transposed.
        size: spatial size of the usual input, whose sum is stored; others are computed when they come.

    Example:
        >>> layer = nn.Conv2d(1, 1, 3, padding=1, bias=False)
        >>> _ = nn.init.zeros_(layer.weight)
        >>> ConstantInput(layer, torch.ones(1, 1, 3, 3), (3, 3))(torch.zeros(1, 1, 3, 3))[0, 0, 0].tolist()
        [4.0, 6.0, 4.0]
    """

    traced_as_leaf = True

    def __init__(self, layer: Convolution, kernel: Tensor, size: tuple[int, ...]) -> None:
        super().__init__()
        self.layer = layer
        self.size = tuple(size)
        self.kind = next(kind for kind in _OPERATIONS if isinstance(layer, kind))
        self.geometry: dict[str, Any] = {
            "stride": layer.stride,
            "padding": layer.padding,
            "dilation": layer.dilation,
        }
        if isinstance(layer, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
            self.geometry["output_padding"] = layer.output_padding
        self.register_buffer("kernel", kernel)
        self.register_buffer("usual", self._spread(kernel.new_ones((1, 1, *size))))
        self.kernel: Tensor
        self.usual: Tensor

    def _spread(self, ones: Tensor) -> Tensor:
        return _OPERATIONS[self.kind](ones, self.kernel, **self.geometry)

    def forward(self, input: Tensor) -> Tensor:
        """Convolve and add the constant.

        Args:
            input: (batch, channels, *spatial).

        Returns:
            (batch, out, *spatial).
        """
        # an exported graph must hold for every size, so it computes the sum
        if not torch.compiler.is_exporting() and tuple(input.shape[2:]) == self.size:
            return self.layer(input) + self.usual
        return self.layer(input) + self._spread(input.new_ones((1, 1, *input.shape[2:])))


class PositionBias(nn.Module):
    """A layer plus a stored map: what removed channels sent that were constant, but not the same at every position.

    It is used where the network runs at one input size only.

    Args:
        layer: the convolution or linear layer that is left; it carries the bias.
        bias_map: what to add, (1, *shape of one output).

    Example:
        >>> PositionBias(nn.Identity(), torch.ones(1, 2, 2))(torch.zeros(3, 2, 2)).sum().item()
        12.0
    """

    traced_as_leaf = True

    def __init__(self, layer: nn.Module, bias_map: Tensor) -> None:
        super().__init__()
        self.layer = layer
        self.register_buffer("bias_map", bias_map)
        self.bias_map: Tensor

    def forward(self, input: Tensor) -> Tensor:
        """Apply the layer and add the map.

        Args:
            input: of the layer.

        Returns:
            output of the layer, of the map's shape.

        Raises:
            RuntimeError: the input has another height or width than the one the map was made for.
        """
        out = self.layer(input)
        torch._check(
            out.shape[1:] == self.bias_map.shape[1:],
            lambda: (
                f"expected a layer output of shape {tuple(self.bias_map.shape[1:])}, got {tuple(out.shape[1:])}: "
                "removed constant channels are stored for the size of the example; shrink the model again at this size"
            ),
        )
        return out + self.bias_map
