"""Tile choice: how many outputs to hold in registers, and how many input planes to pass over at a time.

A starting point by arithmetic, from the register file, the cache and the weights' density; measuring may do better.
"""

from dataclasses import dataclass

import numpy as np

from spokeshave.jit.host_cpu import VectorSet
from spokeshave.targets.cpu_sparse.call_program import Tiling
from spokeshave.targets.cpu_sparse.tap_shapes import SINGLE, Tile, cost
from spokeshave.targets.cpu_sparse.tile_routines import Block

PASS_BYTES = (32 << 10, 80 << 10)
"""Bytes of input under one tile in a pass, at least and at most: around the size of a first-level cache."""
CALL_CYCLES_MORE = 6.0
"""What a call costs beyond `cost` where most macros have one entry only."""
NONZEROS_A_VISIT = 8
"""Below this, bringing sums in and out costs more than what is added to them."""


@dataclass(frozen=True)
class Outputs:
    """What a layer computes for one filter.

    Attributes:
        rows: of outputs.
        columns: vectors of a row.
        kernel: height and width as the routines see it.
        stride: in planes' rows and columns.
        dilation: likewise.
    """

    rows: int
    columns: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]


def _under(outputs: Outputs, tile: Tile) -> int:
    """Vectors of an input plane that a tile reads."""
    height = (tile.height - 1) * tile.stride[0] + (outputs.kernel[0] - 1) * tile.dilation[0] + 1
    width = (tile.width - 1) * tile.stride[1] + (outputs.kernel[1] - 1) * tile.dilation[1] + 1
    return height * width


def choose_block(outputs: Outputs, vectors: VectorSet, weight: np.ndarray, most_taps: int, rectify: bool) -> Block:
    """The tile with the lowest estimated time for each output that is wanted.

    Args:
        outputs: of the layer.
        vectors: set of instructions.
        weight: float32, [filters, planes of a group, height, width], as the routines see it.
        most_taps: the most taps of a shape, which need a register each.
        rectify: end with max(0, x).
    """
    free = vectors.registers - most_taps - (2 if vectors is VectorSet.SSE else 1)
    pair = ((0, 0), (0, 1)) if outputs.kernel[1] > 1 else ((0, 0), (1, 0)) if outputs.kernel[0] > 1 else SINGLE
    density = max(np.count_nonzero(weight), 1) / (weight.shape[0] * weight.shape[1])  # taps of a 2-D kernel
    best: tuple[float, Block] | None = None
    for height in range(1, min(outputs.rows, free) + 1):
        for width in range(1, min(outputs.columns, free // height) + 1):
            tile = Tile(height, width, outputs.stride, outputs.dilation)
            tiles = -(-outputs.rows // height) * -(-outputs.columns // width)
            share = min(len(weight), free // tile.outputs, 3)
            cycles = (cost(tile, SINGLE) + cost(tile, pair)) / (1 + len(pair))
            # A pass holds as many planes as fit: each brings the sums of a visit in and out once.
            planes_a_pass = min(weight.shape[1], max(1.0, PASS_BYTES[0] / (_under(outputs, tile) * vectors.bytes)))
            cycles += tile.outputs / (density * planes_a_pass)
            # Macros of several filters are more diverse, so fewer of them get a routine.
            cycles += CALL_CYCLES_MORE * min(share, 4) / 3
            estimate = cycles * tiles / (outputs.rows * outputs.columns)
            if best is None or estimate < best[0]:
                best = estimate, Block(tile, share, rectify)
    assert best is not None
    return best[1]


def choose_tiling(weight: np.ndarray, outputs: Outputs, block: Block, vectors: VectorSet, threads: int) -> Tiling:
    """Passes, shapes and shares for a layer.

    Args:
        weight: float32, [filters, planes of a group, height, width], as the routines see it.
        outputs: of the layer.
        block: chosen before.
        vectors: set of instructions.
        threads: that will run it.
    """
    tile = block.tile
    plane_bytes = _under(outputs, tile) * vectors.bytes
    planes = weight.shape[1]
    density = np.count_nonzero(weight) / max(1, weight.shape[0] * planes) * block.filters
    wanted = NONZEROS_A_VISIT / max(density, 1e-9)
    least, most = (max(1, limit // plane_bytes) for limit in PASS_BYTES)
    passes = max(1, round(planes / min(max(wanted, least), most)))
    tiles = -(-outputs.rows // tile.height) * -(-outputs.columns // tile.width)
    shares = 1
    while threads > 1 and (tiles * shares < 4 * threads or tiles * shares % threads) and shares < 8:
        shares += 1
    return Tiling(
        -(-planes // passes),
        3 if tile.outputs <= vectors.registers - 5 else 2,
        7,
        3 if tile.outputs > 16 else 4,
        40,
        shares,
    )
