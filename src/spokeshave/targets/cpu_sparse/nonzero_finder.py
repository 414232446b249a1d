"""Nonzero finder: places and values of what is not zero in an array, in one pass over it.

Numpy needs three passes and a truth value for each element: about twice as long on the weights of large linear layers.
"""

from collections.abc import Callable
from functools import cache

import numpy as np

from spokeshave.errors import JitRefused
from spokeshave.jit.generated_operation import generated
from spokeshave.jit.host_cpu import host_cpu
from spokeshave.jit.native_loops import F32, I32, I64, POINTER, Loops

CHUNK = 1 << 18
"""Elements searched at a time: what is found then stays in the caches until it is copied."""
_BLOCK = 16
"""Elements searched without a branch in between."""


@generated
def _finder() -> Loops:
    """Every place is written behind the last one that was kept, which moves only past elements that are not zero."""
    vectors = host_cpu().widest()
    assert vectors is not None
    ends = {"places": POINTER, "values": POINTER, "found": POINTER}
    loops = Loops("find_nonzeros", vectors, source=POINTER, count=I64, **ends)
    build, given = loops.builder, loops.arguments
    number = build.alloca(I64)
    loops.store(I64(0), number, 8)
    with loops.loop(0, given["count"], _BLOCK) as begin:
        found = loops.load(number, I64, 8)
        for element in range(_BLOCK):
            place = build.add(begin, I64(element))
            bits = loops.load(loops.at(given["source"], loops.times(place, 4)), I32)
            loops.store(build.trunc(place, I32), loops.at(given["places"], loops.times(found, 4)))
            kept = build.icmp_unsigned("!=", build.shl(bits, I32(1)), I32(0))  # either sign of 0 has no other bits
            found = build.add(found, build.zext(kept, I64))
        loops.store(found, number, 8)
    with loops.loop(0, loops.load(number, I64, 8)) as entry:
        far = loops.times(entry, 4)
        place = build.zext(loops.load(loops.at(given["places"], far), I32), I64)
        value = loops.load(loops.at(given["source"], loops.times(place, 4)), F32)
        loops.store(value, loops.at(given["values"], far))
    loops.store(loops.load(number, I64, 8), given["found"], 8)
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
    function = _function()
    places, values = [np.zeros(0, kind)], [np.zeros(0, np.float32)]
    some, their, found = np.empty(CHUNK + 1, np.uint32), np.empty(CHUNK + 1, np.float32), np.zeros(1, np.int64)
    for start in range(0, flat.size, CHUNK):
        part = flat[start : start + CHUNK]
        if function is None or part.size % _BLOCK:
            at = np.flatnonzero(part != 0)  # much faster on truth values than on floats
            places.append((at + start).astype(kind))
            values.append(part[at])
            continue
        function(part.ctypes.data, part.size, some.ctypes.data, their.ctypes.data, found.ctypes.data)
        count = int(found[0])
        places.append(some[:count] + kind(start))
        values.append(their[:count].copy())
    return np.concatenate(places), np.concatenate(values)
