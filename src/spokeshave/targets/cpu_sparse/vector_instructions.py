"""Vector instructions: the few that a sparse kernel is made of; one subclass writes them out for one kind of CPU.

Vectors are numbered from 0. Pointers are names of registers: `stream` (weights and offsets), `input`, `scratch` (sums
of earlier passes), `output` and `residual` are the arguments of a call in this order; `pointers` are free.
"""

from abc import ABC, abstractmethod

import numpy as np

from spokeshave.jit.host_cpu import VectorSet


class VectorInstructions(ABC):
    """Writes instructions of one set as lines of assembly."""

    stream: str
    input: str
    scratch: str
    output: str
    residual: str
    pointers: tuple[str, ...]

    def __init__(self, vectors: VectorSet) -> None:
        self.vectors = vectors
        self.lines: list[str] = []

    def label(self, name: str) -> None:
        """Begin a routine; the assembler puts it at a multiple of 16 bytes."""
        self.lines.append(f"{name}:")

    @abstractmethod
    def point(self, pointer: str, origin: str, offset: int) -> None:
        """pointer = origin + the 32-bit number at stream + offset."""

    @abstractmethod
    def advance(self, pointer: str, count: int) -> None:
        """pointer += count bytes."""

    @abstractmethod
    def broadcast(self, vector: int, pointer: str, offset: int) -> None:
        """Fill a vector with the float at pointer + offset."""

    def weight(self, vector: int, pointer: str, offset: int) -> None:
        """Make a vector the weight of multiply-adds: the float at pointer + offset."""
        self.broadcast(vector, pointer, offset)

    @abstractmethod
    def zero(self, vector: int) -> None:
        """Fill a vector with 0."""

    @abstractmethod
    def copy(self, vector: int, source: int) -> None:
        """vector = source."""

    @abstractmethod
    def load(self, vector: int, pointer: str, offset: int) -> None:
        """Fill a vector from aligned memory."""

    @abstractmethod
    def store(self, vector: int, pointer: str, offset: int) -> None:
        """Write a vector to aligned memory."""

    @abstractmethod
    def add_from(self, vector: int, pointer: str, offset: int, spare: int) -> None:
        """vector += aligned memory; the content of `spare` is lost."""

    @abstractmethod
    def rectify(self, vector: int, zero: int, spare: int) -> None:
        """vector = max(vector, 0); NaN stays NaN. `zero` holds 0."""

    @abstractmethod
    def multiply_add(self, total: int, weight: int, factor: int, spare: int) -> None:
        """total += weight * factor, for a vector that `weight` made; the content of `spare` is lost."""

    @abstractmethod
    def multiply_add_from(self, total: int, weight: int, pointer: str, offset: int, spare: int) -> None:
        """total += weight * aligned memory, likewise; the content of `spare` is lost."""

    @abstractmethod
    def give_back(self) -> None:
        """Return to the caller."""

    @abstractmethod
    def calls(self, places: np.ndarray, start: int) -> bytes:
        """Machine code that calls one routine after another and then returns.

        Args:
            places: int64, where each called routine begins.
            start: where this code will lie, counted from the same origin.
        """
