"""The loop that takes tile after tile: each is done once, whoever takes it."""

import ctypes

import numpy as np
import pytest

from sparse_cases import SETS
from spokeshave.jit.parallel_region import run_in_parallel
from spokeshave.targets.cpu_sparse.call_program import CutWeight, Tiling
from spokeshave.targets.cpu_sparse.compiled_convolution import (
    CompiledConvolution,
    ConvolutionCode,
    Planes,
    aligned_zeros,
)
from spokeshave.targets.cpu_sparse.tap_shapes import Tile
from spokeshave.targets.cpu_sparse.tile_routines import Block
from spokeshave.targets.cpu_sparse.work_loop import Work, work_loop


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
    convolution = CompiledConvolution(code)
    x, y = source.empty(1), target.empty(1)
    x[:] = np.random.default_rng(1).standard_normal(x.shape)
    scratch = aligned_zeros((threads * convolution.scratch_bytes // 4,))
    table = convolution.table(x.ctypes.data, y.ctypes.data, scratch.ctypes.data)
    assert table[2] == 5 * 3 * 3  # tiles times shares
    run_in_parallel(work_loop(), table.ctypes.data, threads)
    wanted = np.einsum("oc,cyxl->oyxl", weight[:, :, 0, 0], x[0]) + bias[:, None, None, None]
    np.testing.assert_allclose(y[0, :6], wanted, rtol=1e-5, atol=1e-5)
    assert table[0] >= table[2] and ctypes.sizeof(Work) == 8 * len(table)
