"""Pooling: the largest or the mean value of windows, for both layouts, with padding and torch's ceil mode.

A window's part outside the image is left out; what a mean is divided by comes in a table, so every convention fits.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir

from spokeshave.jit.generated_operation import generated
from spokeshave.jit.host_cpu import VectorSet
from spokeshave.jit.native_loops import I64, Loops
from spokeshave.jit.operation_loops import PATCH_FIELDS, OperationLoops
from spokeshave.targets.cpu_sparse.pixel_lanes import RowShifts, gather
from spokeshave.targets.cpu_sparse.plane_operations import splat


@dataclass(frozen=True)
class Windows:
    """Windows along one axis.

    Attributes:
        size: pixels of the axis.
        window: pixels of a window.
        stride: pixels from one window to the next.
        padding: pixels before the first.
        dilation: pixels from one element of a window to the next.
        ceil: also a last window that begins inside and ends outside, as `ceil_mode=True`.
    """

    size: int
    window: int
    stride: int
    padding: int = 0
    dilation: int = 1
    ceil: bool = False

    @property
    def outputs(self) -> int:
        """How many windows there are.

        Example:
            >>> Windows(55, 3, 2).outputs, Windows(32, 3, 2).outputs, Windows(32, 3, 2, ceil=True).outputs
            (27, 15, 16)
        """
        room = self.size + 2 * self.padding - self.dilation * (self.window - 1) - 1
        count = (-(-room // self.stride) if self.ceil else room // self.stride) + 1
        if self.ceil and (count - 1) * self.stride >= self.size + self.padding:
            count -= 1  # as torch: a window may not begin in the padding on the right
        return count

    def ranges(self) -> np.ndarray:
        """First pixel and number of elements inside the image of each window: int64, [outputs, 2]."""
        begin = np.arange(self.outputs) * self.stride - self.padding
        steps = begin[:, None] + np.arange(self.window) * self.dilation
        inside = (steps >= 0) & (steps < self.size)
        first = np.where(inside.any(1), steps[np.arange(len(steps)), inside.argmax(1)], 0)
        return np.stack([first, inside.sum(1)], axis=1)

    def counted(self, include_padding: bool) -> np.ndarray:
        """What a mean is divided by along this axis: int64, [outputs]."""
        if not include_padding:
            return self.ranges()[:, 1]
        begin = np.arange(self.outputs) * self.stride - self.padding
        return np.minimum(begin + self.window, self.size + self.padding) - begin


MOST_WIRED = 25
"""Elements of a window that is read without a loop."""


def _combine(loops: Loops, mean: bool, value: ir.Value, other: ir.Value) -> ir.Value:
    build = loops.builder
    if mean:
        return build.fadd(value, other)
    keep = build.fcmp_unordered(">", value, other)  # true where one is NaN; the second choice settles which
    larger = build.select(keep, value, other)
    return build.select(build.fcmp_unordered("uno", other, other), other, larger)


def _combine_all(loops: Loops, mean: bool, values: list[ir.Value]) -> ir.Value:
    """Sum or largest of several vectors, in as few steps one after another as there can be."""
    build = loops.builder
    strange = None  # where one is NaN: asked of two at a time, since a plain maximum forgets one of its arguments
    for one, other in zip(values[::2], values[1::2] + values[-1:], strict=False):
        unordered = build.fcmp_unordered("uno", one, other)
        strange = unordered if strange is None else build.or_(strange, unordered)
    while len(values) > 1:
        pairs = zip(values[::2], values[1::2], strict=False)
        rest = values[-1:] if len(values) % 2 else []
        if mean:
            values = [build.fadd(one, other) for one, other in pairs] + rest
        else:
            values = [build.select(build.fcmp_ordered(">", one, other), one, other) for one, other in pairs] + rest
    return values[0] if mean else build.select(strange, splat(loops, np.nan), values[0])


@generated
def batch_lanes_pooling(
    vectors: VectorSet, mean: bool, window: tuple[int, int], dilation: tuple[int, int]
) -> OperationLoops:
    """Operation over planes of batch lanes; windows that lie inside the image are wired into the code.

    Fields: source_at, source_plane, source_row, target_at, target_plane, target_row, those of patches (rows of the
    target), columns, row_ranges_at, column_ranges_at (int64 pairs: first pixel, count), inverse_at (float32 for each
    output of a plane; for means).
    """
    names = [f"{what}_{part}" for what in ("source", "target") for part in ("at", "plane", "row")]
    tables = [*PATCH_FIELDS, "columns", "row_ranges_at", "column_ranges_at", "inverse_at"]
    loops = OperationLoops("pooling", vectors, [*names, *tables])
    given, build = loops.arguments, loops.builder
    start_value = splat(loops, 0.0 if mean else -np.inf)
    with loops.patches() as (plane, top, bottom):
        source = loops.at(given["source_at"], loops.times(plane, given["source_plane"]))
        target = loops.at(given["target_at"], loops.times(plane, given["target_plane"]))
        with loops.loop(top, bottom) as row, loops.loop(0, given["columns"]) as column:
            first_row, rows = _range(loops, given["row_ranges_at"], row)
            first_column, columns = _range(loops, given["column_ranges_at"], column)
            total = loops.variable()
            corner = loops.at(
                source, loops.times(first_row, given["source_row"]), loops.times(first_column, vectors.bytes)
            )

            def element(y: Any, x: Any, corner: ir.Value = corner) -> ir.Value:
                down = build.mul(build.mul(loops.integer(y), I64(dilation[0])), given["source_row"])
                across = build.mul(loops.integer(x), I64(dilation[1] * vectors.bytes))
                return loops.load(loops.at(corner, down, across), align=vectors.bytes)

            whole = build.and_(
                build.icmp_signed("==", rows, I64(window[0])), build.icmp_signed("==", columns, I64(window[1]))
            )
            whole = build.and_(whole, ir.Constant(ir.IntType(1), int(window[0] * window[1] <= MOST_WIRED)))
            with build.if_else(whole) as (inside, at_the_edge):
                with inside:
                    places = [(y, x) for y in range(window[0]) for x in range(window[1])][:MOST_WIRED]
                    values = [element(*place) for place in places]
                    loops.store(_combine_all(loops, mean, values), total, vectors.bytes)
                with at_the_edge:
                    loops.store(start_value, total, vectors.bytes)
                    with loops.loop(0, rows) as y, loops.loop(0, columns) as x:
                        so_far = loops.load(total, align=vectors.bytes)
                        loops.store(_combine(loops, mean, so_far, element(y, x)), total, vectors.bytes)
            result = loops.load(total, align=vectors.bytes)
            if mean:
                number = build.add(loops.times(row, given["columns"]), column)
                inverse = loops.load(loops.at(given["inverse_at"], loops.times(number, 4)), ir.FloatType())
                result = build.fmul(result, splat(loops, inverse))
            end = loops.at(target, loops.times(row, given["target_row"]), loops.times(column, vectors.bytes))
            loops.store(result, end, vectors.bytes)
    return loops


def _range(loops: Loops, table: ir.Value, index: ir.Value) -> tuple[ir.Value, ir.Value]:
    pair = loops.at(table, loops.times(index, 16))
    return loops.load(pair, I64, 8), loops.load(loops.at(pair, 8), I64, 8)


@generated
def pixel_lanes_pooling(vectors: VectorSet, mean: bool, columns: Windows, row_dilation: int) -> OperationLoops:
    """Operation over planes of pixel lanes; the horizontal part is wired into the code.

    Fields: as for batch lanes, without columns and column_ranges_at; inverse_at has a row of whole vectors for each row
    of outputs.
    """
    names = [f"{what}_{part}" for what in ("source", "target") for part in ("at", "plane", "row")]
    loops = OperationLoops("pooling", vectors, [*names, *PATCH_FIELDS, "row_ranges_at", "inverse_at"])
    given, build = loops.arguments, loops.builder
    lanes = vectors.lanes
    fill = splat(loops, 0.0 if mean else -np.inf)
    shifts = RowShifts(columns.size, columns.outputs, columns.window, columns.stride, columns.dilation, columns.padding)
    with loops.patches() as (plane, top, bottom):
        source = loops.at(given["source_at"], loops.times(plane, given["source_plane"]))
        target = loops.at(given["target_at"], loops.times(plane, given["target_plane"]))
        width = -(-columns.size // lanes)
        totals = [loops.variable() for _ in range(width)]
        with loops.loop(top, bottom) as row:
            first, rows = _range(loops, given["row_ranges_at"], row)
            for total in totals:
                loops.store(fill, total, vectors.bytes)
            with loops.loop(0, rows) as y:
                line = loops.at(
                    source, loops.times(build.add(first, loops.times(y, row_dilation)), given["source_row"])
                )
                for number, total in enumerate(totals):
                    value = loops.load(loops.at(line, number * vectors.bytes), align=vectors.bytes)
                    loops.store(
                        _combine(loops, mean, loops.load(total, align=vectors.bytes), value), total, vectors.bytes
                    )
            pixels = [loops.load(total, align=vectors.bytes) for total in totals]
            for number in range(-(-columns.outputs // lanes)):
                result = fill
                for tap in range(columns.window):
                    wanted = [shifts.source(tap, number * lanes + lane) for lane in range(lanes)]
                    result = _combine(loops, mean, result, gather(loops, pixels, fill, wanted))
                if mean:
                    outputs = -(-columns.outputs // lanes)
                    place = build.add(loops.times(row, outputs), I64(number))
                    scale = loops.load(loops.at(given["inverse_at"], loops.times(place, vectors.bytes)))
                    result = build.fmul(result, scale)
                end = loops.at(target, loops.times(row, given["target_row"]), number * vectors.bytes)
                loops.store(result, end, vectors.bytes)
    return loops
