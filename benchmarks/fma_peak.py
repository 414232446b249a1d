"""The FMA peak of one core: multiply-adds on registers alone, by the same code generator as the kernels.

Independent accumulators hide the latency; nothing is loaded inside the loop. What a convolution reaches of it is its
share of the peak, measured in the same run, since a machine that others use does not always run at the same frequency.
"""

import time
from functools import cache
from typing import Any

import numpy as np

from spokeshave.jit.host_cpu import host_cpu
from spokeshave.jit.native_loops import I64, POINTER, Loops

_TURNS = 100_000
_IN_REGISTERS = 3 / 4
"""Share of the registers that hold accumulators; two more hold the factors."""


@cache
def _multiply_adds() -> tuple[Any, int]:
    vectors = host_cpu().widest()
    assert vectors is not None, "no code is generated for this CPU"
    loops = Loops("fma_peak", vectors, data=POINTER, turns=I64)
    data = loops.arguments["data"]
    count = int(_IN_REGISTERS * vectors.registers)
    factor, other = loops.load(data), loops.load(loops.at(data, vectors.bytes))
    sums = [loops.variable() for _ in range(count)]
    for place in sums:
        loops.store(other, place, vectors.bytes)
    with loops.loop(0, loops.arguments["turns"]):
        for place in sums:
            loops.store(loops.multiply_add(loops.load(place, align=vectors.bytes), factor, other), place, vectors.bytes)
    for number, place in enumerate(sums):
        loops.store(loops.load(place, align=vectors.bytes), loops.at(data, number * vectors.bytes))
    return loops.compile(), 2 * count * vectors.lanes


def fma_peak_gflops(calls: int = 5) -> list[float]:
    """Measure.

    Args:
        calls: how often; each takes about a millisecond.

    Returns:
        GFLOP/s of each call, in CPU time of the process; a multiply-add counts as 2.
    """
    function, flops_a_turn = _multiply_adds()
    data = np.full(4096, 0.5, np.float32)
    rates = []
    for _ in range(calls + 1):
        data[:] = 0.5
        first = time.process_time()
        function(data.ctypes.data, _TURNS)
        rates.append(_TURNS * flops_a_turn / (time.process_time() - first) / 1e9)
    return rates[1:]
