"""Work loop: what each thread runs of a convolution: the calls of one share of the filters over one tile, item by item.

Which tile and which share an item is stands in a table, so that their order is free (`item_order`).
"""

from itertools import pairwise

from llvmlite import ir

from spokeshave.jit.generated_operation import generated
from spokeshave.jit.host_cpu import host_cpu
from spokeshave.jit.native_loops import I64, POINTER
from spokeshave.jit.operation_loops import MOST_RANGES, OperationLoops
from spokeshave.jit.operation_sequence import call_function

FIELDS = ("places_at", "input_at", "output_at", "residual_at", "scratch_at", "scratch_thread")
"""places_at: for each item five int64: offsets in input, output and residual, address of the calls, of the stream.
scratch_thread: bytes of scratch memory of each thread."""
_CALLS = ir.FunctionType(ir.VoidType(), [POINTER] * 5)


def item_order(tiles: int, shares: int, threads: int) -> list[tuple[int, int]]:
    """Tile and share of each item.

    Each thread begins with its own band of tiles, or, where there are too few, of shares: it goes through the tiles of
    its band share by share, since neighbouring items then reuse the share's program and weights.

    Example:
        >>> item_order(tiles=2, shares=2, threads=1)
        [(0, 0), (1, 0), (0, 1), (1, 1)]
        >>> item_order(tiles=2, shares=2, threads=2)
        [(0, 0), (0, 1), (1, 0), (1, 1)]
    """
    pairs = [(tile, share) for tile in range(tiles) for share in range(shares)]
    ranges = min(threads, MOST_RANGES, len(pairs))
    borders = [number * len(pairs) // ranges for number in range(ranges + 1)]
    order = []
    for first, last in pairwise(borders):
        order += sorted(pairs[first:last], key=lambda pair: pair[::-1])
    return order


@generated
def work_loop() -> OperationLoops:
    """The loop."""
    vectors = host_cpu().widest()
    assert vectors is not None
    loops = OperationLoops("work_loop", vectors, FIELDS)
    given, build = loops.arguments, loops.builder
    scratch = loops.at(given["scratch_at"], loops.times(loops.thread, given["scratch_thread"]))
    with loops.items() as item:
        place = loops.at(given["places_at"], loops.times(item, 40))
        parts = [loops.load(loops.at(place, 8 * number), I64, 8) for number in range(5)]
        source, target, residual = (
            loops.at(given[f"{name}_at"], far)
            for name, far in zip(("input", "output", "residual"), parts, strict=False)
        )
        stream = build.inttoptr(parts[4], POINTER)
        call_function(build, _CALLS, parts[3], [stream, source, scratch, target, residual])
    return loops
