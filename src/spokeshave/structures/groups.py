"""Groups of weights: a weight cut into filters, channels, filter shapes, kernels, layers or tiles, and written back.

Structured Sparsity Learning (Wen et al., NIPS 2016, section 3): the weight of a convolution is
W in R^(N x C x M x K) (filter, channel, kernel height, kernel width), and a group is

    filter  W[n,:,:,:]    channel W[:,c,:,:]    shape W[:,c,m,k]    kernel W[n,c,:,:]    layer W

A shape is a column of the lowered N x (C*M*K) matrix, a filter is a row of it. Inside a grouped convolution the groups
are taken in each convolution group on its own. Group Scissor (Wang et al., DAC 2017, section 3.2) adds rows and columns
of crossbar tiles: the transposed matrix, inputs C*M*K x outputs N, cut into tiles (`structures/tiles.py`).
Departs from the paper: tiles at the edge of a matrix may be smaller (the authors' code wants sizes that divide).
"""

from dataclasses import dataclass
from enum import Enum
from math import prod

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from spokeshave.errors import InvalidArgument, UnsupportedLayer

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class GroupKind(Enum):
    """What a group of weights is; the value is the plural that arguments and tables use."""

    FILTER = "filters"
    CHANNEL = "channels"
    SHAPE = "shapes"
    KERNEL = "kernels"
    LAYER = "depth"
    TILE = "tiles"
    TILE_ROW = "tile_rows"
    """An input wire: one input of one crossbar tile, to all outputs of the tile."""
    TILE_COLUMN = "tile_columns"
    """An output wire: one output of one crossbar tile, from all inputs of the tile."""


TILED = (GroupKind.TILE, GroupKind.TILE_ROW, GroupKind.TILE_COLUMN)
"""Kinds that need the size of a tile."""


# Axes of the canonical view (convolution group, output, input, kernel position) that a group runs along.
_SUMMED_AXES = {
    GroupKind.FILTER: (2, 3),
    GroupKind.CHANNEL: (1, 3),
    GroupKind.SHAPE: (1,),
    GroupKind.KERNEL: (3,),
    GroupKind.LAYER: (0, 1, 2, 3),
}


def plain_weight(layer: str, module: nn.Module) -> nn.Parameter:
    """The weight of a layer as a parameter that a regularizer may write to.

    Args:
        layer: its name in the model, for the error.
        module: a convolution or a linear layer.

    Raises:
        UnsupportedLayer: where the weight is computed from other parameters (weight_norm, spectral_norm, a mask).
    """
    weight = module._parameters.get("weight")
    if weight is None:
        raise UnsupportedLayer(
            f"{layer} ({type(module).__name__}): its weight is computed by a parametrization (weight_norm, "
            "spectral_norm, pruning masks), so nothing can be pulled to zero in it; leave it out with "
            f"exclude=({layer!r},), or remove the parametrization first"
        )
    return weight


@dataclass(frozen=True)
class Grouping:
    """How one weight is cut into groups.

    Attributes:
        shape: of the weight, as its module holds it.
        kind: what a group is.
        conv_groups: `groups` of the convolution, 1 for a linear layer.
        transposed: true for a transposed convolution, whose weight is (inputs, outputs / groups, *kernel).
        tile: rows and columns of a tile: of the lowered matrix (outputs, inputs) for `GroupKind.TILE`, of the crossbar
            matrix (inputs, outputs) for `TILE_ROW` and `TILE_COLUMN`; None for other kinds. Tiles of `TILE` run across
            convolution groups, those of crossbars lie in one.

    Raises:
        InvalidArgument: where the shape does not divide into `conv_groups`, or a tile size is missing or below 1.

    Example:
        >>> Grouping((4, 2, 3, 3), GroupKind.FILTER).sizes().tolist()
        [18, 18, 18, 18]
    """

    shape: tuple[int, ...]
    kind: GroupKind
    conv_groups: int = 1
    transposed: bool = False
    tile: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if len(self.shape) < 2 or self.conv_groups < 1 or self.shape[0] % self.conv_groups:
            raise InvalidArgument(
                f"a weight of at least 2 dimensions, the first divisible by conv_groups, is expected; "
                f"got shape {self.shape} with conv_groups={self.conv_groups}"
            )
        if (self.kind in TILED) != (self.tile is not None):
            raise InvalidArgument(
                f"tile=(rows, columns) goes with {', '.join(map(str, TILED))} only, got {self.kind} and {self.tile}"
            )
        if self.tile is not None and min(self.tile) < 1:
            raise InvalidArgument(f"tile sizes must be at least 1, got {self.tile}")

    @staticmethod
    def of(module: nn.Module, kind: GroupKind, tile: tuple[int, int] | None = None) -> "Grouping":
        """Cut the weight of a convolution or a linear layer.

        Args:
            module: any of `CONVOLUTIONS`, or `nn.Linear`.
            kind: what a group is.
            tile: rows and columns of a tile, for the kinds in `TILED`.

        Raises:
            InvalidArgument: for another module.
        """
        if isinstance(module, nn.Linear):
            return Grouping(tuple(module.weight.shape), kind, tile=tile)
        if isinstance(module, CONVOLUTIONS):
            transposed = isinstance(module, TRANSPOSED)
            return Grouping(tuple(module.weight.shape), kind, module.groups, transposed, tile)
        raise InvalidArgument(f"a convolution or nn.Linear is expected, got {type(module).__name__}")

    def sums(self, values: Float[Tensor, "..."]) -> Float[Tensor, " groups"]:
        """Sum what has the weight's shape over each group.

        Args:
            values: a tensor of the weight's shape.

        Returns:
            One sum a group, in row-major order of (convolution group, output, input, kernel position), where outputs
            or inputs are those of a tile for the kinds in `TILED`.
        """
        canonical = self._canonical(values)
        if self.tile is None:
            return canonical.sum(_SUMMED_AXES[self.kind]).reshape(-1)
        (matrices, height, width), (rows, columns) = self._lowered_shape(), self._block()
        matrix = canonical.reshape(matrices, height, width)
        matrix = nn.functional.pad(matrix, (0, -width % columns, 0, -height % rows))
        blocks = matrix.reshape(matrices, -(-height // rows), rows, -(-width // columns), columns)
        return blocks.sum((2, 4)).reshape(-1)

    def spread(self, per_group: Tensor) -> Tensor:
        """Give every weight its group's value: the opposite of `sums`.

        Args:
            per_group: one value a group, in the order of `sums`.

        Returns:
            A tensor of the weight's shape.
        """
        groups, outputs, inputs, positions = self._canonical_shape()
        if self.tile is None:
            kept = [1 if axis in _SUMMED_AXES[self.kind] else size for axis, size in enumerate(self._canonical_shape())]
            canonical = per_group.reshape(kept).expand(groups, outputs, inputs, positions)
        else:
            (matrices, height, width), (rows, columns) = self._lowered_shape(), self._block()
            blocks = per_group.reshape(matrices, -(-height // rows), -(-width // columns))
            matrix = blocks.repeat_interleave(rows, 1)[:, :height].repeat_interleave(columns, 2)[..., :width]
            canonical = matrix.reshape(groups, outputs, inputs, positions)
        return (canonical.transpose(1, 2) if self.transposed else canonical).reshape(self.shape)

    def norms(self, weight: Float[Tensor, "..."]) -> Float[Tensor, " groups"]:
        """Euclidean norm of each group; its gradient is 0, not NaN, where a group is all zero."""
        squares = self.sums(weight * weight)
        positive = squares > 0
        return torch.where(positive, squares, 1.0).sqrt() * positive

    def zero(self, weight: Tensor) -> Bool[Tensor, " groups"]:
        """True for each group whose weights are all exactly zero."""
        return self.sums((weight != 0).float()) == 0

    def sizes(self) -> Int64[Tensor, " groups"]:
        """Number of weights in each group."""
        return self.sums(torch.ones(self.shape, dtype=torch.float64)).long()

    def _canonical_shape(self) -> tuple[int, int, int, int]:
        first, second = self.shape[0] // self.conv_groups, self.shape[1]
        outputs, inputs = (second, first) if self.transposed else (first, second)
        return self.conv_groups, outputs, inputs, prod(self.shape[2:])

    def _lowered_shape(self) -> tuple[int, int, int]:
        """Number, rows (outputs) and columns (inputs) of the matrices that blocks are cut from."""
        groups, outputs, inputs, positions = self._canonical_shape()
        if self.kind is GroupKind.TILE:
            return 1, groups * outputs, inputs * positions
        return groups, outputs, inputs * positions

    def _block(self) -> tuple[int, int]:
        """Outputs and inputs of one group, for the kinds in `TILED`."""
        assert self.tile is not None
        if self.kind is GroupKind.TILE:
            return self.tile
        return (self.tile[1], 1) if self.kind is GroupKind.TILE_ROW else (1, self.tile[0])

    def _canonical(self, weight: Tensor) -> Tensor:
        if tuple(weight.shape) != self.shape:
            raise InvalidArgument(f"a tensor of the weight's shape {self.shape} is expected, got {tuple(weight.shape)}")
        groups, outputs, inputs, positions = self._canonical_shape()
        if self.transposed:
            return weight.reshape(groups, inputs, outputs, positions).transpose(1, 2)
        return weight.reshape(groups, outputs, inputs, positions)
