"""Tap shapes: cut the nonzeros of each 2-D kernel into a few shapes that recur, so that their inputs are loaded once.

The nonzero taps of a pruned kernel sit close together. Two taps of one (filter, channel) pair that lie d apart read the
same input d outputs later: a routine that applies both to a tile of outputs loads the shared part once. On the AlexNet
that SkimCaffe's authors pruned this takes the loads per multiply-add from 1 to 0.5 - 0.7.

A shape is a tuple of taps (row, column), the first row and the first column being 0. Shapes are picked greedily: the
one that saves most on what is left, then the next.
Departs from the paper: Park et al. (ICLR 2017) apply one nonzero at a time.
"""

from dataclasses import dataclass
from functools import cache
from heapq import heappop, heappush
from itertools import combinations
from math import gcd

import numpy as np

Taps = tuple[tuple[int, int], ...]
SINGLE: Taps = ((0, 0),)
WINDOW = 3
"""Taps of one shape lie in a window of this side, in steps of `Tile.apart`: beyond, little is shared."""


@dataclass(frozen=True)
class Tile:
    """The outputs that a routine holds in registers, one vector each.

    Attributes:
        height: rows of outputs.
        width: columns of outputs (of vectors).
        stride: input rows and columns from one output to the next.
        dilation: input rows and columns from one tap to the next.
    """

    height: int
    width: int
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)

    @property
    def outputs(self) -> int:
        """Vectors of outputs."""
        return self.height * self.width

    @property
    def apart(self) -> tuple[int, int]:
        """Rows and columns by which taps lie apart that read the same inputs for neighbouring outputs.

        Example:
            >>> Tile(1, 11, stride=(4, 4)).apart, Tile(1, 11, dilation=(2, 2)).apart
            ((4, 4), (1, 1))
        """
        rows, columns = (step // gcd(step, far) for step, far in zip(self.stride, self.dilation, strict=True))
        return rows, columns

    def reads(self, taps: Taps) -> dict[tuple[int, int], list[tuple[int, int]]]:
        """Input position -> (tap, output) pairs that it takes part in, in reading order.

        Args:
            taps: of a shape.

        Returns:
            positions (row, column) relative to the first tap's input of output (0, 0).

        Example:
            >>> Tile(1, 2).reads(((0, 0), (0, 1)))  # two neighbouring outputs and taps: three inputs, four products
            {(0, 0): [(0, 0)], (0, 1): [(0, 1), (1, 0)], (0, 2): [(1, 1)]}
        """
        return _reads(self, taps)

    def inputs(self, taps: Taps) -> int:
        """How many input positions a shape reads."""
        (down, across), (below, beside) = self.stride, self.dilation
        outputs = [(y * down, x * across) for y in range(self.height) for x in range(self.width)]
        return len({(y + row * below, x + column * beside) for row, column in taps for y, x in outputs})


@cache
def _reads(tile: Tile, taps: Taps) -> dict[tuple[int, int], list[tuple[int, int]]]:
    found: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for tap, (row, column) in enumerate(taps):
        for output in range(tile.outputs):
            y, x = divmod(output, tile.width)
            place = (y * tile.stride[0] + row * tile.dilation[0], x * tile.stride[1] + column * tile.dilation[1])
            found.setdefault(place, []).append((tap, output))
    return {place: found[place] for place in sorted(found)}


@cache
def cost(tile: Tile, taps: Taps) -> float:
    """Estimated cycles of one application of a shape: two loads or two multiply-adds a cycle."""
    loads = tile.inputs(taps) + len(taps) + 1
    return max(len(taps) * tile.outputs, loads) / 2 + CALL_CYCLES


SAMPLE = 2048
"""Kernels that the choice of shapes looks at; more would not choose better."""
CALL_CYCLES = 6.0
"""What entering a routine costs beside its loads and multiply-adds; measured between 4 and 12."""


def candidate_shapes(kernel: tuple[int, int], most_taps: int, apart: tuple[int, int] = (1, 1)) -> list[Taps]:
    """Every shape of 2 to `most_taps` taps inside the window, of such that share inputs if a row has three of them.

    In narrower kernels too few of these are nonzero together: neighbours are taken, which share what an entry costs.

    Args:
        kernel: height and width of the kernels.
        most_taps: the most taps of a shape.
        apart: rows and columns between taps that share inputs, as `Tile.apart` says.

    Example:
        >>> candidate_shapes((1, 9), 2, (1, 4)), candidate_shapes((1, 3), 2, (1, 2))
        ([((0, 0), (0, 4)), ((0, 0), (0, 8))], [((0, 0), (0, 1)), ((0, 0), (0, 2))])
    """
    down, across = apart if (WINDOW - 1) * apart[1] < kernel[1] else (1, 1)
    rows, columns = range(0, min(WINDOW * down, kernel[0]), down), range(0, min(WINDOW * across, kernel[1]), across)
    return [
        taps
        for count in range(2, most_taps + 1)
        for taps in combinations([(y, x) for y in rows for x in columns], count)
        if min(y for y, _ in taps) == 0 and min(x for _, x in taps) == 0
    ]


def _occurrences(kernels: np.ndarray, taps: Taps) -> np.ndarray:
    """At how many places of each kernel, of [height, width, kernels], all taps of a shape are nonzero."""
    height, width, count = kernels.shape
    tall, wide = (max(tap[axis] for tap in taps) for axis in (0, 1))
    found = np.ones((height - tall, width - wide, count), bool)
    for y, x in taps:
        found &= kernels[y : y + height - tall, x : x + width - wide]
    return np.add.reduce(found, axis=(0, 1), dtype=np.int32)


def _take(kernels: np.ndarray, taps: Taps) -> np.ndarray:
    """Clear every occurrence that shares no tap with an earlier one; (kernel, row, column) of each, as rows.

    Args:
        kernels: [height, width, kernels]: what all kernels have at one place lies together, and is compared at once.
        taps: of a shape.
    """
    taken = []
    height, width = kernels.shape[:2]
    tall, wide = (max(tap[axis] for tap in taps) for axis in (0, 1))
    for y in range(height - tall):
        for x in range(width - wide):
            hits = np.flatnonzero(np.logical_and.reduce([kernels[y + dy, x + dx] for dy, dx in taps]))
            for dy, dx in taps:
                kernels[y + dy, x + dx, hits] = False
            taken.append(np.stack([hits, np.full_like(hits, y), np.full_like(hits, x)], axis=1))
    return np.concatenate(taken) if taken else np.zeros((0, 3), np.int64)


def _distinct(kernels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The first kernel with each pattern, which pattern each kernel has, and how many have it."""
    bits = np.packbits(kernels.reshape(len(kernels), kernels.shape[1] * kernels.shape[2]), axis=1)
    words = np.zeros((len(kernels), -(-bits.shape[1] // 8) * 8), np.uint8)
    words[:, : bits.shape[1]] = bits
    numbers = words.view(np.uint64)  # sorting numbers takes a tenth of the time that sorting rows of truth values does
    _, first, which, counts = np.unique(
        numbers.ravel() if numbers.shape[1] == 1 else numbers,
        axis=None if numbers.shape[1] == 1 else 0,
        return_index=True,
        return_inverse=True,
        return_counts=True,
    )
    return first, which.ravel(), counts


@dataclass(frozen=True)
class Cut:
    """Kernels cut into shapes.

    Attributes:
        shapes: single taps first.
        entries: rows of (kernel, shape, row, column): which shape has its origin where in which kernel.
    """

    shapes: list[Taps]
    entries: np.ndarray


def choose_shapes(kernels: np.ndarray, tile: Tile, most_taps: int, most_shapes: int) -> list[Taps]:
    """The shapes that save most, from a sample of the kernels.

    Args:
        kernels: bool, [count, height, width]: where the weights are not zero.
        tile: that the shapes will be applied to.
        most_taps: the most taps of a shape, at least 1.
        most_shapes: the most shapes beside the single tap.

    Returns:
        the shapes, the single tap first.

    Example:
        >>> kernels = np.array([[[1, 1], [0, 0]], [[0, 0], [1, 1]], [[1, 0], [0, 0]]], bool)
        >>> choose_shapes(kernels, Tile(2, 13), 2, 4)
        [((0, 0),), ((0, 0), (0, 1))]
    """
    sample = kernels[:: -(-len(kernels) // SAMPLE)] if len(kernels) else kernels
    first, _, weights = _distinct(sample)
    left = np.ascontiguousarray(sample[first].transpose(1, 2, 0))
    candidates = candidate_shapes(kernels.shape[1:], most_taps, tile.apart)
    saves = [len(taps) * cost(tile, SINGLE) - cost(tile, taps) for taps in candidates]
    # Least first: minus what a shape saved when it was looked at last, which was never less than what it saves now.
    waiting = [(-np.inf, number, 0) for number, saved in enumerate(saves) if saved > 0]
    shapes = [SINGLE]
    while waiting and len(shapes) <= most_shapes:
        gain, number, looked = heappop(waiting)
        taps = candidates[number]
        if looked < len(shapes):
            gain = -float(saves[number] * weights @ _occurrences(left, taps))
            heappush(waiting, (gain, number, len(shapes)))
            continue
        if gain >= 0:
            break
        _take(left, taps)
        shapes.append(taps)
    return shapes


def cut_kernels(kernels: np.ndarray, shapes: list[Taps]) -> Cut:
    """Cut the nonzeros of 2-D kernels into shapes, the first that fits in the order given; every nonzero is in one.

    Args:
        kernels: bool, [count, height, width]: where the weights are not zero.
        shapes: the single tap first.
    """
    first, which, _ = _distinct(kernels)
    left = np.ascontiguousarray(kernels[first].transpose(1, 2, 0))
    places = [(number, _take(left, taps)) for number, taps in enumerate(shapes) if number]
    places.insert(0, (0, np.argwhere(left.transpose(2, 0, 1))))
    return Cut(shapes, _spread(places, which))


def _spread(places: list[tuple[int, np.ndarray]], which: np.ndarray) -> np.ndarray:
    """From places in patterns to places in the kernels that have each pattern."""
    order = np.argsort(which, kind="stable")
    starts = np.searchsorted(which[order], np.arange(which.max(initial=-1) + 2))
    rows = []
    for shape, found in places:
        counts = starts[found[:, 0] + 1] - starts[found[:, 0]]
        repeated = np.repeat(found, counts, axis=0)
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        kernel = order[np.repeat(starts[found[:, 0]], counts) + within]
        rows.append(np.stack([kernel, np.full_like(kernel, shape), repeated[:, 1], repeated[:, 2]], axis=1))
    return np.concatenate(rows)
