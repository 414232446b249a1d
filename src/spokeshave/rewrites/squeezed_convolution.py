"""Squeezed convolution: multiply only the columns of the lowered weight matrix that are not zero.

SSL (Wen et al., NIPS 2016, section 3.2 "shape-wise sparsity") zeroes the same weight (c, i, j) of every filter, which
is a zero column of the matrix W with one row a filter. With kept rows R and kept columns K:

    out[R] = W[R, K] @ patches[K] + bias[R],    out[other rows] = bias.

Departs from the paper: their code runs im2col over the kept columns; here the kept input planes are copied once and cut
into shifted windows, one a kernel position, which PyTorch does several times faster than im2col.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

SMALL_MATRIX = 16_384
CHUNK_ELEMENTS = 1_000_000


def scatter_rows(rows: Tensor, values: Tensor, bias: Tensor | None, channels: int) -> Tensor:
    """Put the computed output channels at their places; the others hold their bias.

    Args:
        rows: (kept,) places of the computed channels.
        values: (batch, kept, height, width), without bias.
        bias: (channels,) or None for zeros.
        channels: number of output channels.

    Returns:
        (batch, channels, height, width).
    """
    shape = (values.shape[0], channels, *values.shape[2:])
    scattered = values.new_zeros(shape).index_copy(1, rows, values)
    return scattered if bias is None else scattered + bias[:, None, None]


class SqueezedConv2d(nn.Module):
    """A 2-D convolution without the zero rows and columns of its lowered weight matrix.

    Args:
        layer: the convolution to squeeze, with zero padding; it is not modified.
        columns: one mask (in/groups * kh * kw,) a conv group, True where the column is kept; at least one is True.
        rows: mask (out,) of kept filters, or None for all.

    Example:
        >>> dense = nn.Conv2d(1, 1, 3)
        >>> with torch.no_grad():
        ...     _ = dense.weight.fill_(0.0), dense.bias.fill_(0.5)
        ...     dense.weight[0, 0, 1, 1] = 2.0
        >>> only_center = np.arange(9) == 4
        >>> SqueezedConv2d(dense, [only_center])(torch.ones(1, 1, 3, 3)).item()
        2.5
    """

    traced_as_leaf = True

    def __init__(
        self, layer: nn.Conv2d, columns: Sequence[NDArray[np.bool_]], rows: NDArray[np.bool_] | None = None
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels = layer.in_channels, layer.out_channels
        self.kernel_size, self.stride, self.dilation = layer.kernel_size, layer.stride, layer.dilation
        self.groups = layer.groups
        self.padding = padding_of(layer)
        weight = layer.weight.detach().reshape(layer.groups, layer.out_channels // layer.groups, -1)
        kept_rows = np.ones(layer.out_channels, dtype=bool) if rows is None else rows
        height, width = self.kernel_size
        channels_per_group = layer.in_channels // layer.groups
        planes: list[int] = []
        self.windows: list[tuple[int, int, int]] = []
        self.columns_of_group: list[int] = []
        weights: list[nn.Parameter] = []
        row_places: list[int] = []
        places: list[int] = []
        for group, mask in enumerate(columns):
            flat = np.flatnonzero(mask)
            channel, position = np.divmod(flat, height * width)
            order = np.argsort(position, kind="stable")
            flat, channel, position = flat[order], channel[order], position[order]
            own_rows = np.flatnonzero(kept_rows.reshape(layer.groups, -1)[group])
            if len(own_rows) == 0 or len(flat) == 0:
                continue
            for place in np.unique(position):
                i, j = divmod(int(place), width)
                self.windows.append((int((position == place).sum()), i, j))
            planes += (channel + group * channels_per_group).tolist()
            places += flat.tolist()
            self.columns_of_group.append(len(flat))
            row_places += (own_rows + group * weight.shape[1]).tolist()
            device = weight.device
            matrix = weight[group][torch.from_numpy(own_rows).to(device)][:, torch.from_numpy(flat).to(device)]
            weights.append(nn.Parameter(matrix.contiguous(), requires_grad=layer.weight.requires_grad))
        self.weights = nn.ParameterList(weights)
        bias = layer.bias
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone(), requires_grad=bias.requires_grad)
        device = layer.weight.device
        self.register_buffer("planes", torch.tensor(planes, device=device))
        self.register_buffer("places", torch.tensor(places, device=device))
        complete = row_places == list(range(layer.out_channels))
        self.register_buffer("rows", None if complete else torch.tensor(row_places, device=device))
        self.planes: Tensor
        self.places: Tensor
        self.rows: Tensor | None

    def extra_repr(self) -> str:
        """Sizes, for printing."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding}, groups={self.groups}, columns={sum(self.columns_of_group)}, "
            f"rows={sum(len(weight) for weight in self.weights)}"
        )

    def forward(self, input: Tensor) -> Tensor:
        """Convolve.

        Args:
            input: (batch, in, height, width).

        Returns:
            (batch, out, height', width') as the dense convolution gives.
        """
        if torch.compiler.is_exporting() or torch.compiler.is_compiling():
            return self._convolve(input)
        # windows of a whole large batch do not fit the cache; copying them through memory costs more than it saves
        images = max(1, CHUNK_ELEMENTS // (len(self.planes) * input.shape[2] * input.shape[3]))
        if images >= len(input):
            return self._convolve(input)
        return torch.cat([self._convolve(part) for part in input.split(images)])

    def _convolve(self, x: Tensor) -> Tensor:
        gathered = x.index_select(1, self.planes)
        if any(self.padding):
            gathered = F.pad(gathered, (self.padding[1], self.padding[1], self.padding[0], self.padding[0]))
        (kh, kw), (sh, sw), (dh, dw) = self.kernel_size, self.stride, self.dilation
        height = (gathered.shape[2] - dh * (kh - 1) - 1) // sh + 1
        width = (gathered.shape[3] - dw * (kw - 1) - 1) // sw + 1
        cuts = []
        start = 0
        for count, i, j in self.windows:
            top, left = i * dh, j * dw
            bottom, right = top + sh * (height - 1) + 1, left + sw * (width - 1) + 1
            cuts.append(gathered[:, start : start + count, top:bottom:sh, left:right:sw])
            start += count
        patches = torch.cat(cuts, dim=1)
        whole = self.rows is None
        pieces = patches.split(self.columns_of_group, dim=1) if len(self.weights) > 1 else [patches]
        outputs = []
        first = 0
        for weight, piece in zip(self.weights, pieces, strict=True):
            bias = self.bias[first : first + len(weight)] if whole and self.bias is not None else None
            first += len(weight)
            outputs.append(_multiply(weight, piece, bias))
        out = torch.cat(outputs, dim=1) if len(outputs) > 1 else outputs[0]
        return out if self.rows is None else scatter_rows(self.rows, out, self.bias, self.out_channels)

    def dense_weight(self) -> Tensor:
        """The weight of the equal dense convolution.

        Returns:
            (out, in/groups, kh, kw), zero where rows and columns were dropped.
        """
        per_group = self.out_channels // self.groups
        size = self.in_channels // self.groups * self.kernel_size[0] * self.kernel_size[1]
        flat = self.weights[0].new_zeros(self.out_channels, size)
        rows = torch.arange(self.out_channels, device=flat.device) if self.rows is None else self.rows
        row = column = 0
        for weight in self.weights:
            places = self.places[column : column + weight.shape[1]]
            flat[rows[row : row + len(weight), None], places[None, :]] = weight.detach()
            row, column = row + len(weight), column + weight.shape[1]
        return flat.reshape(per_group * self.groups, -1, *self.kernel_size)


def _multiply(weight: Tensor, patches: Tensor, bias: Tensor | None) -> Tensor:
    """Matrix times patches; small matrices run faster as a batched product than as a 1 x 1 convolution."""
    if weight.numel() > SMALL_MATRIX:
        return F.conv2d(patches, weight[:, :, None, None], bias)
    matrix = weight.unsqueeze(0).expand(patches.shape[0], -1, -1)
    flat = patches.flatten(2)
    product = torch.bmm(matrix, flat) if bias is None else torch.baddbmm(bias[None, :, None], matrix, flat)
    return product.unflatten(2, (patches.shape[2], patches.shape[3]))


def padding_of(layer: nn.Conv2d) -> tuple[int, int]:
    """Zero padding of a convolution in pixels (rows, columns); for 'same' the two sides must be equal.

    Args:
        layer: the convolution.

    Returns:
        padding at the top and bottom, and at the left and right.
    """
    if isinstance(layer.padding, str):
        if layer.padding == "valid":
            return (0, 0)
        vertical, horizontal = (d * (k - 1) // 2 for d, k in zip(layer.dilation, layer.kernel_size, strict=True))
        return (vertical, horizontal)
    return (int(layer.padding[0]), int(layer.padding[1]))


class CroppedConv2d(nn.Conv2d):
    """A dense convolution over fewer input channels, a smaller kernel window and fewer filters.

    Args:
        layer: the convolution to crop, with zero padding; it is not modified.
        channels: mask (in,) of input channels that are read; the same count in every conv group.
        window: (top, bottom, left, right) kept range of the kernel: rows top..bottom-1, columns left..right-1.
        rows: mask (out,) of kept filters, or None for all; only without conv groups.

    Example:
        >>> dense = nn.Conv2d(4, 2, 3, padding=1)
        >>> CroppedConv2d(dense, np.ones(4, dtype=bool), (1, 2, 1, 2)).weight.shape
        torch.Size([2, 4, 1, 1])
    """

    traced_as_leaf = True

    def __init__(
        self,
        layer: nn.Conv2d,
        channels: NDArray[np.bool_],
        window: tuple[int, int, int, int],
        rows: NDArray[np.bool_] | None = None,
    ) -> None:
        top, bottom, left, right = window
        groups = layer.groups
        keep_rows = np.ones(layer.out_channels, dtype=bool) if rows is None else rows
        with torch.random.fork_rng(devices=[]):
            super().__init__(
                int(channels.sum()),
                int(keep_rows.sum()),
                (bottom - top, right - left),
                stride=layer.stride,  # type: ignore[arg-type]
                dilation=layer.dilation,  # type: ignore[arg-type]
                groups=groups,
                bias=False,
                device=layer.weight.device,
                dtype=layer.weight.dtype,
            )
        parts = []
        for block, mask in zip(layer.weight.detach().chunk(groups), channels.reshape(groups, -1), strict=True):
            parts.append(block[:, torch.from_numpy(mask).to(block.device), top:bottom, left:right])
        weight = torch.cat(parts)[torch.from_numpy(keep_rows).to(layer.weight.device)].contiguous()
        self.weight = nn.Parameter(weight, requires_grad=layer.weight.requires_grad)
        self.total_channels = layer.out_channels
        bias = layer.bias
        if bias is not None:
            self.bias = nn.Parameter(bias.detach().clone(), requires_grad=bias.requires_grad)
        device = layer.weight.device
        selected = None if channels.all() else torch.from_numpy(np.flatnonzero(channels)).to(device)
        kept = None if keep_rows.all() else torch.from_numpy(np.flatnonzero(keep_rows)).to(device)
        self.register_buffer("channels", selected)
        self.register_buffer("rows", kept)
        self.channels: Tensor | None
        self.rows: Tensor | None
        (ph, pw), (dh, dw), (kh, kw) = padding_of(layer), layer.dilation, layer.kernel_size
        # out = conv over rows [top - p, ...): the cropped kernel sees a frame that is moved and smaller
        self.frame = (pw - left * dw, pw - (kw - right) * dw, ph - top * dh, ph - (kh - bottom) * dh)
        if self.frame[0] == self.frame[1] >= 0 and self.frame[2] == self.frame[3] >= 0:
            self.padding = (self.frame[2], self.frame[0])
            self.frame = (0, 0, 0, 0)
        self._reversed_padding_repeated_twice = [self.padding[1]] * 2 + [self.padding[0]] * 2  # type: ignore[list-item]

    def forward(self, input: Tensor) -> Tensor:
        """Convolve.

        Args:
            input: (batch, in, height, width).

        Returns:
            (batch, out, height', width') as the dense convolution gives.
        """
        x = input if self.channels is None else input.index_select(1, self.channels)
        if any(self.frame):
            x = F.pad(x, self.frame)
        if self.rows is None:
            return self._conv_forward(x, self.weight, self.bias)
        return scatter_rows(self.rows, self._conv_forward(x, self.weight, None), self.bias, self.total_channels)
