"""Ternary loops: generated code for gradients to packed codes, codes to packed sums, and back; one pass each.

TernGrad, Wen et al., NIPS 2017, equations 1 to 3. Random numbers are made where they are used, and nothing between a
gradient and the bytes on the wire is ever in memory. `ternary_packing` calls what is written here.
"""

import math
from collections.abc import Sequence
from typing import Any

from llvmlite import ir

from spokeshave.communication.counter_random import FIRST_FACTOR, RANDOM_BITS, SECOND_FACTOR
from spokeshave.communication.digit_packing import LANES, Packing
from spokeshave.communication.packing_loops import PackingLoops, digit_bytes
from spokeshave.jit.generated_operation import generated
from spokeshave.jit.host_cpu import VectorSet
from spokeshave.jit.native_loops import F32, I32, I64, POINTER, Loops

F64 = ir.DoubleType()
_ABS = 0x7FFFFFFF
_STREAMED = 1 << 19
"""Elements from which on results are written past the caches: nothing has to be read for them first, and what the
caches hold stays. Smaller layers may still be there when the optimizer comes."""
_SUMS_AT_ONCE = 4
"""Vectors that are summed side by side, so that one addition does not wait for the other."""


@generated
def statistics_loops(totals: bool, vectors: VectorSet) -> Loops:
    """Rows of (address, elements) -> rows of (max|g|, sum g, sum g**2), float64; the squares tell what is not finite.

    Without `totals` the sum of g is left at 0.
    """
    loops = PackingLoops("statistics", vectors, rows=POINTER, count=I64, found=POINTER)
    build, given = loops.builder, loops.arguments
    lanes, half = vectors.lanes, vectors.lanes // 2
    words, pairs = ir.VectorType(I32, lanes), ir.VectorType(F64, half)
    largest = [loops.variable() for _ in range(_SUMS_AT_ONCE)]
    sums = [[_memory(loops, pairs) for _ in range(2 * _SUMS_AT_ONCE)] for _ in range(2)]
    with loops.loop(0, given["count"]) as row:
        at = loops.at(given["rows"], loops.times(row, 16))
        source, elements = loops.load(at, POINTER, 8), loops.load(loops.at(at, 8), I64, 8)
        for place in largest:
            loops.store(loops.vector([0.0] * lanes), place)
        for place in (*sums[0], *sums[1]):
            loops.store(pairs([0.0] * half), place, 8)
        step = _SUMS_AT_ONCE * lanes
        whole = build.mul(build.udiv(elements, I64(step)), I64(step))

        def take(value: ir.Value, turn: int) -> None:
            size = build.bitcast(build.and_(build.bitcast(value, words), loops.splat(_ABS, words)), loops.vector)
            so_far = loops.load(largest[turn])
            loops.store(build.select(build.fcmp_ordered(">", size, so_far), size, so_far), largest[turn])
            for part in range(2):
                chosen = ir.VectorType(I32, half)(list(range(part * half, (part + 1) * half)))
                wide = build.fpext(build.shuffle_vector(value, value, chosen), pairs)
                total, squares = sums[0][2 * turn + part], sums[1][2 * turn + part]
                if totals:
                    loops.store(build.fadd(loops.load(total, pairs, 8), wide), total, 8)
                # The product of two float32 is exact in float64: fused or not, the sum is the same.
                fused = f"llvm.fmuladd.v{half}f64"
                loops.store(loops.call(fused, pairs, wide, wide, loops.load(squares, pairs, 8)), squares, 8)

        with loops.loop(0, whole, step) as first:
            for turn in range(_SUMS_AT_ONCE):
                place = loops.at(source, loops.times(first, 4), 4 * turn * lanes)
                take(loops.load(place), turn)
        with loops.loop(whole, elements) as last:
            one = loops.load(loops.at(source, loops.times(last, 4)), F32)
            take(build.insert_element(loops.vector([0.0] * lanes), one, I32(0)), 0)
        out = loops.at(given["found"], loops.times(row, 24))
        found = [loops.load(place) for place in largest]
        best = F32(0.0)
        for vector in found:
            for lane in range(lanes):
                value = build.extract_element(vector, I32(lane))
                best = build.select(build.fcmp_ordered(">", value, best), value, best)
        loops.store(build.fpext(best, F64), out, 8)
        for number, places in enumerate(sums):
            total = F64(0.0)
            for place in places:
                vector = loops.load(place, pairs, 8)
                for lane in range(half):
                    total = build.fadd(total, build.extract_element(vector, I32(lane)))
            loops.store(total, loops.at(out, 8 * (1 + number)), 8)
    return loops


def _memory(loops: Loops, kind: ir.Type) -> ir.Value:
    with loops.builder.goto_entry_block():
        place = loops.builder.alloca(kind)
    place.align = 8
    return place


_NEGATE_BY_SIGN = {VectorSet.AVX2: "llvm.x86.avx2.psign.d", VectorSet.SSE: "llvm.x86.ssse3.psign.d.128"}
"""One instruction that takes the sign of one register's elements to another's, in place of three."""
ENCODE_FIELDS = ("source", "elements", "packed", "first_key", "second_key", "factor", "clip_at", "first_number")
"""Words of a row that says what to encode; factor and clipping are float32 bits."""


@generated
def encode_loops(packing: Packing, vectors: VectorSet) -> Loops:
    """Rows of `ENCODE_FIELDS` -> whole blocks of codes + 1; a block's elements beyond the layer's end are zeros."""
    loops = PackingLoops("encode", vectors, rows=POINTER, count=I64)
    build, given, lanes = loops.builder, loops.arguments, vectors.lanes
    words, narrow = ir.VectorType(I32, lanes), ir.VectorType(ir.IntType(packing.word_bits), lanes)
    bias = sum(packing.levels**row if packing.radix else 1 << row * packing.digit_bits for row in range(packing.digits))
    spare = loops.scratch(4 * packing.block_digits)
    # Then numbers within a block have no bit in common with those of blocks, and the key goes into these.
    apart = packing.block_digits & packing.block_digits - 1 == 0
    with loops.loop(0, given["count"]) as row:
        at = loops.at(given["rows"], loops.times(row, 8 * len(ENCODE_FIELDS)))
        field = {name: loops.at(at, 8 * number) for number, name in enumerate(ENCODE_FIELDS)}
        source, packed = (loops.load(field[name], POINTER, 8) for name in ("source", "packed"))
        elements, counted_from = (loops.load(field[name], I64, 8) for name in ("elements", "first_number"))
        keys = [loops.splat(loops.load(field[name], I32, 8), words) for name in ("first_key", "second_key")]
        factor, clip_at = (loops.splat(loops.load(field[name], F32, 8), loops.vector) for name in ("factor", "clip_at"))
        blocks = build.udiv(build.add(elements, I64(packing.block_digits - 1)), I64(packing.block_digits))
        with loops.loop(0, blocks) as block:
            first = loops.times(block, packing.block_digits)
            left = build.sub(elements, first)
            inside = loops.at(source, loops.times(first, 4))
            partial = build.icmp_signed("<", left, I64(packing.block_digits))
            with build.if_then(partial, likely=False):
                with loops.loop(0, packing.block_digits, lanes) as element:
                    loops.store(loops.vector([0.0] * lanes), loops.at(spare, loops.times(element, 4)))
                with loops.loop(0, left) as element:
                    far = loops.times(element, 4)
                    loops.store(loops.load(loops.at(inside, far), F32), loops.at(spare, far))
            begin = build.select(partial, spare, inside)
            out = loops.at(packed, loops.times(block, packing.block_bytes))
            counter = loops.splat(build.trunc(build.add(counted_from, first), I32), words)
            if apart:
                counter = build.xor(counter, keys[0])
            for lane in range(0, LANES, lanes):
                total = None
                for digit in range(packing.digits):
                    number = digit * LANES + lane
                    numbers = words([number + element for element in range(lanes)])
                    counted = build.xor(counter, numbers) if apart else build.xor(build.add(counter, numbers), keys[0])
                    value = loops.load(loops.at(begin, 4 * number))
                    code = _draw(loops, value, counted, keys[1], factor, clip_at)
                    total = _append(loops, packing, total, code, digit)
                value = build.add(total, loops.splat(bias & 0xFFFFFFFF, words))
                if packing.radix:
                    kept = loops.fraction(build.trunc(value, narrow), packing, narrow)
                else:
                    kept = build.trunc(value, narrow) if packing.word_bits < 32 else value
                loops.store(kept, loops.at(out, lane * packing.word_bits // 8), 1)
    return loops


def _append(loops: PackingLoops, packing: Packing, total: Any, code: Any, digit: int) -> ir.Value:
    """A word's sum with one more code of -1, 0 or 1."""
    build = loops.builder
    if packing.radix:
        return code if total is None else build.add(_times(loops, total, packing.levels), code)
    shift = digit * packing.digit_bits
    placed = build.shl(code, loops.splat(shift, code.type)) if shift else code
    return placed if total is None else build.add(total, placed)


def _times(loops: PackingLoops, value: Any, factor: int) -> Any:
    """A product as sums: multiplying 32-bit integers takes several times as long as adding them."""
    build, whole = loops.builder, None
    for bit in reversed(bin(factor)[2:]):
        if bit == "1":
            whole = value if whole is None else build.add(whole, value)
        value = build.add(value, value)
    return whole


def _draw(loops: PackingLoops, value: ir.Value, counted: Any, key: ir.Value, factor: Any, clip_at: Any) -> ir.Value:
    """Write what `ternarize` does to a register of gradients: -1, 0 or 1 as 32-bit integers."""
    build, words = loops.builder, counted.type

    def shifted(number: ir.Value, bits: int) -> ir.Value:
        return build.lshr(number, loops.splat(bits, words))

    mixed = build.xor(counted, shifted(counted, 16))
    mixed = build.add(build.mul(mixed, loops.splat(FIRST_FACTOR, words)), key)
    mixed = build.xor(mixed, shifted(mixed, 15))
    mixed = build.mul(mixed, loops.splat(SECOND_FACTOR, words))
    drawn = build.sitofp(shifted(mixed, 32 - RANDOM_BITS), loops.vector)
    bits = build.bitcast(value, words)
    size = build.bitcast(build.and_(bits, loops.splat(_ABS, words)), loops.vector)
    size = build.select(build.fcmp_ordered("<", size, clip_at), size, clip_at)
    fires = build.sext(build.fcmp_ordered("<", drawn, build.fmul(size, factor)), words)
    if loops.vectors in _NEGATE_BY_SIGN:
        return build.neg(loops.call(_NEGATE_BY_SIGN[loops.vectors], words, fires, bits))
    sign = build.or_(build.ashr(bits, loops.splat(31, words)), loops.splat(1, words))
    return build.and_(fires, sign)


@generated
def reduce_loops(codes: Packing, sums: Packing, workers: int, vectors: VectorSet) -> Loops:
    """Streams of the workers' codes, an address each -> packed sums of their digits; whole tiles only."""
    loops = PackingLoops("reduce_codes", vectors, streams=POINTER, tiles=I64, packed=POINTER)
    given, rows, digit = loops.arguments, tile_rows(codes, sums), digit_bytes(2 * workers)
    scratch = loops.scratch(rows * LANES * digit)
    with loops.loop(0, given["tiles"]) as tile:
        with loops.loop(0, rows // codes.digits) as block:
            number = loops.builder.add(loops.times(tile, rows // codes.digits), block)
            _sum_streams(loops, codes, given["streams"], I64(workers), number, digit,
                         loops.at(scratch, loops.times(block, codes.block_digits * digit)))  # fmt: skip
        with loops.loop(0, rows // sums.digits) as block:
            number = loops.builder.add(loops.times(tile, rows // sums.digits), block)
            place = loops.at(scratch, loops.times(block, sums.block_digits * digit))
            loops.pack_block(sums, place, digit, loops.at(given["packed"], loops.times(number, sums.block_bytes)))
    return loops


def tile_rows(codes: Packing, sums: Packing) -> int:
    """Rows of digits that are whole blocks of both packings: sums are made of so many at a time."""
    return math.lcm(codes.digits, sums.digits)


def _sum_streams(
    loops: PackingLoops, packing: Packing, streams: ir.Value, count: ir.Value, block: ir.Value, digit: int, to: ir.Value
) -> None:
    """Write code that adds the same block of several streams up, in the scratch memory."""
    far = loops.times(block, packing.block_bytes)
    loops.unpack_block(packing, loops.at(loops.load(streams, POINTER, 8), far), to, digit, add=False)
    with loops.loop(1, count) as stream:
        address = loops.load(loops.at(streams, loops.times(stream, 8)), POINTER, 8)
        loops.unpack_block(packing, loops.at(address, far), to, digit, add=True)


DECODE_FIELDS = ("target", "elements", "first_row", "factor")
"""Words of a row that says what to decode; the last is float32 bits."""


@generated
def decode_loops(packing: Packing, most: int, add: bool, vectors: VectorSet) -> Loops:
    """Rows of `DECODE_FIELDS` and streams -> factor * (sum of the streams' digits - bias), or that added.

    `most` is the largest sum. With SSE and AVX2 a value is one product; with `add` it is added unfused.
    """
    arguments = {"rows": POINTER, "count": I64, "streams": POINTER, "streams_count": I64, "bias": I64}
    loops = PackingLoops("decode", vectors, **arguments)
    build, given, lanes, digit = loops.builder, loops.arguments, vectors.lanes, digit_bytes(most)
    words, small = ir.VectorType(I32, lanes), ir.VectorType(ir.IntType(8 * digit), lanes)
    scratch = loops.scratch(packing.block_digits * digit)
    bias = loops.splat(build.trunc(given["bias"], I32), words)
    with loops.loop(0, given["count"]) as number:
        at = loops.at(given["rows"], loops.times(number, 8 * len(DECODE_FIELDS)))
        target = loops.load(at, POINTER, 8)
        elements, first = (loops.load(loops.at(at, 8 * place), I64, 8) for place in (1, 2))
        factor = loops.splat(loops.load(loops.at(at, 24), F32, 8), loops.vector)
        past = None if add else _goes_past_caches(loops, target, elements)
        end = build.add(first, build.udiv(build.add(elements, I64(LANES - 1)), I64(LANES)))
        start = build.udiv(first, I64(packing.digits))
        stop = build.udiv(build.add(end, I64(packing.digits - 1)), I64(packing.digits))
        with loops.loop(start, stop) as block:
            _sum_streams(loops, packing, given["streams"], given["streams_count"], block, digit, scratch)
            begin = loops.times(block, packing.digits)
            low = _larger(build, first, begin)
            high = _smaller(build, end, build.add(begin, I64(packing.digits)))
            with loops.loop(low, high) as row:
                place = loops.at(scratch, loops.times(build.sub(row, begin), LANES * digit))
                done = loops.times(build.sub(row, first), LANES)
                out = loops.at(target, loops.times(done, 4))

                def value_of(found: ir.Value) -> ir.Value:
                    wide = build.sub(build.zext(found, words), bias)
                    return build.fmul(build.sitofp(wide, loops.vector), factor)

                with build.if_else(build.icmp_signed(">=", build.sub(elements, done), I64(LANES))) as (full, part):
                    with full:
                        values = [
                            value_of(loops.load(loops.at(place, at * digit), small, 1)) for at in range(0, LANES, lanes)
                        ]
                        _write_row(loops, values, out, add, past)
                    with part, loops.loop(0, build.sub(elements, done)) as lane:
                        one = loops.load(loops.at(place, loops.times(lane, digit)), small.element, 1)
                        value = value_of(loops.splat(one, small))
                        value, to = build.extract_element(value, I32(0)), loops.at(out, loops.times(lane, 4))
                        loops.store(build.fadd(loops.load(to, F32), value) if add else value, to)
    if vectors is not VectorSet.NEON:  # other threads must see what went past the caches
        loops.call("llvm.x86.sse.sfence", ir.VoidType())
    return loops


def _goes_past_caches(loops: PackingLoops, target: ir.Value, elements: ir.Value) -> ir.Value:
    """True where a layer is too large to stay in the caches, and lies at whole registers."""
    build = loops.builder
    low = build.and_(build.ptrtoint(target, I64), I64(loops.vectors.bytes - 1))
    return build.and_(build.icmp_unsigned("==", low, I64(0)), build.icmp_signed(">=", elements, I64(_STREAMED)))


def _write_row(loops: PackingLoops, values: Sequence[ir.Value], out: ir.Value, add: bool, past: Any) -> None:
    """Write code that stores a row of values, past the caches where `past` says so."""
    build, width = loops.builder, loops.vectors.bytes

    def store_all() -> list[Any]:
        places = [loops.at(out, width * number) for number in range(len(values))]
        whole = [build.fadd(loops.load(to), value) for to, value in zip(places, values, strict=True)] if add else values
        return [build.store(value, to) for value, to in zip(whole, places, strict=True)]

    if past is None:
        for stored in store_all():
            stored.align = 4
        return
    with build.if_else(past) as (streamed, kept):
        with streamed:
            for stored in store_all():
                stored.align = width
                stored.set_metadata("nontemporal", loops.module.add_metadata([I32(1)]))
        with kept:
            for stored in store_all():
                stored.align = 4


def _larger(build: Any, one: ir.Value, other: ir.Value) -> ir.Value:
    return build.select(build.icmp_signed(">", one, other), one, other)


def _smaller(build: Any, one: ir.Value, other: ir.Value) -> ir.Value:
    return build.select(build.icmp_signed("<", one, other), one, other)
