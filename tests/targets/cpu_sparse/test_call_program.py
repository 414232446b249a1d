"""Weights as calls and a stream."""

import numpy as np
import pytest

from spokeshave.errors import UnsupportedLayer
from spokeshave.targets.cpu_sparse.call_program import Tiling, build_program
from spokeshave.targets.cpu_sparse.tap_shapes import Tile
from spokeshave.targets.cpu_sparse.tile_routines import Block, Pitches

BLOCK, PITCHES = Block(Tile(2, 3), 2, False), Pitches(640, 640, 6400)


def program(weight: np.ndarray, tiling: Tiling = Tiling(), plane: int = 6400):  # noqa: B008 - frozen
    bias = np.arange(len(weight), dtype=np.float32)
    return build_program(weight, bias, 1, BLOCK, PITCHES, plane, 64, tiling)


def weights(density: float) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.standard_normal((10, 12, 3, 3)) * (rng.random((10, 12, 3, 3)) < density)).astype(np.float32)


@pytest.mark.parametrize("density", [0.1, 1.0])
def test_the_streams_hold_every_nonzero_weight_once(density):
    weight = weights(density)
    made = program(weight, Tiling(4, shares=3))
    words = np.concatenate([share.stream for share in made.shares]).view(np.float32)
    nonzero = np.sort(weight[weight != 0])
    found = np.sort(words[np.isin(words, nonzero)])
    np.testing.assert_array_equal(found, nonzero)


def test_single_taps_only_is_one_entry_a_nonzero():
    weight = weights(0.2)
    assert program(weight, Tiling(most_taps=1)).entries == np.count_nonzero(weight)
    assert program(weight, Tiling(most_taps=3)).entries < np.count_nonzero(weight)


def test_shares_divide_the_filters():
    assert len(program(weights(0.3), Tiling(shares=3)).shares) == 3
    assert len(program(weights(0.3), Tiling(shares=50)).shares) == 5  # no more than blocks of filters


def test_a_layer_of_zeros_still_writes_its_bias():
    made = program(weights(0.0))
    assert made.entries == 0 and sum(len(share.calls) for share in made.shares) > 0


def test_memory_that_an_offset_cannot_reach_is_refused():
    with pytest.raises(UnsupportedLayer, match="GiB"):
        program(weights(0.1), plane=1 << 28)
