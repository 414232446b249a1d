"""Loops written with the builder, against numpy."""

import numpy as np
import pytest

from sparse_cases import SETS
from spokeshave.jit.executable_memory import aligned_zeros
from spokeshave.jit.native_loops import I64, POINTER, Loops


@pytest.mark.parametrize("vectors", SETS)
def test_a_loop_of_multiply_adds(vectors):
    loops = Loops("sums", vectors, data=POINTER, count=I64, result=POINTER)
    given = loops.arguments
    total = loops.variable()
    loops.store(loops.load(given["result"]), total, vectors.bytes)
    with loops.loop(0, given["count"], 2) as row:
        value = loops.load(loops.at(given["data"], loops.times(row, vectors.bytes)))
        loops.store(loops.multiply_add(value, value, loops.load(total, align=vectors.bytes)), total, vectors.bytes)
    loops.store(loops.intrinsic("sqrt", loops.load(total, align=vectors.bytes)), given["result"])
    data, result = aligned_zeros((9, vectors.lanes)), aligned_zeros((vectors.lanes,))
    data[:] = np.random.default_rng(0).standard_normal(data.shape)
    loops.compile()(data.ctypes.data, 9, result.ctypes.data)
    np.testing.assert_allclose(result, np.sqrt((data[::2] ** 2).sum(0)), rtol=1e-6)


def test_an_empty_loop_does_nothing():
    loops = Loops("nothing", SETS[0], data=POINTER, count=I64)
    with loops.loop(0, loops.arguments["count"]) as row:
        loops.store(loops.load(loops.arguments["data"]), loops.at(loops.arguments["data"], row))
    data = aligned_zeros((SETS[0].lanes,))
    loops.compile()(0, 0)
    assert not data.any()
