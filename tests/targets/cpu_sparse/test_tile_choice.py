"""The tile chosen by arithmetic."""

import numpy as np
import pytest

from sparse_cases import SETS
from spokeshave.targets.cpu_sparse.tile_choice import Outputs, choose_block, choose_tiling


def thinned(shape: tuple[int, ...], density: float) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.standard_normal(shape) * (rng.random(shape) < density)).astype(np.float32)


@pytest.mark.parametrize("vectors", SETS)
@pytest.mark.parametrize("size", [(1, 1), (13, 13), (27, 27), (55, 4), (2, 300)])
@pytest.mark.parametrize("density", [0.0, 0.1, 1.0])
def test_sums_and_taps_fit_into_the_registers(vectors, size, density):
    weight, outputs = thinned((32, 16, 3, 3), density), Outputs(*size, (3, 3), (1, 1), (1, 1))
    block = choose_block(outputs, vectors, weight, 3, True)
    assert block.sums + 3 < vectors.registers and block.rectify
    assert block.tile.height <= size[0] and block.tile.width <= size[1]
    tiling = choose_tiling(weight, outputs, block, vectors, 1)
    assert 1 <= tiling.pass_planes <= 16 and tiling.shares == 1


def test_few_tiles_are_shared_among_threads_by_filters():
    weight, outputs = thinned((64, 32, 3, 3), 0.1), Outputs(2, 13, (3, 3), (1, 1), (1, 1))
    block = choose_block(outputs, SETS[0], weight, 3, False)
    assert choose_tiling(weight, outputs, block, SETS[0], 2).shares > 1
