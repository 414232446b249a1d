"""Tiles: a weight matrix cut into crossbars of a limited size, and written back.

Wang, Wen, Liu, Chiarulli, Li: Group Scissor, DAC 2017, section 3.2: a matrix of N inputs x M outputs larger than one
crossbar is cut into equal tiles of at most 64 x 64. An input wire of a tile is a row of it, an output wire a column.
Departs from the paper: `Tiling.BALANCED`, since dimensions may have no divisor near the crossbar's size.
"""

from dataclasses import dataclass
from enum import Enum

import torch
from jaxtyping import Float
from torch import Tensor, nn

from spokeshave.errors import InvalidArgument, UnsupportedLayer

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class Tiling(Enum):
    """How a dimension that is larger than a crossbar is cut."""

    BALANCED = "balanced"
    """As few tiles as hold it, of nearly one size; the last may be smaller."""
    DIVISOR = "divisor"
    """Tiles of exactly one size, the largest divisor that fits (the paper: 500 = 10 x 50, 800 = 16 x 50)."""


@dataclass(frozen=True)
class TileGrid:
    """How one matrix is cut.

    Attributes:
        inputs: rows of the matrix, at least 1.
        outputs: columns of it, at least 1.
        tile_inputs: rows of a tile.
        tile_outputs: columns of a tile.

    Example:
        >>> grid = TileGrid.of(500, 12, (64, 64), Tiling.DIVISOR)
        >>> (grid.tile_inputs, grid.tile_outputs), (grid.rows, grid.columns), grid.wires
        ((50, 12), (10, 1), 620)
    """

    inputs: int
    outputs: int
    tile_inputs: int
    tile_outputs: int

    @staticmethod
    def of(inputs: int, outputs: int, size: tuple[int, int], tiling: Tiling = Tiling.BALANCED) -> "TileGrid":
        """Cut a matrix.

        Args:
            inputs: rows of the matrix.
            outputs: columns of it.
            size: most rows and columns of a crossbar, each at least 1.
            tiling: how.

        Raises:
            InvalidArgument: for a size below 1.
        """
        if min(inputs, outputs, *size) < 1:
            raise InvalidArgument(f"expected sizes of at least 1, got a {inputs} x {outputs} matrix, crossbars {size}")
        return TileGrid(inputs, outputs, _side(inputs, size[0], tiling), _side(outputs, size[1], tiling))

    @property
    def rows(self) -> int:
        """Tiles along the inputs."""
        return -(-self.inputs // self.tile_inputs)

    @property
    def columns(self) -> int:
        """Tiles along the outputs."""
        return -(-self.outputs // self.tile_outputs)

    @property
    def wires(self) -> int:
        """Input and output wires of all tiles, with nothing deleted."""
        return self.inputs * self.columns + self.outputs * self.rows

    def cut(
        self, matrix: Float[Tensor, "*groups inputs outputs"]
    ) -> Float[Tensor, "*groups rows columns tile_inputs tile_outputs"]:
        """Cut a matrix, or one a convolution group, into tiles; what a tile at the edge lacks is 0.

        Raises:
            InvalidArgument: for a matrix of another shape.
        """
        if tuple(matrix.shape[-2:]) != (self.inputs, self.outputs):
            raise InvalidArgument(f"expected a matrix {self.inputs} x {self.outputs}, got {tuple(matrix.shape)}")
        below = self.rows * self.tile_inputs - self.inputs
        beside = self.columns * self.tile_outputs - self.outputs
        padded = nn.functional.pad(matrix, (0, beside, 0, below))
        cut = padded.reshape(*matrix.shape[:-2], self.rows, self.tile_inputs, self.columns, self.tile_outputs)
        return cut.transpose(-3, -2)

    def join(
        self, tiles: Float[Tensor, "*groups rows columns tile_inputs tile_outputs"]
    ) -> Float[Tensor, "*groups inputs outputs"]:
        """Put tiles together: the opposite of `cut`."""
        height, width = self.rows * self.tile_inputs, self.columns * self.tile_outputs
        joined = tiles.transpose(-3, -2).reshape(*tiles.shape[:-4], height, width)
        return joined[..., : self.inputs, : self.outputs]


def crossbar_matrices(layer: str, module: nn.Module) -> Float[Tensor, "groups inputs outputs"]:
    """The weight of a layer as its crossbars hold it, one matrix a convolution group; differentiable.

    Args:
        layer: its name, for the error.
        module: a convolution (not transposed) or a linear layer. An input is a tap (channel, row, column).

    Raises:
        UnsupportedLayer: for another module.

    Example:
        >>> crossbar_matrices("conv", nn.Conv2d(20, 50, 5)).shape
        torch.Size([1, 500, 50])
    """
    if isinstance(module, nn.Linear):
        return module.weight.T.unsqueeze(0)
    if isinstance(module, CONVOLUTIONS):
        groups = module.groups
        return module.weight.reshape(groups, module.out_channels // groups, -1).transpose(1, 2)
    raise UnsupportedLayer(
        f"{layer} ({type(module).__name__}): crossbars hold convolutions and linear layers; leave it out, or replace it"
    )


def from_crossbar_matrices(matrices: Float[Tensor, "groups inputs outputs"], like: Tensor) -> Tensor:
    """Give crossbar matrices the shape of the weight that they came from: the opposite of `crossbar_matrices`."""
    return torch.reshape(matrices.transpose(1, 2), like.shape)


def _side(length: int, most: int, tiling: Tiling) -> int:
    if length <= most:
        return length
    if tiling is Tiling.BALANCED:
        return -(-length // -(-length // most))
    return next(side for side in range(most, 0, -1) if length % side == 0)
