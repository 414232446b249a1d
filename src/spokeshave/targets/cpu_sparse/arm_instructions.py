# ruff: noqa: D102 - the methods are documented where they are declared
"""Vector instructions of 64-bit Arm: NEON (128 bits, 32 registers), as every AArch64 processor has them.

Arguments come as the procedure call standard (AAPCS64, Linux and macOS alike) passes them. There is no memory operand:
a multiply-add from memory is a load and a multiply-add. A weight takes one lane, for the multiply-add can read a single
element of a vector: nothing has to be broadcast.
"""

import numpy as np

from spokeshave.errors import UnsupportedLayer
from spokeshave.targets.cpu_sparse.vector_instructions import VectorInstructions

_FAR = "x13"
"""Holds an address that an instruction's own offset does not reach."""


class ArmInstructions(VectorInstructions):
    """Writes AArch64 instructions."""

    stream, input, scratch, output, residual = "x0", "x1", "x2", "x3", "x4"
    pointers = ("x9", "x10", "x11", "x12")

    def _add(self, register: str, origin: str, count: int) -> None:
        """register = origin + count, for any count below 2 GiB."""
        high, low = divmod(count, 1 << 12)
        if high >= 1 << 12:
            self.lines += [f"movz {_FAR}, #{count & 0xFFFF}", f"movk {_FAR}, #{count >> 16}, lsl #16"]
            self.lines.append(f"add {register}, {origin}, {_FAR}")
            return
        if high:
            self.lines.append(f"add {register}, {origin}, #{high}, lsl #12")
            origin = register
        if low or not high:
            self.lines.append(f"add {register}, {origin}, #{low}")

    def _at(self, pointer: str, offset: int, size: int) -> str:
        """Memory operand of an access of some bytes; an instruction has 12 bits for an offset, counted in accesses."""
        if offset < size << 12:
            return f"[{pointer}, #{offset}]"
        near = offset % (1 << 12)
        self._add(_FAR, pointer, offset - near)
        return f"[{_FAR}, #{near}]"

    def point(self, pointer: str, origin: str, offset: int) -> None:
        place = self._at(self.stream, offset, 4)
        self.lines += [f"ldrsw {pointer}, {place}", f"add {pointer}, {pointer}, {origin}"]

    def advance(self, pointer: str, count: int) -> None:
        self._add(pointer, pointer, count)

    def broadcast(self, vector: int, pointer: str, offset: int) -> None:
        self.weight(vector, pointer, offset)
        self.lines.append(f"dup v{vector}.4s, v{vector}.s[0]")

    def weight(self, vector: int, pointer: str, offset: int) -> None:
        place = self._at(pointer, offset, 4)
        self.lines.append(f"ldr s{vector}, {place}")

    def zero(self, vector: int) -> None:
        self.lines.append(f"movi v{vector}.2d, #0")

    def copy(self, vector: int, source: int) -> None:
        self.lines.append(f"mov v{vector}.16b, v{source}.16b")

    def load(self, vector: int, pointer: str, offset: int) -> None:
        place = self._at(pointer, offset, 16)
        self.lines.append(f"ldr q{vector}, {place}")

    def store(self, vector: int, pointer: str, offset: int) -> None:
        place = self._at(pointer, offset, 16)
        self.lines.append(f"str q{vector}, {place}")

    def add_from(self, vector: int, pointer: str, offset: int, spare: int) -> None:
        self.load(spare, pointer, offset)
        self.lines.append(f"fadd v{vector}.4s, v{vector}.4s, v{spare}.4s")

    def rectify(self, vector: int, zero: int, spare: int) -> None:
        self.lines.append(f"fmax v{vector}.4s, v{vector}.4s, v{zero}.4s")  # NaN where either is NaN, unlike fmaxnm

    def multiply_add(self, total: int, weight: int, factor: int, spare: int) -> None:
        self.lines.append(f"fmla v{total}.4s, v{factor}.4s, v{weight}.s[0]")

    def multiply_add_from(self, total: int, weight: int, pointer: str, offset: int, spare: int) -> None:
        self.load(spare, pointer, offset)
        self.multiply_add(total, weight, spare, spare)

    def give_back(self) -> None:
        self.lines.append("ret")

    def calls(self, places: np.ndarray, start: int) -> bytes:
        """Direct calls one after another, between saving and restoring what belongs to the caller.

        That is the return address (x30), which every call overwrites, the frame pointer (x29) and the low halves of v8
        to v15.

        Args:
            places: int64, where each called routine begins.
            start: where these calls will lie, counted from the same origin.

        Raises:
            UnsupportedLayer: a routine is further away than the 128 MiB that a call reaches.
        """
        distances = places - (start + 4 * (len(_SAVE) + np.arange(len(places))))
        if len(distances) and np.abs(distances).max() >= 1 << 27:
            raise UnsupportedLayer(
                f"{len(places)} calls of routines, of which the last is {np.abs(distances).max() >> 20} MiB away from "
                "its routine, of at most 128 MiB on Arm: prune the layer, or keep it in torch"
            )
        run = 0x94000000 | (distances >> 2 & 0x3FFFFFF)
        return np.concatenate([_SAVE, run, _RESTORE]).astype("<u4").tobytes()


def _pairs(load: int) -> list[int]:
    """stp (0) or ldp (1) of d8 to d15 above the frame record: [sp, #16] to [sp, #64]."""
    return [
        0x6D000000 | load << 22 | (2 + 2 * pair) << 15 | (9 + 2 * pair) << 10 | 31 << 5 | (8 + 2 * pair)
        for pair in range(4)
    ]


# As numbers, so that a program needs no assembler: it may be made anew while its routines stay.
_SAVE = np.array([0xA9BB7BFD, 0x910003FD, *_pairs(0)], np.int64)  # stp x29, x30, [sp, #-80]!; mov x29, sp
_RESTORE = np.array([*_pairs(1), 0xA8C57BFD, 0xD65F03C0], np.int64)  # ldp x29, x30, [sp], #80; ret
