"""Pixel lanes: neighbouring outputs of a row in the lanes of a vector, for batches smaller than a vector.

Activations are rows of floats that begin at a vector's boundary; what stands behind a row's last pixel means nothing.
A convolution wants its input as one plane for each (channel, kernel column), shifted by that column and thinned by the
stride, so that all of its loads are aligned: a misaligned load crosses a cache line and takes two of the two loads that
a core can do a cycle.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from llvmlite import ir

from spokeshave.jit.generated_operation import generated
from spokeshave.jit.host_cpu import VectorSet
from spokeshave.jit.native_loops import I32, I64, Loops
from spokeshave.jit.operation_loops import PATCH_FIELDS, OperationLoops
from spokeshave.targets.cpu_sparse.plane_operations import splat


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
    name = f"llvm.masked.load.v{loops.vectors.lanes}f32.p0"
    return loops.call(name, loops.vector, pointer, I32(4), _first(loops, count), splat(loops, 0.0))


def store_first(loops: Loops, value: ir.Value, pointer: ir.Value, count: int) -> None:
    """Write the first `count` floats of a vector to any address, and nothing else."""
    name = f"llvm.masked.store.v{loops.vectors.lanes}f32.p0"
    loops.call(name, ir.VoidType(), value, pointer, I32(4), _first(loops, count))


def _first(loops: Loops, count: int) -> ir.Constant:
    lanes = loops.vectors.lanes
    return ir.Constant(ir.VectorType(ir.IntType(1), lanes), [int(lane < count) for lane in range(lanes)])


@generated
def shifter(vectors: VectorSet, shifts: RowShifts, packed: bool = False) -> OperationLoops:
    """Operation that lays out the shifted planes of channels, with rows of zeros above and below.

    Args:
        vectors: set of instructions.
        shifts: of each row.
        packed: rows of the source follow one another without gaps, at any address.

    Fields: those of patches, of the source; source_at, source_plane, source_row; target_at (of the first tap's first
    row of zeros), target_plane (from one tap's plane to the next), target_row; border (rows of zeros on either side).
    """
    ends = [f"{what}_{part}" for what in ("source", "target") for part in ("at", "plane", "row")]
    loops = OperationLoops("shift", vectors, [*ends, *PATCH_FIELDS, "border"])
    lanes, given, build = vectors.lanes, loops.arguments, loops.builder
    zero = splat(loops, 0.0)
    across = [number * vectors.bytes for number in range(-(-shifts.outputs // lanes))]

    def places(end: ir.Value) -> Iterator[tuple[int, int, ir.Value]]:
        """Tap, number of the vector and address of everything that a row becomes."""
        for tap in range(shifts.taps):
            to = loops.at(end, loops.times(given["target_plane"], tap))
            yield from ((tap, number, loops.at(to, far)) for number, far in enumerate(across))

    with loops.patches() as (channel, begin, end):
        plane = loops.at(given["source_at"], loops.times(channel, given["source_plane"]))
        planes = loops.at(given["target_at"], loops.times(loops.times(channel, shifts.taps), given["target_plane"]))
        below = build.add(given["border"], given["rows"])
        above = build.select(build.icmp_signed("==", begin, I64(0)), given["border"], I64(0))
        rest = build.select(build.icmp_signed("==", end, given["rows"]), given["border"], I64(0))
        for first, last in ((I64(0), above), (below, build.add(below, rest))):
            with loops.loop(first, last) as row:
                for _, _, place in places(loops.at(planes, loops.times(row, given["target_row"]))):
                    loops.store(zero, place, vectors.bytes)
        with loops.loop(begin, end) as row:
            start = loops.at(plane, loops.times(row, given["source_row"]))
            pixels = []
            for first in range(0, shifts.width, lanes):
                place = loops.at(start, 4 * first)
                left = shifts.width - first
                if packed:
                    pixels.append(load_first(loops, place, left) if left < lanes else loops.load(place))
                else:
                    pixels.append(loops.load(place, align=vectors.bytes))
            line = loops.at(planes, loops.times(build.add(row, given["border"]), given["target_row"]))
            for tap, number, place in places(line):
                wanted = [shifts.source(tap, number * lanes + lane) for lane in range(lanes)]
                loops.store(gather(loops, pixels, zero, wanted), place, vectors.bytes)
    return loops


@generated
def row_copier(vectors: VectorSet, width: int) -> OperationLoops:
    """Operation that copies rows of `width` floats at any address, and not one float more.

    Fields: source_at, source_plane, source_row, target_at, target_plane, target_row, those of patches.
    """
    ends = [f"{what}_{part}" for what in ("source", "target") for part in ("at", "plane", "row")]
    loops = OperationLoops("copy_rows", vectors, [*ends, *PATCH_FIELDS])
    given = loops.arguments
    whole = width // vectors.lanes * vectors.lanes
    with loops.patches() as (plane, first, last):
        source = loops.at(given["source_at"], loops.times(plane, given["source_plane"]))
        target = loops.at(given["target_at"], loops.times(plane, given["target_plane"]))
        with loops.loop(first, last) as row:
            start = loops.at(source, loops.times(row, given["source_row"]))
            end = loops.at(target, loops.times(row, given["target_row"]))
            with loops.loop(0, whole, vectors.lanes) as place:
                far = loops.times(place, 4)
                loops.store(loops.load(loops.at(start, far)), loops.at(end, far))
            if whole and whole < width:
                # Some floats once more: on Zen 3, writing a part of a vector made the whole copy take twice the time.
                last = 4 * (width - vectors.lanes)
                loops.store(loops.load(loops.at(start, last)), loops.at(end, last))
            elif width > whole:
                store_first(loops, load_first(loops, start, width), end, width)
    return loops
