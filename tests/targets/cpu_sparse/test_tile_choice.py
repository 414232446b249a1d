"""The tile chosen by arithmetic, and what else is worth measuring."""

import numpy as np
import pytest

from sparse_cases import SETS
from spokeshave.jit.host_cpu import VectorSet
from spokeshave.targets.cpu_sparse.tap_shapes import Tile
from spokeshave.targets.cpu_sparse.tile_choice import (
    Density,
    Outputs,
    choose_blocks,
    choose_tiling,
    first_choice,
    other_blocks,
    taps_beside,
    variations,
)


def outputs_of(size: tuple[int, int]) -> Outputs:
    return Outputs(*size, (3, 3), (1, 1), (1, 1))


@pytest.mark.parametrize("vectors", SETS)
@pytest.mark.parametrize("size", [(1, 1), (13, 13), (27, 27), (55, 4), (2, 300)])
@pytest.mark.parametrize("taps", [1e-3, 1.0, 9.0])
def test_sums_and_taps_fit_into_the_registers(vectors, size, taps):
    outputs, density = outputs_of(size), Density(32, 16, taps)
    first = first_choice(outputs, vectors, density, True, 1)
    others = list(other_blocks(outputs, vectors, density, True, 1, 3))
    for choice in (first, *others, *variations(first, outputs, vectors, density, 1)):
        block = choice.block
        assert block.sums + taps_beside(block.sums, vectors) < vectors.registers and block.rectify
        assert taps_beside(block.sums, vectors) >= 1
        assert block.tile.height <= size[0] and block.tile.width <= size[1]
        assert 1 <= choice.tiling.pass_planes <= 16
    assert len({first, *others}) == 1 + len(others) <= 4


def test_a_row_of_thirteen_is_not_cut():
    block = choose_blocks(outputs_of((13, 13)), VectorSet.AVX512, Density(384, 256, 0.44), True)[0]
    assert block.tile.width in (7, 13)


def test_sixteen_registers_hold_a_row_of_thirteen_beside_pairs_of_taps():
    density = Density(384, 256, 1.06)
    choices = [choose_blocks(outputs_of((13, 13)), VectorSet.AVX2, density, True)[0]]
    choices += [choice.block for choice in other_blocks(outputs_of((13, 13)), VectorSet.AVX2, density, True, 1, 3)]
    assert Tile(1, 13) in [block.tile for block in choices] and taps_beside(13, VectorSet.AVX2) == 2


def test_few_tiles_are_shared_among_threads_by_filters():
    outputs, density = outputs_of((2, 13)), Density(64, 32, 1.0)
    block = first_choice(outputs, SETS[0], density, False, 1).block
    assert choose_tiling(outputs, block, SETS[0], density, 2).shares > 1
    assert choose_tiling(outputs, block, SETS[0], density, 1).shares == 1


def test_threads_get_rows_of_their_own_where_filters_are_few():
    """With many filters for each input, bringing the input from another core costs less than cutting tiles."""
    outputs, few = outputs_of((13, 1)), Density(16, 256, 0.4)
    tiles = [-(-13 // choose_blocks(outputs, SETS[0], few, True, threads)[0].tile.height) for threads in (1, 2)]
    assert tiles[1] % 2 == 0
    many = Density(100_000, 256, 0.4)
    assert choose_blocks(outputs, SETS[0], many, True, 2) == choose_blocks(outputs, SETS[0], many, True, 1)


def test_longer_passes_hold_more_planes():
    outputs, density = outputs_of((27, 27)), Density(64, 64, 1.0)
    block = first_choice(outputs, SETS[0], density, False, 1).block
    sizes = [
        choose_tiling(outputs, block, SETS[0], density, 1, limit).pass_planes for limit in (1 << 12, 1 << 15, 1 << 18)
    ]
    assert sizes == sorted(sizes) and sizes[0] < sizes[-1]


def test_density_counts_taps_of_a_kernel():
    weight = np.zeros((2, 3, 3, 3), np.float32)
    weight[0, :, 1] = 1
    assert Density.of(weight) == Density(2, 3, 9 / 6)
