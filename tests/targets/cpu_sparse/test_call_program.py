"""Weights as calls and a stream."""

import numpy as np
import pytest

from spokeshave.errors import UnsupportedLayer
from spokeshave.targets.cpu_sparse.call_program import CutWeight, Tiling, build_program
from spokeshave.targets.cpu_sparse.tap_shapes import Tile
from spokeshave.targets.cpu_sparse.tile_routines import Block, Pitches

BLOCK, PITCHES = Block(Tile(2, 3), 2, False), Pitches(640, 640, 6400)


def program(weight: np.ndarray, tiling: Tiling = Tiling(), plane: int = 6400, taps: int = 3):  # noqa: B008 - frozen
    bias = np.arange(len(weight), dtype=np.float32)
    return build_program(CutWeight.of(weight, BLOCK.tile, taps), bias, 1, BLOCK, PITCHES, plane, 64, tiling)


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
    assert program(weight, taps=1).entries == np.count_nonzero(weight)
    assert program(weight, taps=3).entries < np.count_nonzero(weight)


def test_shares_divide_the_filters():
    assert len(program(weights(0.3), Tiling(shares=3)).shares) == 3
    assert len(program(weights(0.3), Tiling(shares=50)).shares) == 5  # no more than blocks of filters


def test_a_layer_of_zeros_still_writes_its_bias():
    made = program(weights(0.0))
    assert made.entries == 0 and sum(len(share.calls) for share in made.shares) > 0


def test_memory_that_an_offset_cannot_reach_is_refused():
    with pytest.raises(UnsupportedLayer, match="GiB"):
        program(weights(0.1), plane=1 << 28)


def test_words_between_visits_say_where_sums_come_from_and_go_to():
    """One filter a block, two passes: bias, then scratch; scratch, then the output."""
    weight = np.zeros((2, 2, 1, 1), np.float32)
    weight[0, 0], weight[0, 1], weight[1, 1] = 5.0, 6.0, 7.0
    block, pitches = Block(Tile(1, 1), 1, False), Pitches(64, 64, 640)
    made = build_program(
        CutWeight.of(weight, block.tile), np.array([1.0, 2.0], np.float32), 1, block, pitches, 6400, 64, Tiling(1)
    )
    (share,) = made.shares
    one, two, five, six, seven = np.array([1, 2, 5, 6, 7], np.float32).view(np.int32)
    # bias 1; 5 at plane 0; keep at scratch 0 and take it again; 6 at plane 1; write filter 0, bias 2; 7; write filter 1
    assert share.stream.tolist() == [one, 0, five, 0, 0, 6400, six, 0, two, 6400, seven, 640]
