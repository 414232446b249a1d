"""Plane operations: what stands between convolutions, written once for both layouts, vector by vector.

Rectification, sums, per-channel scaling, local response normalization (Krizhevsky et al., NIPS 2012). Each is an
operation (`jit/operation_loops.py`) over patches of planes, or over rows; a vector holds images or pixels, which makes
no difference.
"""

from dataclasses import dataclass

from llvmlite import ir

from spokeshave.jit.generated_operation import generated
from spokeshave.jit.host_cpu import VectorSet
from spokeshave.jit.native_loops import F32, I64, Loops
from spokeshave.jit.operation_loops import PATCH_FIELDS, OperationLoops


def splat(loops: Loops, value: float | ir.Value) -> ir.Value:
    """A vector with one value in all lanes."""
    lanes = loops.vectors.lanes
    if not isinstance(value, ir.Value):
        return ir.Constant(loops.vector, [float(value)] * lanes)
    first = loops.builder.insert_element(ir.Constant(loops.vector, ir.Undefined), value, I64(0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
    return loops.builder.shuffle_vector(first, ir.Constant(loops.vector, ir.Undefined), zeros)


def rectified(loops: Loops, value: ir.Value) -> ir.Value:
    """max(value, 0) that leaves NaN as it is."""
    zero = splat(loops, 0.0)
    return loops.builder.select(loops.builder.fcmp_ordered("<", value, zero), zero, value)


class Step:
    """One elementwise step of a chain; the numbers are part of the generated code."""


@dataclass(frozen=True)
class Rectify(Step):
    """max(x, 0)."""


@dataclass(frozen=True)
class Scale(Step):
    """factor * x + shift, the same for every plane."""

    factor: float
    shift: float


@dataclass(frozen=True)
class PlaneScale(Step):
    """factor[plane] * x + shift[plane]: normalization by fixed statistics."""


@dataclass(frozen=True)
class Power(Step):
    """x ** exponent."""

    exponent: float


@dataclass(frozen=True)
class Combine(Step):
    """x + y or x * y with the second input."""

    multiply: bool = False


@generated
def elementwise(vectors: VectorSet, steps: tuple[Step, ...], flat: bool = False) -> OperationLoops:
    """Operation that applies steps to every vector of some planes; to flat features side by side, where `flat`.

    Fields: source_at, source_plane, source_row, other_at, other_plane, other_row, target_at, target_plane, target_row,
    those of patches, columns (vectors), scales_at (float32 pairs of factor and shift a plane; where flat, a vector of
    factors and a vector of shifts for each column).
    """
    names = [f"{what}_{part}" for what in ("source", "other", "target") for part in ("at", "plane", "row")]
    loops = OperationLoops("elementwise", vectors, [*names, *PATCH_FIELDS, "columns", "scales_at"])
    given, build = loops.arguments, loops.builder
    paired = any(isinstance(step, Combine) for step in steps)
    with loops.patches() as (plane, first, last):
        scales = loops.at(given["scales_at"], loops.times(plane, 8))
        with loops.loop(first, last) as row, loops.loop(0, given["columns"]) as column:
            across = loops.times(column, vectors.bytes)
            places = {
                what: loops.at(
                    given[f"{what}_at"],
                    loops.times(plane, given[f"{what}_plane"]),
                    loops.times(row, given[f"{what}_row"]),
                    across,
                )
                for what in ("source", *(("other",) if paired else ()), "target")
            }
            value = loops.load(places["source"], align=vectors.bytes)
            for step in steps:
                match step:
                    case Rectify():
                        value = rectified(loops, value)
                    case Scale(factor, shift):
                        value = build.fadd(build.fmul(value, splat(loops, factor)), splat(loops, shift))
                    case PlaneScale() if flat:
                        pair = loops.at(given["scales_at"], across, across)
                        shift = loops.load(loops.at(pair, vectors.bytes))
                        value = build.fadd(build.fmul(value, loops.load(pair)), shift)
                    case PlaneScale():
                        factor = splat(loops, loops.load(scales, F32))
                        shift = splat(loops, loops.load(loops.at(scales, 4), F32))
                        value = build.fadd(build.fmul(value, factor), shift)
                    case Power(exponent):
                        value = power(loops, value, exponent)
                    case Combine(multiply):
                        other = loops.load(places["other"], align=vectors.bytes)
                        value = build.fmul(value, other) if multiply else build.fadd(value, other)
            loops.store(value, places["target"], vectors.bytes)
    return loops


def power(loops: Loops, value: ir.Value, exponent: float) -> ir.Value:
    """value ** exponent; multiples of a quarter by square roots, which are exact to the last bit, others by `pow`."""
    quarters = exponent * 4
    if quarters == round(quarters) and abs(quarters) <= 16:
        return _quarters(loops, value, round(quarters))
    return loops.intrinsic("pow", value, splat(loops, exponent))


def _quarters(loops: Loops, value: ir.Value, quarters: int) -> ir.Value:
    build = loops.builder
    whole, rest = divmod(abs(quarters), 4)
    factors = [value] * whole
    if rest >= 2:
        factors.append(loops.intrinsic("sqrt", value))
    if rest % 2:
        factors.append(loops.intrinsic("sqrt", loops.intrinsic("sqrt", value)))
    product = splat(loops, 1.0)
    for number, factor in enumerate(factors):
        product = factor if number == 0 else build.fmul(product, factor)
    return product if quarters >= 0 else build.fdiv(splat(loops, 1.0), product)


@generated
def response_normalization(vectors: VectorSet, size: int, alpha: float, beta: float, k: float) -> OperationLoops:
    """Operation x / (k + alpha / size * sum of squares over neighbouring planes) ** beta.

    Its items are rows. Fields: source_at, source_plane, source_row, target_at, target_plane, target_row, planes,
    columns."""
    names = [f"{what}_{part}" for what in ("source", "target") for part in ("at", "plane", "row")]
    loops = OperationLoops("response_normalization", vectors, [*names, "planes", "columns"])
    given, build = loops.arguments, loops.builder
    with loops.items() as row, loops.loop(0, given["columns"]) as column, loops.loop(0, given["planes"]) as plane:
        across = loops.times(column, vectors.bytes)
        start = loops.at(given["source_at"], loops.times(row, given["source_row"]), across)
        total = splat(loops, 0.0)
        for step in range(-(size // 2), (size - 1) // 2 + 1):  # as torch pads: one more before than after, if even
            near = build.add(plane, I64(step))
            inside = build.and_(build.icmp_signed(">=", near, I64(0)), build.icmp_signed("<", near, given["planes"]))
            safe = build.select(inside, near, plane)
            value = loops.load(loops.at(start, loops.times(safe, given["source_plane"])), align=vectors.bytes)
            square = build.fmul(value, value)
            total = build.fadd(total, build.select(inside, square, splat(loops, 0.0)))
        base = build.fadd(build.fmul(total, splat(loops, alpha / size)), splat(loops, k))
        centre = loops.load(loops.at(start, loops.times(plane, given["source_plane"])), align=vectors.bytes)
        end = loops.at(
            given["target_at"],
            loops.times(plane, given["target_plane"]),
            loops.times(row, given["target_row"]),
            across,
        )
        loops.store(build.fmul(centre, power(loops, base, -beta)), end, vectors.bytes)
    return loops
