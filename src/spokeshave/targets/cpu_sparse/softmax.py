"""Softmax: exp(x - m) / sum exp(x - m), m the largest, over planes or along one padded row of features.

    exp(y) = 2^n p(y - n ln 2), n = round(y / ln 2), p the interpolation of exp by Chebyshev polynomials of degree 6

The reduction of the range, with ln 2 in two parts, is that of Cody and Waite, *Software Manual for the Elementary
Functions*, 1980; sums are compensated (Kahan, *Further remarks on reducing truncation errors*, CACM 1965), so that a
thousand classes lose no more digits than ten. All of it is vector arithmetic: no function of the C library is called.

Departs from torch: an exponential below 1.2e-38, the smallest normal number, counts as 0.
"""

from collections.abc import Callable
from math import log

import numpy as np
from llvmlite import ir
from numpy.polynomial import Chebyshev, Polynomial

from spokeshave.jit.generated_operation import generated
from spokeshave.jit.host_cpu import VectorSet
from spokeshave.jit.native_loops import I32, I64, Loops
from spokeshave.jit.operation_loops import OperationLoops
from spokeshave.targets.cpu_sparse.plane_operations import splat

_HALF = log(2) / 2
_POLYNOMIAL = tuple(float(c) for c in Chebyshev.interpolate(np.exp, 6, [-_HALF, _HALF]).convert(kind=Polynomial).coef)
_LOG2_HIGH = 355 / 512
"""Most of ln 2, in 9 bits: times a whole number up to 126 it is exact even where multiplying and adding round twice."""
_ROUNDING = 1.5 * 2**23
"""A float32 plus this has no room for a fraction, and its last bits hold the whole number."""
_LEAST = -87.33
"""exp of it is a little above 2^-126."""


def exponential(loops: Loops, value: ir.Value) -> ir.Value:
    """exp(value) of a vector, to about 1e-7 relative; 0 where it is below 1.2e-38; NaN stays NaN.

    Args:
        loops: function under construction.
        value: a vector of numbers up to 0, -inf included; what is larger than 88 gives any number.
    """
    build = loops.builder
    shifted = loops.multiply_add(value, splat(loops, 1 / log(2)), splat(loops, _ROUNDING))
    whole = build.fsub(shifted, splat(loops, _ROUNDING))
    rest = loops.multiply_add(whole, splat(loops, -_LOG2_HIGH), value)
    rest = loops.multiply_add(whole, splat(loops, _LOG2_HIGH - log(2)), rest)
    result = splat(loops, _POLYNOMIAL[-1])
    for coefficient in _POLYNOMIAL[-2::-1]:
        result = loops.multiply_add(result, rest, splat(loops, coefficient))
    bits = ir.VectorType(I32, loops.vectors.lanes)
    exponent = build.add(build.bitcast(shifted, bits), ir.Constant(bits, [127] * loops.vectors.lanes))
    power = build.bitcast(build.shl(exponent, ir.Constant(bits, [23] * loops.vectors.lanes)), loops.vector)
    # A product, not a sum of exponents: that would turn some NaN into numbers.
    tiny = build.fcmp_ordered("<", value, splat(loops, _LEAST))
    return build.select(tiny, splat(loops, 0.0), build.fmul(result, power))


def _larger(loops: Loops, one: ir.Value, other: ir.Value) -> ir.Value:
    """The larger of each pair; `other` where one is NaN, which the exponentials bring back."""
    return loops.builder.select(loops.builder.fcmp_ordered(">", one, other), one, other)


def _over_lanes(loops: Loops, value: ir.Value, combine: Callable[[ir.Value, ir.Value], ir.Value]) -> ir.Value:
    """All lanes combined, in every lane."""
    lanes = loops.vectors.lanes
    span = lanes // 2
    while span:
        mask = ir.Constant(ir.VectorType(I32, lanes), [lane ^ span for lane in range(lanes)])
        value = combine(value, loops.builder.shuffle_vector(value, ir.Constant(loops.vector, ir.Undefined), mask))
        span //= 2
    return value


def _shares(
    loops: Loops,
    count: ir.Value | int,
    read: Callable[[ir.Value], ir.Value],
    place: Callable[[ir.Value], ir.Value],
    together: bool,
) -> None:
    """Write the share of each number.

    Args:
        loops: function under construction.
        count: vectors.
        read: vector of that number, -inf in lanes that are not to count.
        place: where its result goes, apart from what is read.
        together: all lanes of all vectors make one sum; otherwise each lane is a matter of its own.
    """
    build, align = loops.builder, loops.vectors.bytes
    largest, total, lost = loops.variable(), loops.variable(), loops.variable()
    for variable, start in ((largest, -np.inf), (total, 0.0), (lost, 0.0)):
        loops.store(splat(loops, start), variable, align)
    with loops.loop(0, count) as number:
        loops.store(_larger(loops, read(number), loops.load(largest, align=align)), largest, align)
    top = loops.load(largest, align=align)
    if together:
        top = _over_lanes(loops, top, lambda one, other: _larger(loops, one, other))
    with loops.loop(0, count) as number:
        value = exponential(loops, build.fsub(read(number), top))
        loops.store(value, place(number), align)
        before = loops.load(total, align=align)
        summand = build.fsub(value, loops.load(lost, align=align))
        after = build.fadd(before, summand)
        loops.store(build.fsub(build.fsub(after, before), summand), lost, align)
        loops.store(after, total, align)
    whole = loops.load(total, align=align)
    if together:
        whole = _over_lanes(loops, whole, build.fadd)
    inverse = build.fdiv(splat(loops, 1.0), whole)
    with loops.loop(0, count) as number:
        end = place(number)
        loops.store(build.fmul(loops.load(end, align=align), inverse), end, align)


@generated
def softmax_over_planes(vectors: VectorSet) -> OperationLoops:
    """Operation over planes, for each pixel and image by itself; its items are rows.

    Fields: source_at, source_plane, source_row, target_at, target_plane, target_row, planes, columns (vectors).
    """
    names = [f"{what}_{part}" for what in ("source", "target") for part in ("at", "plane", "row")]
    loops = OperationLoops("softmax_over_planes", vectors, [*names, "planes", "columns"])
    given = loops.arguments
    with loops.items() as row, loops.loop(0, given["columns"]) as column:
        across = loops.times(column, vectors.bytes)
        start, end = (
            loops.at(given[f"{what}_at"], loops.times(row, given[f"{what}_row"]), across)
            for what in ("source", "target")
        )
        _shares(
            loops,
            given["planes"],
            lambda plane: loops.load(loops.at(start, loops.times(plane, given["source_plane"])), align=vectors.bytes),
            lambda plane: loops.at(end, loops.times(plane, given["target_plane"])),
            together=False,
        )
    return loops


@generated
def softmax_along_row(vectors: VectorSet, features: int) -> OperationLoops:
    """Operation over `features` floats side by side, in whole vectors; what stands behind them does not count.

    Its one item is the row. Fields: source_at, target_at, each at a vector's boundary.
    """
    loops = OperationLoops("softmax_along_row", vectors, ["source_at", "target_at"])
    given, build, lanes = loops.arguments, loops.builder, vectors.lanes
    count = -(-features // lanes)
    kept = features - (count - 1) * lanes
    inside = ir.Constant(ir.VectorType(ir.IntType(1), lanes), [int(lane < kept) for lane in range(lanes)])

    def read(number: ir.Value) -> ir.Value:
        value = loops.load(loops.at(given["source_at"], loops.times(number, vectors.bytes)), align=vectors.bytes)
        if kept == lanes:
            return value
        last = build.icmp_signed("==", number, I64(count - 1))
        return build.select(last, build.select(inside, value, splat(loops, -np.inf)), value)

    with loops.items():
        _shares(
            loops,
            count,
            read,
            lambda number: loops.at(given["target_at"], loops.times(number, vectors.bytes)),
            together=True,
        )
    return loops
