"""Tile routines: machine code that applies one macro of tap shapes to a tile of outputs held in registers.

The program of a layer is a list of calls of these routines. A call has no condition that a processor could predict
wrongly: choosing the routine by data (a jump table) costs 40 cycles a choice, a direct call that is decoded anew costs
less than the multiply-adds hide. That makes it possible to have many routines: for each shape of taps that recurs, and
for macros of several shapes, whose multiply-adds cover the cost of entering.

Sums stay in registers over a visit of a block of filters. Between visits they rest in a scratch area; the first visit
begins from the bias, the last one adds the residual, rectifies and writes to the output.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from spokeshave.targets.cpu_sparse.tap_shapes import Taps, Tile
from spokeshave.targets.cpu_sparse.vector_instructions import VectorInstructions

Macro = tuple[tuple[int, int], ...]
"""(shape, filter of the block) of each entry, in order."""

MOST_ENTRIES = 4
"""Entries of one macro: as many as there are free registers for their addresses."""


@dataclass(frozen=True)
class Pitches:
    """Distances in memory, in bytes; neighbouring vectors of a row touch.

    Attributes:
        input_row: from one input row to the next.
        output_row: from one output row to the next.
        output_plane: from one filter's outputs to the next filter's.
        residual_row: as `output_row`, of what is added to the output; 0 for nothing to add.
        residual_plane: as `output_plane`.
    """

    input_row: int
    output_row: int
    output_plane: int
    residual_row: int = 0
    residual_plane: int = 0


@dataclass(frozen=True)
class Block:
    """What stays in registers: a tile of outputs of a few filters.

    Attributes:
        tile: of outputs.
        filters: at least 1.
        rectify: end with max(0, x).
    """

    tile: Tile
    filters: int
    rectify: bool

    @property
    def sums(self) -> int:
        """Vectors of sums."""
        return self.tile.outputs * self.filters


def write_routines(
    code: VectorInstructions, block: Block, pitches: Pitches, shapes: Sequence[Taps], macros: Iterable[Macro]
) -> list[str]:
    """Write every routine of a layer.

    Args:
        code: receives the instructions.
        block: in registers.
        pitches: of the memory.
        shapes: that macros refer to.
        macros: to write.

    Returns:
        the labels: of the macros in order, then `begin`, `end`, and the four of `TRANSITIONS`.
    """
    labels = []
    for number, macro in enumerate(macros):
        labels.append(f"macro_{number}")
        code.label(labels[-1])
        _macro(code, block, pitches, shapes, macro)
    parts: dict[str, Callable[[int], int]] = {
        "bias": lambda at: _begin_from_bias(code, block, at),
        "scratch": lambda at: _begin_from_scratch(code, block, at),
        "keep": lambda at: _end_in_scratch(code, block, at),
        "write": lambda at: _end_in_output(code, block, pitches, at),
    }
    for names in (("bias",), ("write",), *TRANSITIONS):
        labels.append("_".join(names))
        code.label(labels[-1])
        read = 0
        for name in names:
            read = parts[name](read)
        code.advance(code.stream, read)
        code.give_back()
    return labels


TRANSITIONS = (("keep", "bias"), ("keep", "scratch"), ("write", "bias"), ("write", "scratch"))
"""How one visit can end and the next begin."""


def _macro(code: VectorInstructions, block: Block, pitches: Pitches, shapes: Sequence[Taps], macro: Macro) -> None:
    read = 0
    entries = []
    for (shape, filter_), pointer in zip(macro, code.pointers, strict=False):
        code.point(pointer, code.input, read)
        entries.append((shapes[shape], filter_, pointer, read + 4))
        read += 4 + 4 * len(shapes[shape])
    for taps, filter_, pointer, weights_at in entries:
        _apply(code, block, pitches, taps, filter_, pointer, weights_at)
    code.advance(code.stream, read)
    code.give_back()


def _apply(
    code: VectorInstructions, block: Block, pitches: Pitches, taps: Taps, filter_: int, pointer: str, weights_at: int
) -> None:
    weights = [block.sums + tap for tap in range(len(taps))]
    spare = code.vectors.registers - 1
    buffers = list(range(block.sums + len(taps), spare)) or [spare]
    for tap, weight in enumerate(weights):
        code.weight(weight, code.stream, weights_at + 4 * tap)
    first, vector_bytes = filter_ * block.tile.outputs, code.vectors.bytes
    for turn, ((row, column), products) in enumerate(block.tile.reads(taps).items()):
        at = row * pitches.input_row + column * vector_bytes
        totals = [(first + output, weights[tap]) for tap, output in products]
        factor = buffers[turn % len(buffers)]  # in turn, so that a load need not wait for the multiply-add before
        if len(totals) == 1:
            code.multiply_add_from(*totals[0], pointer, at, factor)
            continue
        code.load(factor, pointer, at)
        for total, weight in totals:
            code.multiply_add(total, weight, factor, spare)


def _begin_from_bias(code: VectorInstructions, block: Block, read: int) -> int:
    for filter_ in range(block.filters):
        first = filter_ * block.tile.outputs
        code.broadcast(first, code.stream, read + 4 * filter_)
        for output in range(1, block.tile.outputs):
            code.copy(first + output, first)
    return read + 4 * block.filters


def _begin_from_scratch(code: VectorInstructions, block: Block, read: int) -> int:
    pointer = code.pointers[0]
    code.point(pointer, code.scratch, read)
    for number in range(block.sums):
        code.load(number, pointer, number * code.vectors.bytes)
    return read + 4


def _end_in_scratch(code: VectorInstructions, block: Block, read: int) -> int:
    pointer = code.pointers[1]
    code.point(pointer, code.scratch, read)
    for number in range(block.sums):
        code.store(number, pointer, number * code.vectors.bytes)
    return read + 4


def _end_in_output(code: VectorInstructions, block: Block, pitches: Pitches, read: int) -> int:
    output, residual = code.pointers[1], code.pointers[2]
    code.point(output, code.output, read)
    read += 4
    if pitches.residual_row:
        code.point(residual, code.residual, read)
        read += 4
    zero, spare = block.sums, block.sums + 1
    if block.rectify:
        code.zero(zero)
    for number in range(block.sums):
        filter_, place = divmod(number, block.tile.outputs)
        row, column = divmod(place, block.tile.width)
        across = column * code.vectors.bytes
        if pitches.residual_row:
            far = filter_ * pitches.residual_plane + row * pitches.residual_row + across
            code.add_from(number, residual, far, spare)
        if block.rectify:
            code.rectify(number, zero, spare)
        code.store(number, output, filter_ * pitches.output_plane + row * pitches.output_row + across)
    return read
