"""Places and values of nonzeros, against numpy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spokeshave.targets.cpu_sparse import nonzero_finder
from spokeshave.targets.cpu_sparse.nonzero_finder import CHUNK, find_nonzeros


def check(flat: np.ndarray) -> None:
    before = flat.copy()
    places, values = find_nonzeros(flat)
    wanted = np.flatnonzero(flat)
    assert places.dtype == np.uint32 and values.dtype == np.float32
    np.testing.assert_array_equal(places, wanted)
    np.testing.assert_array_equal(values.view(np.uint32), flat[wanted].view(np.uint32))
    np.testing.assert_array_equal(flat.view(np.uint32), before.view(np.uint32))


@given(st.integers(0, 100), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_any_length_and_density(length, density, seed):
    generator = np.random.default_rng(seed)
    check((generator.standard_normal(length) * (generator.random(length) < density)).astype(np.float32))


@pytest.mark.parametrize("length", [CHUNK - 1, CHUNK, CHUNK + 16, 2 * CHUNK + 17])
@pytest.mark.parametrize("density", [0.0, 0.1, 1.0])
def test_more_than_is_searched_at_a_time(length, density):
    generator = np.random.default_rng(0)
    check((generator.random(length) < density).astype(np.float32))


def test_what_is_not_a_number_is_kept_and_either_zero_is_not():
    check(np.array([0.0, -0.0, np.nan, -np.nan, np.inf, -np.inf, 1e-45, -1e-45] * 4, np.float32))


def test_without_generated_code_numpy_does_it(monkeypatch):
    monkeypatch.setattr(nonzero_finder, "_function", lambda: None)
    check(np.array([0.0, 2.0] * 16, np.float32))


def test_nothing_is_read_outside_of_the_array():
    whole = np.full(64 + 32, np.float32(7))
    whole[16:80] = 0
    assert [part.size for part in find_nonzeros(whole[16:80])] == [0, 0]


def test_places_come_as_the_integers_that_are_asked_for():
    flat = np.zeros(2 * CHUNK + 5, np.float32)
    flat[[3, CHUNK + 7, 2 * CHUNK + 1]] = 1
    places, _ = find_nonzeros(flat, np.uint64)
    assert places.dtype == np.uint64 and places.tolist() == [3, CHUNK + 7, 2 * CHUNK + 1]
