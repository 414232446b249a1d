"""The loop that takes tile after tile: each is done once, whoever takes it."""

import numpy as np
import pytest

from sparse_cases import SETS
from spokeshave.jit.operation_loops import ITEMS
from spokeshave.jit.operation_sequence import run_sequence
from spokeshave.targets.cpu_sparse.call_program import CutWeight, Tiling
from spokeshave.targets.cpu_sparse.compiled_convolution import (
    CompiledConvolution,
    ConvolutionCode,
    Planes,
    aligned_zeros,
)
from spokeshave.targets.cpu_sparse.tap_shapes import Tile
from spokeshave.targets.cpu_sparse.tile_routines import Block
from spokeshave.targets.cpu_sparse.work_loop import item_order, work_loop


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_tiles_and_shares_are_all_done(threads):
    vectors = SETS[0]
    weight = np.random.default_rng(0).standard_normal((6, 4, 1, 1)).astype(np.float32)
    bias = np.arange(6, dtype=np.float32)
    source, target = Planes(4, 9, 8, vectors), Planes(6 + 4, 9, 8, vectors)
    block = Block(Tile(2, 3), 1, False)
    code = ConvolutionCode.generate(
        CutWeight.of(weight, block.tile), bias, 1, (9, 8), block, source, target, tiling=Tiling(shares=3)
    )
    convolution = CompiledConvolution(code, threads)
    x, y = source.empty(1), target.empty(1)
    x[:] = np.random.default_rng(1).standard_normal(x.shape)
    scratch = aligned_zeros((threads * convolution.scratch_bytes // 4,))
    table = convolution.table(x.ctypes.data, y.ctypes.data, scratch.ctypes.data)
    assert table[ITEMS] == 5 * 3 * 3  # tiles times shares
    run_sequence(np.array([(work_loop().address, table.ctypes.data)], np.int64), threads)
    wanted = np.einsum("oc,cyxl->oyxl", weight[:, :, 0, 0], x[0]) + bias[:, None, None, None]
    np.testing.assert_allclose(y[0, :6], wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("tiles", "shares"), [(1, 1), (1, 8), (3, 2), (5, 3), (16, 1)])
@pytest.mark.parametrize("threads", [1, 2, 3, 16])
def test_every_share_of_every_tile_is_one_item(tiles, shares, threads):
    order = item_order(tiles, shares, threads)
    assert sorted(order) == [(tile, share) for tile in range(tiles) for share in range(shares)]


def test_threads_begin_with_bands_of_tiles_and_go_through_them_share_by_share():
    assert item_order(4, 2, 2) == [(0, 0), (1, 0), (0, 1), (1, 1), (2, 0), (3, 0), (2, 1), (3, 1)]
    assert item_order(1, 4, 2) == [(0, 0), (0, 1), (0, 2), (0, 3)]
