# ruff: noqa: D102 - the methods are documented where they are declared
"""Vector instructions of x86: AVX-512 (zmm), AVX2 (ymm) and SSE (xmm, which has no fused multiply-add)."""

import numpy as np

from spokeshave.jit.host_cpu import VectorSet
from spokeshave.targets.cpu_sparse.vector_instructions import VectorInstructions

_PREFIX = {VectorSet.AVX512: "zmm", VectorSet.AVX2: "ymm", VectorSet.SSE: "xmm"}


class X86Instructions(VectorInstructions):
    """Writes x86-64 instructions; arguments come as the System V convention passes them."""

    stream, input, scratch, output, residual = "rdi", "rsi", "rdx", "rcx", "r8"
    pointers = ("r9", "r10", "r11", "rax")

    def __init__(self, vectors: VectorSet) -> None:
        super().__init__(vectors)
        self._fused = vectors is not VectorSet.SSE
        self._v = "v" if self._fused else ""
        self._names = [f"{_PREFIX[vectors]}{number}" for number in range(vectors.registers)]
        self._word = f"{_PREFIX[vectors][0]}mmword"

    def _name(self, vector: int) -> str:
        return self._names[vector]

    def _at(self, pointer: str, offset: int) -> str:
        return f"{self._word} ptr [{pointer}{offset:+d}]"

    def _three(self, operation: str, vector: int, other: str) -> None:
        name = self._name(vector)
        self.lines.append(f"v{operation} {name}, {name}, {other}" if self._fused else f"{operation} {name}, {other}")

    def point(self, pointer: str, origin: str, offset: int) -> None:
        self.lines += [f"movsxd {pointer}, dword ptr [{self.stream}{offset:+d}]", f"add {pointer}, {origin}"]

    def advance(self, pointer: str, count: int) -> None:
        self.lines.append(f"add {pointer}, {count}")

    def broadcast(self, vector: int, pointer: str, offset: int) -> None:
        if self._fused:
            self.lines.append(f"vbroadcastss {self._name(vector)}, dword ptr [{pointer}{offset:+d}]")
        else:
            name = self._name(vector)
            self.lines += [f"movss {name}, dword ptr [{pointer}{offset:+d}]", f"shufps {name}, {name}, 0"]

    def zero(self, vector: int) -> None:
        name = self._name(vector)
        xor = {VectorSet.AVX512: f"vpxord {name}, {name}, {name}", VectorSet.AVX2: f"vxorps {name}, {name}, {name}"}
        self.lines.append(xor.get(self.vectors, f"xorps {name}, {name}"))

    def copy(self, vector: int, source: int) -> None:
        self.lines.append(f"{self._v}movaps {self._name(vector)}, {self._name(source)}")

    def load(self, vector: int, pointer: str, offset: int) -> None:
        self.lines.append(f"{self._v}movaps {self._name(vector)}, {self._at(pointer, offset)}")

    def store(self, vector: int, pointer: str, offset: int) -> None:
        self.lines.append(f"{self._v}movaps {self._at(pointer, offset)}, {self._name(vector)}")

    def add_from(self, vector: int, pointer: str, offset: int, spare: int) -> None:
        self._three("addps", vector, self._at(pointer, offset))

    def rectify(self, vector: int, zero: int, spare: int) -> None:
        # maxps gives its second operand where one is NaN: the sum has to be that one, or NaN would turn into 0.
        if self._fused:
            self.lines.append(f"vmaxps {self._name(vector)}, {self._name(zero)}, {self._name(vector)}")
        else:
            self.copy(spare, zero)
            self.lines.append(f"maxps {self._name(spare)}, {self._name(vector)}")
            self.copy(vector, spare)

    def multiply_add(self, total: int, weight: int, factor: int, spare: int) -> None:
        if self._fused:
            self.lines.append(f"vfmadd231ps {self._name(total)}, {self._name(weight)}, {self._name(factor)}")
        else:
            self.copy(spare, factor)
            self._three("mulps", spare, self._name(weight))
            self._three("addps", total, self._name(spare))

    def multiply_add_from(self, total: int, weight: int, pointer: str, offset: int, spare: int) -> None:
        if self._fused:
            self.lines.append(f"vfmadd231ps {self._name(total)}, {self._name(weight)}, {self._at(pointer, offset)}")
        else:
            self.load(spare, pointer, offset)
            self._three("mulps", spare, self._name(weight))
            self._three("addps", total, self._name(spare))

    def give_back(self) -> None:
        self.lines.append("ret")

    def calls(self, places: np.ndarray, start: int) -> bytes:
        """Direct calls one after another, then a return to whoever called the first.

        Args:
            places: int64, where each called routine begins.
            start: where these calls will lie, counted from the same origin.
        """
        code = np.empty((len(places), _CALL_BYTES), np.uint8)
        code[:, 0] = 0xE8
        after = start + _CALL_BYTES * (1 + np.arange(len(places)))
        code[:, 1:] = (places - after).astype("<i4").view(np.uint8).reshape(-1, 4)
        clear_upper = b"\xc5\xf8\x77" if self._fused else b""
        return code.tobytes() + clear_upper + b"\xc3"


_CALL_BYTES = 5
