"""Nonzero finder: places and values of what is not zero in an array, at about the speed at which memory is read.

Numpy needs three passes and a truth value for each element: five times as long on the weights of large linear layers.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
from llvmlite import ir

from spokeshave.errors import JitRefused
from spokeshave.jit.executable_memory import HUGE_PAGE, aligned_zeros
from spokeshave.jit.generated_operation import generated
from spokeshave.jit.host_cpu import host_cpu
from spokeshave.jit.native_loops import F32, I32, I64, POINTER, Loops

CHUNK = 1 << 17
"""Elements searched at a time: their values are copied while they are in the caches."""
_GROUP = 8
"""Elements that are compared at once; a table says which of them each of the 256 outcomes keeps."""
_BLOCK = 4 * _GROUP
"""Elements searched without a branch in between."""


@cache
def _kept() -> np.ndarray:
    """Outcome of the comparisons, a bit for each -> numbers of the elements that are kept, then any: uint8."""
    outcomes = (np.arange(1 << _GROUP)[:, None] >> np.arange(_GROUP)) & 1
    return np.ascontiguousarray(np.argsort(1 - outcomes, axis=1, kind="stable").astype(np.uint8))


@generated
def _finder() -> Loops:
    """Places of a whole group are written behind the last one that was kept, which moves past those to keep only."""
    vectors = host_cpu().widest()
    assert vectors is not None
    ends = {"source": POINTER, "kept": POINTER, "places": POINTER, "values": POINTER, "found": POINTER}
    loops = Loops("find_nonzeros", vectors, start=I64, stop=I64, **ends)
    build, given = loops.builder, loops.arguments
    words = ir.VectorType(I32, _GROUP)
    number = build.alloca(I64)
    before = loops.load(given["found"], I64, 8)
    loops.store(before, number, 8)
    with loops.loop(given["start"], given["stop"], _BLOCK) as begin:
        found = loops.load(number, I64, 8)
        for group in range(0, _BLOCK, _GROUP):
            first = build.add(begin, I64(group))
            bits = loops.load(loops.at(given["source"], loops.times(first, 4)), words)
            # Either sign of 0 has no other bits.
            kept = build.icmp_unsigned("!=", build.shl(bits, words([1] * _GROUP)), words([0] * _GROUP))
            outcome = build.bitcast(kept, ir.IntType(_GROUP))
            line = loops.at(given["kept"], loops.times(build.zext(outcome, I64), _GROUP))
            which = build.zext(loops.load(line, ir.VectorType(ir.IntType(8), _GROUP), 1), words)
            origin = build.insert_element(words([0] * _GROUP), build.trunc(first, I32), I32(0))
            origin = build.shuffle_vector(origin, origin, words([0] * _GROUP))
            loops.store(build.add(which, origin), loops.at(given["places"], loops.times(found, 4)))
            count = loops.call(f"llvm.ctpop.i{_GROUP}", ir.IntType(_GROUP), outcome)
            found = build.add(found, build.zext(count, I64))
        loops.store(found, number, 8)
    after = loops.load(number, I64, 8)
    with loops.loop(before, after) as entry:
        far = loops.times(entry, 4)
        place = build.zext(loops.load(loops.at(given["places"], far), I32), I64)
        value = loops.load(loops.at(given["source"], loops.times(place, 4)), F32)
        loops.store(value, loops.at(given["values"], far))
    loops.store(after, given["found"], 8)
    return loops


@cache
def _function() -> Callable[..., None] | None:
    """The code; none on a machine that none can be generated for."""
    try:
        return _finder().function if host_cpu().widest() else None
    except JitRefused:
        return None


def find_nonzeros(flat: np.ndarray, kind: type[np.unsignedinteger] = np.uint32) -> tuple[np.ndarray, np.ndarray]:
    """Find them.

    Args:
        flat: float32, [elements].
        kind: of integer that holds every place.

    Returns:
        places: ascending, of that kind.
        values: float32.

    Example:
        >>> [part.tolist() for part in find_nonzeros(np.array([0.0, 2.0, -0.0], np.float32))]
        [[1], [2.0]]
    """
    function, whole = _function(), flat.size // _BLOCK * _BLOCK
    if function is None or kind is not np.uint32:
        whole = 0
    # As long as could be needed: memory that is not written takes none.
    places, values = aligned_zeros((whole + _GROUP,), np.uint32), aligned_zeros((whole,))
    found = np.zeros(1, np.int64)
    ends = [array.ctypes.data for array in (flat, _kept(), places, values, found)]
    for start in range(0, whole, CHUNK):
        assert function is not None
        function(start, min(start + CHUNK, whole), *ends)
    places, values = places[: found[0]], values[: found[0]]
    if whole == flat.size and values.nbytes > HUGE_PAGE:
        return places, values  # copying them would take as long as finding them
    rest = flat[whole:]
    at = np.flatnonzero(rest != 0)  # much faster on truth values than on floats
    return np.concatenate([places, at + whole]).astype(kind), np.concatenate([values, rest[at]])
