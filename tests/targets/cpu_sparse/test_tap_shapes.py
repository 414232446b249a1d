"""Kernels cut into tap shapes."""

import numpy as np
import pytest

from spokeshave.targets.cpu_sparse.tap_shapes import SINGLE, Tile, candidate_shapes, choose_shapes, cost, cut_kernels


@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (5, 5), (4, 1)])
@pytest.mark.parametrize("density", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("most_taps", [1, 2, 3])
def test_every_nonzero_is_in_exactly_one_shape(kernel, density, most_taps):
    kernels = np.random.default_rng(0).random((200, *kernel)) < density
    cut = cut_kernels(kernels, choose_shapes(kernels, Tile(2, 13), most_taps, 5))
    found = np.zeros(kernels.shape, int)
    for number, shape, row, column in cut.entries:
        for y, x in cut.shapes[shape]:
            found[number, row + y, column + x] += 1
    np.testing.assert_array_equal(found, kernels.astype(int))
    assert cut.shapes[0] == SINGLE and len(cut.shapes) <= 6 and max(map(len, cut.shapes)) <= most_taps


def test_neighbouring_taps_share_what_they_read():
    assert len(Tile(2, 13).reads(((0, 0), (0, 1)))) == 2 * 14
    assert len(Tile(2, 13, stride=(2, 2)).reads(((0, 0), (0, 1)))) == 2 * 2 * 13
    assert len(Tile(2, 13, dilation=(1, 2)).reads(((0, 0), (0, 1)))) == 2 * 15


def test_a_pair_costs_less_than_two_singles_where_they_share():
    tile = Tile(2, 13)
    assert cost(tile, ((0, 0), (0, 1))) < 2 * cost(tile, SINGLE)


def test_candidates_begin_at_the_origin_and_stay_in_the_window():
    shapes = candidate_shapes((5, 5), 3)
    assert len(shapes) == len(set(shapes)) and ((0, 0), (2, 2)) in shapes
    assert all(min(y for y, _ in s) == 0 == min(x for _, x in s) and max(max(t) for t in s) <= 2 for s in shapes)
    assert candidate_shapes((1, 1), 3) == []


def test_with_a_stride_taps_that_far_apart_share_what_they_read():
    kernels = np.ones((50, 11, 11), bool)
    tile = Tile(1, 11, stride=(4, 4))
    shapes = choose_shapes(kernels, tile, 3, 7)
    assert len(shapes) > 1 and all(place % 4 == 0 for taps in shapes for tap in taps for place in tap)
    assert tile.inputs(((0, 0), (0, 4), (0, 8))) == 13
    cut = cut_kernels(kernels, shapes)
    assert sum(len(cut.shapes[shape]) for shape in cut.entries[:, 1]) == kernels.sum()
    # With a dilation that the stride divides, neighbouring taps share them.
    assert Tile(2, 13, stride=(2, 2), dilation=(2, 4)).apart == (1, 1)


def test_many_kernels_are_chosen_for_by_a_sample():
    rng = np.random.default_rng(0)
    kernels = np.zeros((20000, 3, 3), bool)
    kernels[:, 1, 0] = kernels[:, 1, 1] = rng.random(20000) < 0.5  # one pair, over and over
    shapes = choose_shapes(kernels, Tile(2, 13), 3, 1)
    assert shapes == [SINGLE, ((0, 0), (0, 1))]
    cut = cut_kernels(kernels, shapes)
    assert len(cut.entries) == kernels.sum() / 2 and set(cut.entries[:, 1]) == {1}
