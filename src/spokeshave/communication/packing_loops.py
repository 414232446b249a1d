"""Packing loops: generated code that moves digits into words and out of them, a block at a time.

What each packing means is `digit_packing`'s; this writes the same for registers full of words. Between packings digits
lie in rows of 32 in a small scratch memory, which stays in the first-level cache.
"""

from collections.abc import Sequence
from typing import Any

from llvmlite import ir

from spokeshave.communication.digit_packing import LANES, Packing
from spokeshave.jit.native_loops import I64, POINTER, Loops


def digit_bytes(most: int) -> int:
    """Bytes of a digit in the scratch memory, for digits up to `most`."""
    return 1 if most < 256 else 2


class PackingLoops(Loops):
    """A function over digits under construction."""

    def scratch(self, size: int) -> ir.Value:
        """Memory of so many bytes, in cache lines of its own."""
        with self.builder.goto_entry_block():
            memory = self.builder.alloca(ir.ArrayType(ir.IntType(8), size))
            memory.align = 64
            return self.builder.inttoptr(self.builder.ptrtoint(memory, I64), POINTER)

    def splat(self, value: Any, kind: ir.VectorType) -> ir.Value:
        """A vector of equal elements; of a constant, or of a value."""
        if isinstance(value, (int, float)):
            return kind([value] * kind.count)
        first = self.builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.IntType(32)(0))
        zeros = ir.VectorType(ir.IntType(32), kind.count)([0] * kind.count)
        return self.builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), zeros)

    def unpack_block(self, packing: Packing, packed: ir.Value, scratch: ir.Value, digit: int, add: bool) -> None:
        """Write a block's digits, or add them, to rows of the scratch memory.

        Args:
            packing: of the block.
            packed: address of its words.
            scratch: address of its first row.
            digit: bytes of a digit there.
            add: to what is there.
        """
        build, word = self.builder, ir.IntType(packing.word_bits)
        # Products of fractions need twice the width.
        lanes = self._lanes(packing.word_bits * (2 if packing.radix else 1))
        kind, small = ir.VectorType(word, lanes), ir.VectorType(ir.IntType(8 * digit), lanes)
        octets = packing.word_bits // 8
        for first in range(0, LANES, lanes):
            places = [self.at(packed, (row * LANES + first) * octets) for row in range(packing.words)]
            words = [self.load(place, kind, 1) for place in places]
            for row, found in enumerate(self._digits_of(words, packing, kind)):
                value = found
                if small.element.width < packing.word_bits:
                    value = build.trunc(found, small)
                elif small.element.width > packing.word_bits:
                    value = build.zext(found, small)
                place = self.at(scratch, (row * LANES + first) * digit)
                self.store(build.add(self.load(place, small, 1), value) if add else value, place, 1)

    def _digits_of(self, words: Sequence[ir.Value], packing: Packing, kind: ir.VectorType) -> list[ir.Value]:
        build, found = self.builder, []
        if packing.radix:
            wide = ir.VectorType(ir.IntType(2 * packing.word_bits), kind.count)
            levels, shift = self.splat(packing.levels, wide), self.splat(packing.word_bits, wide)
            fraction = words[0]
            for _ in range(packing.digits):
                product = build.mul(build.zext(fraction, wide), levels)
                found.append(build.trunc(build.lshr(product, shift), kind))
                fraction = build.trunc(product, kind)
            return found
        bits = packing.digit_bits
        for row in range(packing.digits):
            word, shift = divmod(row * bits, packing.word_bits)
            value = build.lshr(words[word], self.splat(shift, kind)) if shift else words[word]
            if shift + bits > packing.word_bits:
                value = build.or_(value, build.shl(words[word + 1], self.splat(packing.word_bits - shift, kind)))
            found.append(value if bits == packing.word_bits else build.and_(value, self.splat((1 << bits) - 1, kind)))
        return found

    def pack_block(self, packing: Packing, scratch: ir.Value, digit: int, packed: ir.Value) -> None:
        """Pack rows of the scratch memory into a block.

        Args:
            packing: of the block.
            scratch: address of its first row.
            digit: bytes of a digit there.
            packed: address for its words.
        """
        build, word = self.builder, ir.IntType(packing.word_bits)
        lanes = self._lanes(packing.word_bits * (2 if packing.radix else 1))
        kind, small = ir.VectorType(word, lanes), ir.VectorType(ir.IntType(8 * digit), lanes)
        for first in range(0, LANES, lanes):
            digits = []
            for row in range(packing.digits):
                value = self.load(self.at(scratch, (row * LANES + first) * digit), small, 1)
                if small.element.width < packing.word_bits:
                    value = build.zext(value, kind)
                elif small.element.width > packing.word_bits:
                    value = build.trunc(value, kind)
                digits.append(value)
            for number, value in enumerate(self._words_of(digits, packing, kind)):
                self.store(value, self.at(packed, (number * LANES + first) * packing.word_bits // 8), 1)

    def _words_of(self, digits: Sequence[ir.Value], packing: Packing, kind: ir.VectorType) -> list[ir.Value]:
        build = self.builder
        if packing.radix:
            value = digits[0]
            for following in digits[1:]:
                value = build.add(build.mul(value, self.splat(packing.levels, kind)), following)
            return [self.fraction(value, packing, kind)]
        parts: list[list[ir.Value]] = [[] for _ in range(packing.words)]
        for row, value in enumerate(digits):
            word, shift = divmod(row * packing.digit_bits, packing.word_bits)
            parts[word].append(build.shl(value, self.splat(shift, kind)) if shift else value)
            if shift + packing.digit_bits > packing.word_bits:
                parts[word + 1].append(build.lshr(value, self.splat(packing.word_bits - shift, kind)))
        words = []
        for several in parts:
            whole = several[0]
            for part in several[1:]:
                whole = build.or_(whole, part)
            words.append(whole)
        return words

    def fraction(self, value: ir.Value, packing: Packing, kind: ir.VectorType) -> ir.Value:
        """A number of base `levels` as a fraction of 2**word_bits, rounded up."""
        build, whole = self.builder, packing.levels**packing.digits
        wide = ir.VectorType(ir.IntType(2 * packing.word_bits), kind.count)
        shifted = build.shl(build.zext(value, wide), self.splat(packing.word_bits, wide))
        rounded = build.udiv(build.add(shifted, self.splat(whole - 1, wide)), self.splat(whole, wide))
        return build.trunc(rounded, kind)

    def _lanes(self, bits: int) -> int:
        """Elements of so many bits that a register holds, as far as a row has them."""
        return min(LANES, 8 * self.vectors.bytes // bits)
