"""Memory plan: where values lie in one arena, so that those that are never needed at the same time share memory."""

from collections.abc import Sequence
from dataclasses import dataclass

from spokeshave.targets.cpu_sparse.compiled_convolution import Planes

ALIGNMENT = 64
"""Of every value, in bytes: vectors then never cross a cache line."""


@dataclass
class Value:
    """Where a value lies.

    Attributes:
        shape: (channels, rows, columns) or (features,).
        planes: memory, border included.
        border: rows above and below, columns on each side, of zeros.
        offset: in the arena, bytes.
    """

    shape: tuple[int, ...]
    planes: Planes
    border: tuple[int, int] = (0, 0)
    offset: int = 0

    @property
    def inside(self) -> int:
        """Distance of the first pixel from the value's start."""
        return self.planes.place(*self.border)


def first_fit(spans: Sequence[tuple[int, int, int]]) -> tuple[list[int], int]:
    """Place values one after another, the largest first, each as low as those allow that are needed meanwhile.

    Args:
        spans: of each value its bytes, and the first and the last step that need it.

    Returns:
        the offset of each, and the bytes of the arena.

    Example:
        >>> first_fit([(64, 0, 1), (128, 1, 2), (64, 2, 3)])
        ([128, 0, 128], 192)
    """
    placed: list[tuple[int, int, int, int]] = []
    offsets = [0] * len(spans)
    for number in sorted(range(len(spans)), key=lambda number: -spans[number][0]):
        bytes_, first, last = spans[number]
        size, offset = -(-bytes_ // ALIGNMENT) * ALIGNMENT, 0
        for low, high, other_first, other_last in sorted(placed):
            if other_first <= last and first <= other_last and low < offset + size and offset < high:
                offset = high
        offsets[number] = offset
        placed.append((offset, offset + size, first, last))
    return offsets, max((high for _, high, _, _ in placed), default=0)
