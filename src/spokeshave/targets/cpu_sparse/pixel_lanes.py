"""Pixel lanes: neighbouring outputs of a row in the lanes of a vector, for batches smaller than a vector.

Activations are rows of floats that begin at a vector's boundary; what stands behind a row's last pixel means nothing.
A convolution wants its input as one plane for each (channel, kernel column), shifted by that column and thinned by the
stride, so that all of its loads are aligned: a misaligned load crosses a cache line and takes two of the two loads that
a core can do a cycle.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from llvmlite import ir

from spokeshave.jit.host_cpu import VectorSet
from spokeshave.jit.native_loops import F32, I32, POINTER, Loops
from spokeshave.jit.operation_loops import OperationLoops
from spokeshave.targets.cpu_sparse.plane_operations import Operation, splat


@dataclass(frozen=True)
class RowShifts:
    """How a row of pixels becomes the rows that the kernel's columns read.

    Attributes:
        width: pixels of a row.
        outputs: outputs of a row.
        taps: columns of the kernel.
        stride: pixels from one output to the next.
        dilation: pixels from one tap to the next.
        padding: zeros on the left; on the right as many as are needed.
    """

    width: int
    outputs: int
    taps: int
    stride: int = 1
    dilation: int = 1
    padding: int = 0

    def source(self, tap: int, output: int) -> int | None:
        """The pixel that a tap reads for an output; none in the padding."""
        pixel = output * self.stride + tap * self.dilation - self.padding
        return pixel if 0 <= pixel < self.width else None


def gather(loops: Loops, row: list[ir.Value], fill: ir.Value, sources: list[int | None]) -> ir.Value:
    """A vector whose lanes come from given pixels of a row that is held in registers; others come from `fill`."""
    lanes = loops.vectors.lanes
    result = fill
    for number in sorted({pixel // lanes for pixel in sources if pixel is not None}):
        mask = [
            lanes + pixel % lanes if pixel is not None and pixel // lanes == number else lane
            for lane, pixel in enumerate(sources)
        ]
        choice = ir.Constant(ir.VectorType(I32, lanes), mask)
        result = loops.builder.shuffle_vector(result, row[number], choice)
    return result


def load_first(loops: Loops, pointer: ir.Value, count: int) -> ir.Value:
    """A vector whose first `count` floats come from any address; the others are 0, and what lies there is not read."""
    lanes, build = loops.vectors.lanes, loops.builder
    name = f"llvm.masked.load.v{lanes}f32.p0"
    mask = ir.VectorType(ir.IntType(1), lanes)
    function = loops.module.globals.get(name)
    if function is None:
        signature = ir.FunctionType(loops.vector, [POINTER, I32, mask, loops.vector])
        function = ir.Function(loops.module, signature, name)
    wanted = ir.Constant(mask, [int(lane < count) for lane in range(lanes)])
    return build.call(function, [pointer, I32(4), wanted, splat(loops, 0.0)])


@cache
def shifter(vectors: VectorSet, shifts: RowShifts, packed: bool = False) -> Operation:
    """Operation that lays out the shifted planes of channels, its items, with rows of zeros above and below.

    Args:
        vectors: set of instructions.
        shifts: of each row.
        packed: rows of the source follow one another without gaps, at any address.

    Fields: source_at, source_plane, source_row, rows; target_at (of the first tap's first row of zeros), target_plane
    (from one tap's plane to the next), target_row; border (rows of zeros on either side).
    """
    ends = [f"{what}_{part}" for what in ("source", "target") for part in ("at", "plane", "row")]
    loops = OperationLoops("shift", vectors, [*ends, "rows", "border"])
    lanes, given, build = vectors.lanes, loops.arguments, loops.builder
    zero = splat(loops, 0.0)
    across = [number * vectors.bytes for number in range(-(-shifts.outputs // lanes))]

    def places(end: ir.Value) -> Iterator[tuple[int, int, ir.Value]]:
        """Tap, number of the vector and address of everything that a row becomes."""
        for tap in range(shifts.taps):
            to = loops.at(end, loops.times(given["target_plane"], tap))
            yield from ((tap, number, loops.at(to, far)) for number, far in enumerate(across))

    with loops.items() as channel:
        plane = loops.at(given["source_at"], loops.times(channel, given["source_plane"]))
        planes = loops.at(given["target_at"], loops.times(loops.times(channel, shifts.taps), given["target_plane"]))
        below = build.add(given["border"], given["rows"])
        for first, last in ((loops.integer(0), given["border"]), (below, build.add(below, given["border"]))):
            with loops.loop(first, last) as row:
                for _, _, place in places(loops.at(planes, loops.times(row, given["target_row"]))):
                    loops.store(zero, place, vectors.bytes)
        with loops.loop(0, given["rows"]) as row:
            start = loops.at(plane, loops.times(row, given["source_row"]))
            pixels = []
            for first in range(0, shifts.width, lanes):
                place = loops.at(start, 4 * first)
                left = shifts.width - first
                if packed:
                    pixels.append(load_first(loops, place, left) if left < lanes else loops.load(place))
                else:
                    pixels.append(loops.load(place, align=vectors.bytes))
            end = loops.at(planes, loops.times(build.add(row, given["border"]), given["target_row"]))
            for tap, number, place in places(end):
                wanted = [shifts.source(tap, number * lanes + lane) for lane in range(lanes)]
                loops.store(gather(loops, pixels, zero, wanted), place, vectors.bytes)
    return Operation(loops.compile(), loops)


@cache
def row_copier(vectors: VectorSet, width: int) -> Operation:
    """Operation that copies rows of `width` floats at any address, and not one float more; its items are planes.

    Fields: source_at, source_plane, source_row, target_at, target_plane, target_row, rows.
    """
    ends = [f"{what}_{part}" for what in ("source", "target") for part in ("at", "plane", "row")]
    loops = OperationLoops("copy_rows", vectors, [*ends, "rows"])
    given = loops.arguments
    whole = width // vectors.lanes * vectors.lanes
    with loops.items() as plane:
        source = loops.at(given["source_at"], loops.times(plane, given["source_plane"]))
        target = loops.at(given["target_at"], loops.times(plane, given["target_plane"]))
        with loops.loop(0, given["rows"]) as row:
            start = loops.at(source, loops.times(row, given["source_row"]))
            end = loops.at(target, loops.times(row, given["target_row"]))
            with loops.loop(0, whole, vectors.lanes) as place:
                far = loops.times(place, 4)
                loops.store(loops.load(loops.at(start, far)), loops.at(end, far))
            for place in range(whole, width):
                loops.store(loops.load(loops.at(start, 4 * place), F32), loops.at(end, 4 * place))
    return Operation(loops.compile(), loops)
