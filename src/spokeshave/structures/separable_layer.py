"""Separable layer: columns of weights, then rows of weights, in place of one 2-D convolution.

Tai et al., Convolutional Neural Networks with Low-Rank Regularization, ICLR 2016, section 3, with the scale shared as
in the code of Wen et al., ICCV 2017: with W = U S V^T of the (C k) x (k N) matrix, the K vertical filters are
v = U sqrt(S), k x 1, and the horizontal ones h = sqrt(S) V^T, 1 x k; strides and paddings go to the axis they are of.
Departs from the papers: groups, dilation and other paddings than zeros are kept too.
"""

from collections import OrderedDict
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from spokeshave.errors import InvalidArgument
from spokeshave.structures.factorization import Basis, factorize
from spokeshave.structures.layer_spectrum import Split, split_matrices


class SeparableLayer(nn.Sequential):
    """Two convolutions in place of one: `vertical`, then `horizontal`.

    Args:
        vertical: kernel k x 1, no bias; its outputs are the K filters of all groups.
        horizontal: kernel 1 x k, with as many groups; holds the bias.
    """

    vertical: nn.Module
    horizontal: nn.Module

    def __init__(self, vertical: nn.Module, horizontal: nn.Module) -> None:
        super().__init__(OrderedDict(vertical=vertical, horizontal=horizontal))

    @staticmethod
    def of(layer: str, module: nn.Conv2d, rank: int) -> "SeparableLayer":
        """Split a convolution.

        Args:
            layer: its name, for errors.
            module: with more than one row and column; left as it is.
            rank: vertical filters of each group, 1..min(channels * rows, columns * filters) of a group.

        Raises:
            UnsupportedLayer: for another module.
            InvalidArgument: for a rank out of its range, or weights that are not finite.

        Example:
            >>> box = nn.Conv2d(1, 1, 3, bias=False)
            >>> _ = box.weight.data.fill_(2.0)
            >>> SeparableLayer.of("box", box, 1)(torch.ones(1, 1, 3, 3)).round(decimals=4).item()
            18.0
        """
        matrices = split_matrices(layer, module, Split.SEPARABLE)
        groups, rows, columns = matrices.shape
        if not 1 <= rank <= min(rows, columns):
            raise InvalidArgument(f"{layer}: rank: expected 1..{min(rows, columns)}, got {rank}")
        try:
            pairs = [factorize(matrix, rank, Basis.SVD) for matrix in matrices]
        except InvalidArgument as error:
            raise InvalidArgument(f"{layer}: {error}") from error
        width = module.kernel_size[1]
        vertical, horizontal = _pair(module, rank * groups)
        columns_of = torch.stack([combinations for _, combinations in pairs])  # groups, channels * height, rank
        rows_of = torch.stack([found for found, _ in pairs])  # groups, rank, width * filters
        with torch.no_grad():
            vertical.weight.copy_(columns_of.transpose(1, 2).reshape(vertical.weight.shape))
            taps = rows_of.reshape(groups, rank, width, -1).permute(0, 3, 1, 2)
            horizontal.weight.copy_(taps.reshape(horizontal.weight.shape))
            if module.bias is not None and horizontal.bias is not None:
                horizontal.bias.copy_(module.bias)
                horizontal.bias.requires_grad_(module.bias.requires_grad)
        for part in (vertical, horizontal):
            part.weight.requires_grad_(module.weight.requires_grad)
        return SeparableLayer(vertical, horizontal).train(module.training)

    @property
    def rank(self) -> int:
        """Vertical filters of each group."""
        return self.horizontal.get_parameter("weight").shape[1]

    @torch.no_grad()
    def product(self, dtype: torch.dtype | None = None) -> Float[Tensor, "filters channels height width"]:
        """The weight that both stand for, of the shape of the convolution that was split.

        Args:
            dtype: to multiply in; that of the factors if none.
        """
        weights = (part.get_parameter("weight") for part in (self.vertical, self.horizontal))
        vertical, horizontal = (weight.to(dtype or weight.dtype) for weight in weights)
        groups = vertical.shape[0] // self.rank
        columns = vertical[..., 0].unflatten(0, (groups, -1))  # groups, rank, channels, height
        rows = horizontal[:, :, 0].unflatten(0, (groups, -1))  # groups, filters, rank, width
        return torch.einsum("gkch,gnkw->gnchw", columns, rows).flatten(0, 1)


def _pair(module: nn.Conv2d, width: int) -> tuple[nn.Conv2d, nn.Conv2d]:
    place: dict[str, Any] = {"device": module.weight.device, "dtype": module.weight.dtype}
    place |= {"groups": module.groups, "padding_mode": module.padding_mode}
    padding = module.padding
    settings: list[dict[str, Any]] = []
    for axis in (0, 1):
        # torch takes sizes of both axes: this one's own, and of the other a step of 1 and no border.
        own = [tuple(value if a == axis else rest for a, value in enumerate(values)) for values, rest in (
            (module.kernel_size, 1), (module.stride, 1), (module.dilation, 1),
            ((0, 0) if isinstance(padding, str) else padding, 0),
        )]  # fmt: skip
        settings.append(dict(zip(("kernel_size", "stride", "dilation", "padding"), own, strict=True)))
        if isinstance(padding, str):
            settings[-1]["padding"] = padding
    empty = nn.utils.skip_init
    first = empty(nn.Conv2d, module.in_channels, width, bias=False, **settings[0], **place)
    second = empty(nn.Conv2d, width, module.out_channels, bias=module.bias is not None, **settings[1], **place)
    assert isinstance(first, nn.Conv2d) and isinstance(second, nn.Conv2d)
    return first, second
