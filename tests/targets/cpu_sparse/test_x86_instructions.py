"""Instructions as they run: each one on numbers, against numpy."""

import ctypes
import platform

import numpy as np
import pytest

from sparse_cases import X86_SETS
from spokeshave.jit.assembler import assemble_routines
from spokeshave.jit.executable_memory import ExecutableMemory, aligned_zeros
from spokeshave.targets.cpu_sparse.x86_instructions import X86Instructions

pytestmark = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="instructions of x86-64")


def run(code: X86Instructions, data: np.ndarray) -> np.ndarray:
    text, places = assemble_routines(code.lines)
    target = aligned_zeros((4, code.vectors.lanes))
    source = aligned_zeros(data.shape)
    source[:] = data
    function = ExecutableMemory(text).function(places["routine"], None, *[ctypes.c_void_p] * 5)
    function(None, source.ctypes.data, None, target.ctypes.data, None)
    return target


@pytest.mark.parametrize("vectors", X86_SETS)
def test_arithmetic(vectors):
    code, size = X86Instructions(vectors), vectors.bytes
    data = np.random.default_rng(0).standard_normal((3, vectors.lanes)).astype(np.float32)
    code.label("routine")
    code.load(0, code.input, 0)
    code.broadcast(1, code.input, 4)
    code.multiply_add_from(0, 1, code.input, size, 3)
    code.store(0, code.output, 0)
    code.load(2, code.input, 2 * size)
    code.multiply_add(0, 1, 2, 3)
    code.store(0, code.output, size)
    code.add_from(0, code.input, size, 3)
    code.zero(4)
    code.rectify(0, 4, 3)
    code.store(0, code.output, 2 * size)
    code.copy(5, 2)
    code.store(5, code.output, 3 * size)
    code.give_back()
    first = data[0] + data[0, 1] * data[1]
    second = first + data[0, 1] * data[2]
    wanted = [first, second, np.maximum(second + data[1], 0), data[2]]
    np.testing.assert_allclose(run(code, data), wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("vectors", X86_SETS)
def test_calls_run_in_order_and_return(vectors):
    code = X86Instructions(vectors)
    for name, offset in (("one", 0), ("two", vectors.bytes)):
        code.label(name)
        code.load(0, code.input, offset)
        code.store(0, code.output, offset)
        code.advance(code.output, 2 * vectors.bytes)
        code.give_back()
    text, places = assemble_routines(code.lines)
    text += bytes(-len(text) % 64)
    start = len(text)
    text += code.calls(np.array([places["one"], places["two"]], np.int64), start)
    source, target = aligned_zeros((2, vectors.lanes)), aligned_zeros((4, vectors.lanes))
    source[:] = [[1], [2]]
    ExecutableMemory(text).function(start, None, *[ctypes.c_void_p] * 5)(
        None, source.ctypes.data, None, target.ctypes.data, None
    )
    np.testing.assert_array_equal(target[:, 0], [1, 0, 0, 2])
