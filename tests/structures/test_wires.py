"""Wires: counted by loops over a matrix, and for the tiles that the paper prints."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from spokeshave.errors import InvalidArgument, UnsupportedLayer
from spokeshave.structures.tiles import TileGrid, Tiling, crossbar_matrices
from spokeshave.structures.wires import crossbar_layers, is_single, layer_grid, live_wires, wire_groupings


def count_by_loops(matrix: list[list[float]], tile_inputs: int, tile_outputs: int) -> tuple[int, int]:
    """Wires and crossbars, with no tensor arithmetic."""
    inputs, outputs = len(matrix), len(matrix[0])
    wires = crossbars = 0
    for top in range(0, inputs, tile_inputs):
        for left in range(0, outputs, tile_outputs):
            rows = range(top, min(top + tile_inputs, inputs))
            columns = range(left, min(left + tile_outputs, outputs))
            here = sum(any(matrix[i][j] != 0 for j in columns) for i in rows)
            here += sum(any(matrix[i][j] != 0 for i in rows) for j in columns)
            wires += here
            crossbars += here > 0
    return wires, crossbars


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 14), st.integers(1, 14)),
    size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    tiling=st.sampled_from(list(Tiling)),
    density=st.sampled_from([0.0, 0.1, 0.4, 1.0]),
    seed=st.integers(0, 1000),
)
def test_live_wires_are_those_that_loops_count(shape, size, tiling, density, seed):
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(shape, generator=generator) * (torch.rand(shape, generator=generator) < density)
    grid = TileGrid.of(*shape, size, tiling)
    wires = live_wires(matrix, grid)
    assert (wires.count, wires.crossbars) == count_by_loops(matrix.tolist(), grid.tile_inputs, grid.tile_outputs)
    full = count_by_loops([[1.0] * shape[1]] * shape[0], grid.tile_inputs, grid.tile_outputs)
    assert (grid.wires, grid.rows * grid.columns) == full
    assert is_single(grid) == (full[1] == 1)


@pytest.mark.parametrize(
    "module",
    [nn.Linear(11, 7), nn.Conv2d(3, 8, 2), nn.Conv2d(4, 6, (3, 1), groups=2), nn.Conv1d(4, 4, 3, groups=4)],
)
def test_wires_that_groupings_call_zero_are_those_that_live_wires_misses(module):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        module.weight.mul_(torch.rand(module.weight.shape, generator=generator) < 0.3)
    grid = layer_grid("layer", module, (3, 2))
    rows, columns = wire_groupings(module, grid)
    alive = int((~rows.zero(module.weight)).sum()) + int((~columns.zero(module.weight)).sum())
    assert alive == sum(live_wires(matrix, grid).count for matrix in crossbar_matrices("layer", module))
    assert 0 < alive < len(rows.sizes()) + len(columns.sizes())
    assert len(rows.sizes()) + len(columns.sizes()) == grid.wires * crossbar_matrices("layer", module).shape[0]


def test_layers_are_found_by_name_and_a_transposed_convolution_is_refused():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ConvTranspose2d(2, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 2))
    with pytest.raises(UnsupportedLayer, match=r"1 \(ConvTranspose2d\).*exclude=\('1',\)"):
        crossbar_layers(net)
    assert list(crossbar_layers(net, exclude=("1",))) == ["0", "3"]
    with pytest.raises(InvalidArgument, match="no layer is named 'nosuch'"):
        crossbar_layers(net, exclude=("nosuch",))
    with pytest.raises(InvalidArgument, match="no layer for crossbars"):
        crossbar_layers(nn.ReLU())
