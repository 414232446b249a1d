"""Values that are needed at the same time never overlap, and the arena is no larger than it has to be."""

from itertools import combinations

import numpy as np
import pytest

from spokeshave.targets.cpu_sparse.memory_plan import ALIGNMENT, first_fit


@pytest.mark.parametrize("seed", range(20))
def test_values_that_are_needed_together_do_not_overlap(seed):
    rng = np.random.default_rng(seed)
    spans = [(int(rng.integers(1, 5000)), *map(int, sorted(rng.integers(0, 12, 2)))) for _ in range(25)]
    offsets, size = first_fit(spans)
    for one, other in combinations(range(len(spans)), 2):
        (bytes_, first, last), (other_bytes, other_first, other_last) = spans[one], spans[other]
        if other_first <= last and first <= other_last:
            low, high = sorted([(offsets[one], bytes_), (offsets[other], other_bytes)])
            assert low[0] + low[1] <= high[0]
    assert all(offset % ALIGNMENT == 0 for offset in offsets)
    needed = [sum(bytes_ for bytes_, first, last in spans if first <= step <= last) for step in range(12)]
    assert max(needed) <= size <= sum(bytes_ + ALIGNMENT for bytes_, _, _ in spans)


def test_a_chain_takes_its_two_largest_neighbours():
    assert first_fit([(640, 0, 1), (320, 1, 2), (64, 2, 3), (320, 3, 4)])[1] == 960


def test_nothing_takes_nothing():
    assert first_fit([]) == ([], 0)
