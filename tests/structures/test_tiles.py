"""Tiles against loops, and the sizes and wires of the paper's networks."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from spokeshave.errors import InvalidArgument, UnsupportedLayer
from spokeshave.structures.tiles import TileGrid, Tiling, crossbar_matrices, from_crossbar_matrices

sides = st.integers(1, 40)


@given(sides, sides, st.integers(1, 12), st.integers(1, 12), st.sampled_from(Tiling))
@settings(max_examples=80, deadline=None)
def test_cutting_covers_each_weight_once_and_joins_again(inputs, outputs, height, width, tiling) -> None:
    grid = TileGrid.of(inputs, outputs, (height, width), tiling)
    matrix = torch.arange(1.0, inputs * outputs + 1).reshape(inputs, outputs)
    tiles = grid.cut(matrix)
    assert tiles.shape == (grid.rows, grid.columns, grid.tile_inputs, grid.tile_outputs)
    assert grid.tile_inputs <= height and grid.tile_outputs <= width
    wires = 0
    for row in range(grid.rows):
        for column in range(grid.columns):
            top, left = row * grid.tile_inputs, column * grid.tile_outputs
            part = matrix[top : top + grid.tile_inputs, left : left + grid.tile_outputs]
            assert torch.equal(tiles[row, column, : part.shape[0], : part.shape[1]], part)
            assert torch.count_nonzero(tiles[row, column]) == part.numel() > 0
            wires += sum(part.shape)
    assert grid.wires == wires
    assert torch.equal(grid.join(tiles), matrix)


@given(sides, st.integers(1, 12))
def test_balanced_takes_as_few_tiles_as_can_be_and_divisor_equal_ones(length: int, most: int) -> None:
    balanced = TileGrid.of(length, 1, (most, 1))
    assert balanced.rows == -(-length // most)
    equal = TileGrid.of(length, 1, (most, 1), Tiling.DIVISOR).tile_inputs
    assert length % equal == 0 and not any(length % side == 0 for side in range(equal + 1, min(most, length) + 1))


@pytest.mark.parametrize(
    ("matrix", "tile", "wires"),
    [
        ((500, 12), (50, 12), 620),
        ((800, 36), (50, 36), 1376),
        ((36, 500), (36, 50), 860),
        ((500, 10), (50, 10), 600),
        ((75, 12), (25, 12), 111),
        ((800, 19), (50, 19), 1104),
        ((800, 22), (50, 22), 1152),
        ((1024, 10), (64, 10), 1184),
    ],
)
def test_tiles_of_the_paper(matrix: tuple[int, int], tile: tuple[int, int], wires: int) -> None:
    grid = TileGrid.of(*matrix, (64, 64), Tiling.DIVISOR)
    assert ((grid.tile_inputs, grid.tile_outputs), grid.wires) == (tile, wires)


def test_crossbar_matrices_compute_the_layer() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 6, 3, groups=2, bias=False)
    images = torch.randn(2, 4, 5, 5)
    matrices = crossbar_matrices("conv", conv)
    taps = nn.functional.unfold(images, 3).reshape(2, 2, 18, 9)
    wanted = torch.einsum("bgil,gio->bgol", taps, matrices).reshape(2, 6, 3, 3)
    assert torch.allclose(conv(images), wanted, atol=1e-5)
    assert torch.equal(from_crossbar_matrices(matrices, conv.weight), conv.weight)
    linear = nn.Linear(5, 3)
    assert torch.equal(crossbar_matrices("fc", linear)[0], linear.weight.T)


def test_what_cannot_be_cut_is_refused() -> None:
    with pytest.raises(UnsupportedLayer, match=r"up \(ConvTranspose2d\)"):
        crossbar_matrices("up", nn.ConvTranspose2d(1, 1, 1))
    with pytest.raises(InvalidArgument, match="at least 1"):
        TileGrid.of(3, 3, (0, 4))
    with pytest.raises(InvalidArgument, match="3 x 4"):
        TileGrid.of(3, 4, (2, 2)).cut(torch.zeros(4, 3))
