"""Wires: what leads into and out of the crossbar tiles of a layer, and which of them are still needed.

Wang, Wen, Liu, Chiarulli, Li: Group Scissor, DAC 2017, section 3.2: each row of a tile is one input wire, each column
one output wire, routed between crossbars; a row or column whose weights are all zero needs no wire.

    wires of a layer = sum over tiles (rows that are not all zero + columns that are not all zero)

Departs from the paper: nothing known. A matrix that fits one crossbar has wires too; the paper leaves those out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch

from jaxtyping import Bool, Float
from torch import Tensor, nn

from spokeshave.errors import InvalidArgument, UnsupportedLayer
from spokeshave.structures.groups import TRANSPOSED, Grouping, GroupKind
from spokeshave.structures.tiles import CONVOLUTIONS, TileGrid, Tiling, crossbar_matrices

CROSSBAR_SIZE = (64, 64)
"""Most inputs and outputs of a crossbar, the paper's; larger ones suffer from process variation and voltage drop."""


@dataclass(frozen=True)
class LiveWires:
    """Which wires of one matrix are needed.

    Attributes:
        rows: of each tile: True where an input has a weight that is not zero.
        columns: of each tile: True where an output has one.
    """

    rows: Bool[Tensor, "rows columns tile_inputs"]
    columns: Bool[Tensor, "rows columns tile_outputs"]

    @property
    def count(self) -> int:
        """Wires that are needed."""
        return int(self.rows.sum()) + int(self.columns.sum())

    @property
    def crossbars(self) -> int:
        """Tiles that have a weight that is not zero."""
        return int(self.rows.any(-1).sum())


def live_wires(matrix: Float[Tensor, "inputs outputs"], grid: TileGrid) -> LiveWires:
    """Find the wires that a matrix needs.

    Args:
        matrix: as crossbars hold it, one of `crossbar_matrices`.
        grid: how it is cut.

    Raises:
        InvalidArgument: for a matrix of another shape than the grid's.

    Example:
        >>> import torch
        >>> grid = TileGrid.of(4, 2, (2, 2))
        >>> wires = live_wires(torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]), grid)
        >>> wires.count, grid.wires, wires.crossbars
        (2, 8, 1)
    """
    tiles = grid.cut(matrix.detach()) != 0
    return LiveWires(tiles.any(-1), tiles.any(-2))


def layer_grid(
    layer: str, module: nn.Module, size: tuple[int, int] = CROSSBAR_SIZE, tiling: Tiling = Tiling.BALANCED
) -> TileGrid:
    """How each matrix of a layer is cut; a convolution has one matrix for each of its groups.

    Args:
        layer: its name, for the error.
        module: a convolution (not transposed) or a linear layer.
        size: most inputs and outputs of a crossbar.
        tiling: how a longer dimension is cut.

    Raises:
        UnsupportedLayer: for another module.
        InvalidArgument: for a size below 1.

    Example:
        >>> grid = layer_grid("fc", nn.Linear(800, 36), tiling=Tiling.DIVISOR)
        >>> (grid.tile_inputs, grid.tile_outputs), grid.rows * grid.columns, grid.wires
        ((50, 36), 16, 1376)
    """
    _, inputs, outputs = crossbar_matrices(layer, module).shape
    return TileGrid.of(inputs, outputs, size, tiling)


def is_single(grid: TileGrid) -> bool:
    """True where a matrix fits one crossbar, so that nothing of it is routed between crossbars."""
    return grid.rows * grid.columns == 1


def wire_groupings(module: nn.Module, grid: TileGrid) -> tuple[Grouping, Grouping]:
    """The input wires and the output wires of a layer as groups of its weight.

    Args:
        module: a convolution or a linear layer.
        grid: of `layer_grid`.

    Example:
        >>> layer = nn.Linear(100, 3)
        >>> rows, columns = wire_groupings(layer, layer_grid("fc", layer))  # two tiles of 50 x 3
        >>> rows.sizes().tolist() == [3] * 100, columns.sizes().tolist() == [50] * 6
        (True, True)
    """
    tile = grid.tile_inputs, grid.tile_outputs
    return Grouping.of(module, GroupKind.TILE_ROW, tile), Grouping.of(module, GroupKind.TILE_COLUMN, tile)


def crossbar_layers(model: nn.Module, exclude: Sequence[str] = ()) -> dict[str, nn.Module]:
    """The layers of a model that crossbars hold, by name.

    Args:
        model: any module; a factorized layer counts as its two layers.
        exclude: patterns of layer names to leave out.

    Raises:
        InvalidArgument: for a pattern that nothing matches, or where no layer is left.
        UnsupportedLayer: for a transposed convolution that is not excluded.
    """
    modules = dict(model.named_modules())
    for pattern in exclude:
        if not any(fnmatch(name, pattern) for name in modules):
            raise InvalidArgument(
                f"exclude: no layer is named {pattern!r}; the model has {', '.join(filter(None, modules))}"
            )
    kept = {name: module for name, module in modules.items() if not any(fnmatch(name, p) for p in exclude)}
    for name, module in kept.items():
        if isinstance(module, TRANSPOSED):
            raise UnsupportedLayer(
                f"{name} ({type(module).__name__}): a transposed convolution has no one matrix of inputs and outputs "
                f"that a crossbar could hold; leave it out with exclude=({name!r},), or replace it"
            )
    found: dict[str, nn.Module] = {
        name: module for name, module in kept.items() if isinstance(module, (*CONVOLUTIONS, nn.Linear))
    }
    if not found:
        raise InvalidArgument(
            f"no layer for crossbars: the model has no convolution and no linear layer after exclude={tuple(exclude)}"
        )
    return found
