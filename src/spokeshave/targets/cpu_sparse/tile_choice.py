"""Tile choice: how many outputs to hold in registers, and how many input planes to pass over at a time.

By arithmetic, from the register file, the cache and the weights' density: a starting point, and what else is worth
measuring (`tuning.py`). What fixes the speed is the traffic of the first-level cache: a wide tile shares what an entry
costs among more outputs; a small one leaves room for more input planes a pass, so that sums travel less often.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import gcd, log2

import numpy as np

from spokeshave.jit.host_cpu import VectorSet
from spokeshave.targets.cpu_sparse.call_program import Tiling
from spokeshave.targets.cpu_sparse.tap_shapes import SINGLE, Taps, Tile, candidate_shapes, cost
from spokeshave.targets.cpu_sparse.tile_routines import Block

PASS_BYTES = 48 << 10
"""Bytes of input under one tile in a pass: around the size of a first-level cache, whose misses are cheap in a row."""
CACHE_SETS = 64
"""Of the first-level cache, on most processors: lines whose numbers differ by a multiple of it share one."""
SUM_CYCLES = 4.0
"""Bringing one vector of sums in and out again; a store of 64 bytes alone takes two on some processors."""
EXCHANGE_CYCLES = 12.0
"""Bringing one vector of input from the cache of another core."""
NONZEROS_A_VISIT = 8
"""Below this, bringing sums in and out costs more than what is added to them."""
MOST_FILTERS = 2
"""Filters of a block."""
MOST_TAPS = 3
"""Taps of a shape, where the sums leave that many registers: each needs one for its weight."""


@dataclass(frozen=True)
class Outputs:
    """What a layer computes for one filter.

    Attributes:
        rows: of outputs.
        columns: vectors of a row.
        kernel: height and width as the routines see it.
        stride: in planes' rows and columns.
        dilation: likewise.
        pitch: vectors from one row of an input plane to the next.
    """

    rows: int
    columns: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    pitch: int = 1


@dataclass(frozen=True)
class Choice:
    """All that changes the speed of a convolution and nothing else."""

    block: Block
    tiling: Tiling


@dataclass(frozen=True)
class Density:
    """How many nonzeros a layer has.

    Attributes:
        filters: of the layer.
        planes: of a group.
        taps: mean nonzeros of a 2-D kernel.
    """

    filters: int
    planes: int
    taps: float

    @classmethod
    def of(cls, weight: np.ndarray) -> "Density":
        """Count.

        Args:
            weight: [filters, planes of a group, height, width], as the routines see it.
        """
        kernels = weight.shape[0] * weight.shape[1]
        return cls(weight.shape[0], weight.shape[1], max(np.count_nonzero(weight), 1) / max(1, kernels))


def _planes_fitting(outputs: Outputs, tile: Tile, vectors: VectorSet, pass_bytes: int) -> float:
    """How many planes' parts under a tile fit into a pass, at least 1.

    Rows of which a tile reads a narrow part, at a pitch that shares a factor with the number of the cache's sets, leave
    most of these sets unused: the cache is that much smaller.
    """
    height = (tile.height - 1) * tile.stride[0] + (outputs.kernel[0] - 1) * tile.dilation[0] + 1
    width = (tile.width - 1) * tile.stride[1] + (outputs.kernel[1] - 1) * tile.dilation[1] + 1
    used = min(1.0, width / gcd(outputs.pitch, CACHE_SETS))
    return max(1.0, used * pass_bytes / (height * width * vectors.bytes))


def taps_beside(sums: int, vectors: VectorSet) -> int:
    """Taps of a shape that fit beside some sums: each needs a register, and one or two more are loaded into.

    Args:
        sums: vectors of them.
        vectors: set of instructions.

    Returns:
        0 to `MOST_TAPS`; for 0 there are too many sums.

    Example:
        >>> [taps_beside(sums, VectorSet.AVX2) for sums in (12, 13, 14, 15)]
        [3, 2, 1, 0]
    """
    return max(0, min(MOST_TAPS, vectors.registers - sums - (2 if vectors is VectorSet.SSE else 1)))


def _typical_pair(outputs: Outputs) -> Taps:
    """Two taps that a shape may well have, in a row if there are such."""
    pairs = candidate_shapes(outputs.kernel, 2, Tile(1, 1, outputs.stride, outputs.dilation).apart)
    return min(pairs, key=lambda taps: taps[1], default=SINGLE)


def choose_blocks(
    outputs: Outputs, vectors: VectorSet, density: Density, rectify: bool, threads: int = 1
) -> list[Block]:
    """Blocks in the order of their estimated time for each output that is wanted.

    Args:
        outputs: of the layer.
        vectors: set of instructions.
        density: of the weight.
        rectify: end with max(0, x).
        threads: that will run it.
    """
    most = max(sums for sums in range(vectors.registers) if taps_beside(sums, vectors))
    pair = _typical_pair(outputs)
    found: list[tuple[float, Block]] = []
    for height in range(1, min(outputs.rows, most) + 1):
        for width in range(1, min(outputs.columns, most // height) + 1):
            tile = Tile(height, width, outputs.stride, outputs.dilation)
            shared = pair if taps_beside(tile.outputs, vectors) > 1 else SINGLE
            tiles = -(-outputs.rows // height) * -(-outputs.columns // width)
            cycles = (cost(tile, SINGLE) + cost(tile, shared)) / (1 + len(shared))
            # A pass holds as many planes as fit: each brings the sums of a visit in and out once.
            planes_a_pass = min(density.planes, _planes_fitting(outputs, tile, vectors, PASS_BYTES))
            cycles += SUM_CYCLES * tile.outputs / (density.taps * planes_a_pass)
            # Threads that have tiles of their own read what they wrote; those that share tiles read what others wrote.
            foreign = 1.0 if tiles < threads else threads / tiles if tiles % threads else 0.0
            exchange = EXCHANGE_CYCLES * (threads - 1) * foreign / (density.filters * density.taps)
            estimate = cycles * tiles / (outputs.rows * outputs.columns) + exchange
            found.append((estimate, Block(tile, 1, rectify)))
    return [block for _, block in sorted(found, key=lambda item: item[0])]


def choose_tiling(
    outputs: Outputs, block: Block, vectors: VectorSet, density: Density, threads: int, pass_bytes: int = PASS_BYTES
) -> Tiling:
    """Passes, macros and shares for a block.

    Args:
        outputs: of the layer.
        block: chosen before.
        vectors: set of instructions.
        density: of the weight.
        threads: that will run it.
        pass_bytes: bytes of input under one tile in a pass.
    """
    tile = block.tile
    wanted = NONZEROS_A_VISIT / (density.taps * block.filters)
    fitting = _planes_fitting(outputs, tile, vectors, pass_bytes)
    passes = max(1, round(density.planes / min(max(wanted, fitting), 2 * fitting)))
    tiles = -(-outputs.rows // tile.height) * -(-outputs.columns // tile.width)
    shares = 1
    while threads > 1 and (tiles * shares < 4 * threads or tiles * shares % threads) and shares < 8:
        shares += 1
    return Tiling(-(-density.planes // passes), 3 if tile.outputs > 16 else 4, 40, shares)


def first_choice(outputs: Outputs, vectors: VectorSet, density: Density, rectify: bool, threads: int) -> Choice:
    """The choice by arithmetic alone."""
    block = choose_blocks(outputs, vectors, density, rectify, threads)[0]
    return Choice(block, choose_tiling(outputs, block, vectors, density, threads))


def other_blocks(
    outputs: Outputs, vectors: VectorSet, density: Density, rectify: bool, threads: int, count: int
) -> Iterator[Choice]:
    """The next best blocks of clearly different size, worth measuring.

    Args:
        outputs: of the layer.
        vectors: set of instructions.
        density: of the weight.
        rectify: end with max(0, x).
        threads: that will run it.
        count: how many.
    """
    seen: set[tuple[int, int]] = set()
    for block in choose_blocks(outputs, vectors, density, rectify, threads):
        tile = block.tile
        kind = (round(2 * log2(tile.height)), -(-outputs.columns // tile.width))
        if kind in seen:  # about as many rows, cut into as many pieces
            continue
        seen.add(kind)
        if len(seen) > 1:
            yield Choice(block, choose_tiling(outputs, block, vectors, density, threads))
        if len(seen) > count:
            return


def variations(choice: Choice, outputs: Outputs, vectors: VectorSet, density: Density, threads: int) -> list[Choice]:
    """A choice with shorter and longer passes, with two filters at a time, and with more and fewer shares."""
    block, tiling = choice.block, choice.tiling
    found = [
        Choice(block, choose_tiling(outputs, block, vectors, density, threads, pass_bytes))
        for pass_bytes in (PASS_BYTES // 2, 2 * PASS_BYTES)
    ]
    found += [Choice(block, replace(tiling, shares=shares)) for shares in (2 * tiling.shares, tiling.shares // 4)]
    if taps_beside(MOST_FILTERS * block.sums, vectors) == MOST_TAPS and density.filters > 1:
        twice = replace(block, filters=MOST_FILTERS)
        found.append(Choice(twice, choose_tiling(outputs, twice, vectors, density, threads)))
    return [other for other in dict.fromkeys(found) if other != choice and other.tiling.shares]
