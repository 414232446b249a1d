"""Memory plan: where values lie in one arena, so that those that are never needed at the same time share memory."""

from collections.abc import Sequence

ALIGNMENT = 64
"""Of every value, in bytes: vectors then never cross a cache line."""


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
