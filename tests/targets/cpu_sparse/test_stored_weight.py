"""Weights as positions and values of nonzeros."""

import numpy as np
import pytest

from spokeshave.targets.cpu_sparse.stored_weight import StoredWeight


def test_dense_gives_back_what_was_stored():
    rng = np.random.default_rng(0)
    weight = (rng.standard_normal((5, 3, 2, 4)) * (rng.random((5, 3, 2, 4)) < 0.3)).astype(np.float32)
    stored = StoredWeight.of(weight)
    np.testing.assert_array_equal(stored.dense(), weight)
    assert stored.shape == weight.shape and len(stored) == 5
    assert stored.density == pytest.approx(np.count_nonzero(weight) / weight.size)


def test_a_factor_for_each_filter_scales_it():
    weight = np.array([[1.0, 0.0], [2.0, 3.0]], np.float32)
    scaled = StoredWeight.of(weight).scaled(np.array([2.0, 0.0]))
    np.testing.assert_array_equal(scaled.dense(), [[2.0, 0.0], [0.0, 0.0]])
    assert len(scaled.values) == 1


def test_nan_counts_as_nonzero():
    assert StoredWeight.of(np.array([[np.nan, 0.0]], np.float32)).places.tolist() == [0]
