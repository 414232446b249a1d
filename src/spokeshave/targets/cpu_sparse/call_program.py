"""Call program: the weights of one layer as a list of calls of tile routines and the stream of numbers they read.

A visit applies the nonzeros that one block of filters has in one pass, a range of input planes whose part under a tile
fits into the fastest cache. The program of a share of the filters is one straight run of calls; a share is what one
thread can do alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from spokeshave.errors import UnsupportedLayer
from spokeshave.targets.cpu_sparse.tap_shapes import Cut, Taps, cut_kernels
from spokeshave.targets.cpu_sparse.tile_routines import MOST_ENTRIES, TRANSITIONS, Block, Macro, Pitches


@dataclass(frozen=True)
class Tiling:
    """Choices that change the speed and nothing else.

    Attributes:
        pass_planes: input planes of a pass.
        most_taps: the most taps of a shape.
        most_shapes: the most shapes beside the single tap.
        macro_entries: entries of a macro, 1..4.
        most_macros: macros of several entries that get a routine.
        shares: parts of the filters that can run on different threads.
    """

    pass_planes: int = 16
    most_taps: int = 3
    most_shapes: int = 7
    macro_entries: int = 3
    most_macros: int = 40
    shares: int = 1


@dataclass(frozen=True)
class Share:
    """The program of some of the filters.

    Attributes:
        calls: index into the routines' labels, in order.
        stream: 32-bit words that they read.
    """

    calls: np.ndarray
    stream: np.ndarray


@dataclass(frozen=True)
class CallProgram:
    """What a layer's weights became.

    Attributes:
        shapes: tap shapes in use.
        macros: that need a routine.
        shares: programs; every filter is in exactly one.
        entries: shapes applied to one tile, in all.
    """

    shapes: list[Taps]
    macros: list[Macro]
    shares: list[Share]
    entries: int


_LARGEST_OFFSET = 2**31 - 1


def build_program(
    weight: np.ndarray,
    bias: np.ndarray,
    groups: int,
    block: Block,
    pitches: Pitches,
    input_plane: int,
    vector_bytes: int,
    tiling: Tiling,
) -> CallProgram:
    """Translate the nonzeros of a layer.

    Args:
        weight: float32, [filters, planes of a group, height, width].
        bias: float32, [filters].
        groups: into which filters and planes fall.
        block: held in registers.
        pitches: of the memory.
        input_plane: bytes from one input plane to the next.
        vector_bytes: bytes of a vector.
        tiling: choices.

    Raises:
        UnsupportedLayer: the layer's memory is beyond 2 GiB for one batch of lanes.
    """
    filters, planes = weight.shape[:2]
    _check_size(filters, planes * groups, block, pitches, input_plane)
    kernels = np.argwhere((weight != 0).any((2, 3)))
    cut = cut_kernels(weight[kernels[:, 0], kernels[:, 1]] != 0, block.tile, tiling.most_taps, tiling.most_shapes)
    table = _Entries(cut, kernels, weight, groups, block, pitches, input_plane, vector_bytes, tiling)
    macros, items = _choose_macros(table, block, tiling)
    blocks = -(-filters // block.filters)
    borders = np.linspace(0, blocks, min(tiling.shares, blocks) + 1).round().astype(int)
    routine = {name: len(macros) + number for number, name in enumerate(("bias", "write", *map("_".join, TRANSITIONS)))}
    shares = [
        _share(table, items, bias, block, pitches, vector_bytes, routine, range(first, last))
        for first, last in pairwise(borders)
    ]
    return CallProgram(cut.shapes, macros, shares, len(cut.entries))


def _check_size(filters: int, planes: int, block: Block, pitches: Pitches, input_plane: int) -> None:
    largest = max(
        planes * input_plane,
        (filters + block.filters) * max(pitches.output_plane, pitches.residual_plane),
    )
    if largest > _LARGEST_OFFSET:
        raise UnsupportedLayer(
            f"{largest / 2**30:.1f} GiB of activations for one vector of images or pixels, of at most 2 GiB: "
            "use smaller images, or keep this layer in torch"
        )


class _Entries:
    """Every application of a shape, in the order in which the program makes them."""

    def __init__(
        self,
        cut: Cut,
        kernels: np.ndarray,
        weight: np.ndarray,
        groups: int,
        block: Block,
        pitches: Pitches,
        input_plane: int,
        vector_bytes: int,
        tiling: Tiling,
    ) -> None:
        filters, planes = weight.shape[:2]
        kernel, shape, row, column = cut.entries.T
        filter_, plane = kernels[kernel].T
        group = filter_ // max(1, filters // groups)
        passes = -(-planes // tiling.pass_planes)
        turn = group * passes + plane // tiling.pass_planes
        place = (
            (group * planes + plane) * input_plane
            + row * block.tile.dilation[0] * pitches.input_row
            + column * block.tile.dilation[1] * vector_bytes
        )
        key = shape * block.filters + filter_ % block.filters
        order = np.lexsort((place, key, filter_ // block.filters, turn))
        self.taps = [np.array(taps) for taps in cut.shapes]
        self.block = (filter_ // block.filters)[order]
        self.turn, self.key, self.shape, self.place = turn[order], key[order], shape[order], place[order]
        self._filter, self._plane, self._row, self._column = filter_[order], plane[order], row[order], column[order]
        self._weight = weight
        changes = (np.diff(self.turn) != 0) | (np.diff(self.block) != 0)
        self.visit = np.concatenate([[0], np.cumsum(changes)]) if len(order) else np.zeros(0, np.int64)

    def weights(self, chosen: np.ndarray, shape: int) -> np.ndarray:
        """Weights of entries that have this shape, [entries, taps]."""
        rows = self._row[chosen, None] + self.taps[shape][:, 0]
        columns = self._column[chosen, None] + self.taps[shape][:, 1]
        return self._weight[self._filter[chosen, None], self._plane[chosen, None], rows, columns]


@dataclass(frozen=True)
class _Items:
    """Calls of macros: the first entry of each, and which macro it is."""

    first: np.ndarray
    macro: np.ndarray


def _choose_macros(table: _Entries, block: Block, tiling: Tiling) -> tuple[list[Macro], _Items]:
    """Group entries of a visit in their order; the groups that are most frequent get a routine, others are split."""
    count = len(table.key)
    size = min(tiling.macro_entries, MOST_ENTRIES)
    starts = np.flatnonzero(np.diff(table.visit, prepend=-1))
    within = np.arange(count) - np.repeat(starts, np.diff(np.append(starts, count)))
    leads = np.flatnonzero(within % size == 0)
    base = len(table.taps) * block.filters + 1
    code = np.zeros(len(leads), np.int64)
    lengths = np.diff(np.append(leads, count))
    for step in range(size):
        inside = lengths > step
        code[inside] += (table.key[leads[inside] + step] + 1) * base**step
    kinds, which, uses = np.unique(code, return_inverse=True, return_counts=True)
    several = kinds >= base
    gain = np.where(several, uses, 0)
    chosen = np.zeros(len(kinds), bool)
    chosen[np.argsort(-gain, kind="stable")[: tiling.most_macros]] = True
    chosen &= several
    whole = chosen[which]
    split = np.repeat(~whole, lengths)
    first = np.sort(np.concatenate([leads[whole], np.flatnonzero(split)]))
    own = np.zeros(count, np.int64)
    own[np.flatnonzero(split)] = table.key[split] + 1
    own[leads[whole]] = code[whole]
    used, macro = np.unique(own[first], return_inverse=True)
    macros = [_decode(int(number), base, block.filters) for number in used]
    return macros, _Items(first, macro.ravel())


def _decode(code: int, base: int, filters: int) -> Macro:
    entries = []
    while code:
        code, digit = divmod(code, base)
        entries.append(divmod(digit - 1, filters))
    return tuple(entries)


def _share(
    table: _Entries,
    items: _Items,
    bias: np.ndarray,
    block: Block,
    pitches: Pitches,
    vector_bytes: int,
    routine: dict[str, int],
    blocks: range,
) -> Share:
    """The straight run of calls for a range of blocks."""
    mine = (table.block >= blocks.start) & (table.block < blocks.stop)
    entries = np.flatnonzero(mine)
    calls = items.first[mine[items.first]], items.macro[mine[items.first]]
    # Visits in order; a block without any nonzero is visited once, at the very beginning, for its bias.
    visit_of = {int(v): i for i, v in enumerate(np.unique(table.visit[entries]))}
    heads = np.searchsorted(table.visit, sorted(visit_of)) if visit_of else np.zeros(0, np.int64)
    visited = table.block[heads]
    idle = np.setdiff1d(np.arange(blocks.start, blocks.stop), visited)
    visited = np.concatenate([idle, visited])
    visits = len(visited)
    opens = np.zeros(visits, bool)
    opens[np.unique(visited, return_index=True)[1]] = True
    closes = np.zeros(visits, bool)
    closes[visits - 1 - np.unique(visited[::-1], return_index=True)[1]] = True
    words = _transition_words(visited, opens, closes, bias, block, pitches, vector_bytes, blocks.start)
    entry_visit = np.array([visit_of[int(v)] for v in table.visit[entries]], np.int64) + len(idle)
    call_visit = np.array([visit_of[int(v)] for v in table.visit[calls[0]]], np.int64) + len(idle)
    names = [
        ("write" if closes[v - 1] else "keep") + "_" * (v > 0) + ("bias" if opens[v] else "scratch") if v else "bias"
        for v in range(visits)
    ]
    transitions = np.array([routine[name] for name in names] + [routine["write"]], np.int64)
    order = np.argsort(np.concatenate([np.arange(visits + 1), call_visit + 0.5]), kind="stable")
    return Share(
        np.concatenate([transitions, calls[1]])[order],
        _stream(table, entries, entry_visit, words),
    )


def _transition_words(
    visited: np.ndarray,
    opens: np.ndarray,
    closes: np.ndarray,
    bias: np.ndarray,
    block: Block,
    pitches: Pitches,
    vector_bytes: int,
    first_block: int,
) -> list[np.ndarray]:
    """What the routine between two visits reads: where to leave the sums, where to take the next from."""
    padded = np.zeros(-(-len(bias) // block.filters) * block.filters, np.float32)
    padded[: len(bias)] = bias
    words: list[list[np.ndarray]] = [[] for _ in range(len(visited) + 1)]
    for turn, number in enumerate(visited):
        scratch = np.array([(number - first_block) * block.sums * vector_bytes])
        first = number * block.filters
        words[turn].append(padded[first : first + block.filters].view(np.int32) if opens[turn] else scratch)
        if closes[turn]:
            ends = [first * pitches.output_plane] + [first * pitches.residual_plane] * bool(pitches.residual_row)
            words[turn + 1].insert(0, np.array(ends))
        else:
            words[turn + 1].insert(0, scratch)
    return [np.concatenate(parts) for parts in words]


def _stream(table: _Entries, entries: np.ndarray, visit: np.ndarray, words: Sequence[np.ndarray]) -> np.ndarray:
    """All words in the order of reading: a transition's, then the offset and the weights of each entry of the visit."""
    taps = np.array([len(taps) for taps in table.taps])
    own = 1 + taps[table.shape[entries]]
    lengths = np.concatenate([np.array([len(part) for part in words]), own])
    when = np.concatenate([np.arange(len(words)), visit + 0.5])
    order = np.argsort(when, kind="stable")
    starts = np.empty(len(order), np.int64)
    starts[order] = np.cumsum(lengths[order]) - lengths[order]
    stream = np.zeros(int(lengths.sum()), np.int32)
    for start, part in zip(starts[: len(words)], words, strict=True):
        stream[start : start + len(part)] = part
    at = starts[len(words) :]
    stream[at] = table.place[entries]
    for shape, count in enumerate(taps):
        has = table.shape[entries] == shape
        values = table.weights(entries[has], shape).astype(np.float32).view(np.int32)
        stream[at[has, None] + 1 + np.arange(count)] = values.reshape(-1, count)
    return stream
