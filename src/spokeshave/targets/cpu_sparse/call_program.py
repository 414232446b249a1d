"""Call program: the weights of one layer as a list of calls of tile routines and the stream of numbers they read.

A visit applies the nonzeros that one block of filters has in one pass, a range of input planes whose part under a tile
fits into the fastest cache. The program of a share of the filters is one straight run of calls; a share is what one
thread can do alone.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from spokeshave.errors import UnsupportedLayer
from spokeshave.targets.cpu_sparse.tap_shapes import Cut, Taps, Tile, choose_shapes, cut_kernels
from spokeshave.targets.cpu_sparse.tile_routines import MOST_ENTRIES, TRANSITIONS, Block, Macro, Pitches


@dataclass(frozen=True)
class Tiling:
    """Choices that change the speed and nothing else.

    Attributes:
        pass_planes: input planes of a pass.
        macro_entries: entries of a macro, 1..4.
        most_macros: macros of several entries that get a routine.
        shares: parts of the filters that can run on different threads.
    """

    pass_planes: int = 16
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


@dataclass(frozen=True)
class CutWeight:
    """A layer's weight with its nonzeros cut into shapes; it serves every tile of the same layer.

    Attributes:
        weight: float32, [filters, planes of a group, height, width].
        kernels: int64, [count, 2]: filter and plane of each 2-D kernel that is not all zero.
        cut: of these kernels.
    """

    weight: np.ndarray
    kernels: np.ndarray
    cut: Cut

    @classmethod
    def of(cls, weight: np.ndarray, tile: Tile, most_taps: int = 3, most_shapes: int = 7) -> "CutWeight":
        """Choose shapes for a weight and cut it.

        Args:
            weight: float32, [filters, planes of a group, height, width].
            tile: that the shapes will be applied to, or one like it.
            most_taps: the most taps of a shape.
            most_shapes: the most shapes beside the single tap.
        """
        used = weight != 0
        kernels = np.argwhere(used.any((2, 3)))
        patterns = used[kernels[:, 0], kernels[:, 1]]
        return cls(weight, kernels, cut_kernels(patterns, choose_shapes(patterns, tile, most_taps, most_shapes)))


def build_program(
    cut_weight: CutWeight,
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
        cut_weight: the weight.
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
    filters, planes = cut_weight.weight.shape[:2]
    _check_size(filters, planes * groups, block, pitches, input_plane)
    table = _Entries(cut_weight, groups, block, pitches, input_plane, vector_bytes, tiling)
    macros, items = _choose_macros(table, block, tiling)
    blocks = -(-filters // block.filters)
    borders = np.linspace(0, blocks, min(tiling.shares, blocks) + 1).round().astype(int)
    routine = {name: len(macros) + number for number, name in enumerate(("bias", "write", *map("_".join, TRANSITIONS)))}
    shares = [
        _share(table, items, bias, block, pitches, vector_bytes, routine, range(first, last))
        for first, last in pairwise(borders)
    ]
    return CallProgram(cut_weight.cut.shapes, macros, shares, len(cut_weight.cut.entries))


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
        cut_weight: CutWeight,
        groups: int,
        block: Block,
        pitches: Pitches,
        input_plane: int,
        vector_bytes: int,
        tiling: Tiling,
    ) -> None:
        cut, weight = cut_weight.cut, cut_weight.weight
        filters, planes = weight.shape[:2]
        kernel, shape, row, column = cut.entries.T
        filter_, plane = cut_weight.kernels[kernel].T
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
    visits, entry_visit = np.unique(table.visit[entries], return_inverse=True)
    visited = table.block[np.searchsorted(table.visit, visits)]
    idle = np.setdiff1d(np.arange(blocks.start, blocks.stop), visited)
    visited = np.concatenate([idle, visited])
    count = len(visited)
    opens = np.zeros(count, bool)
    opens[np.unique(visited, return_index=True)[1]] = True
    closes = np.zeros(count, bool)
    closes[count - 1 - np.unique(visited[::-1], return_index=True)[1]] = True
    words = _transition_words(visited, opens, closes, bias, block, pitches, vector_bytes, blocks.start)
    call_visit = np.searchsorted(visits, table.visit[calls[0]]) + len(idle)
    between = 2 * closes[:-1] + ~opens[1:]  # in the order of TRANSITIONS
    transitions = np.concatenate([[routine["bias"]], routine["write"] + 1 + between, [routine["write"]]])
    order = np.argsort(np.concatenate([np.arange(count + 1), call_visit + 0.5]), kind="stable")
    return Share(
        np.concatenate([transitions, calls[1]])[order],
        _stream(table, entries, entry_visit.ravel() + len(idle), *words),
    )


def _runs(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """start, start + 1, ... for each run, one after another.

    Example:
        >>> _runs(np.array([3, 7]), np.array([2, 1])).tolist()
        [3, 4, 7]
    """
    first = np.cumsum(lengths) - lengths
    return np.repeat(starts - first, lengths) + np.arange(lengths.sum())


def _transition_words(
    visited: np.ndarray,
    opens: np.ndarray,
    closes: np.ndarray,
    bias: np.ndarray,
    block: Block,
    pitches: Pitches,
    vector_bytes: int,
    first_block: int,
) -> tuple[np.ndarray, np.ndarray]:
    """What each routine between two visits reads: where to leave the sums, where to take the next from.

    Returns:
        the words of all transitions, int32, and how many each has.
    """
    padded = np.zeros(-(-len(bias) // block.filters) * block.filters, np.float32)
    padded[: len(bias)] = bias
    scratch = (visited - first_block) * block.sums * vector_bytes
    first = visited * block.filters
    leaving = np.where(closes, 1 + bool(pitches.residual_row), 1)
    taking = np.where(opens, block.filters, 1)
    lengths = np.append(taking, 0) + np.insert(leaving, 0, 0)
    starts = np.cumsum(lengths) - lengths
    words = np.zeros(int(lengths.sum()), np.int32)
    words[starts[1:]] = np.where(closes, first * pitches.output_plane, scratch)
    if pitches.residual_row:
        words[starts[1:][closes] + 1] = (first * pitches.residual_plane)[closes]
    begin = starts[:-1] + np.insert(leaving, 0, 0)[:-1]
    words[begin[~opens]] = scratch[~opens]
    wide = np.full(int(opens.sum()), block.filters)
    words[_runs(begin[opens], wide)] = padded[_runs(first[opens], wide)].view(np.int32)
    return words, lengths


def _stream(
    table: _Entries, entries: np.ndarray, visit: np.ndarray, words: np.ndarray, counts: np.ndarray
) -> np.ndarray:
    """All words in the order of reading: a transition's, then the offset and the weights of each entry of the visit."""
    taps = np.array([len(taps) for taps in table.taps])
    lengths = np.concatenate([counts, 1 + taps[table.shape[entries]]])
    when = np.concatenate([np.arange(len(counts)), visit + 0.5])
    order = np.argsort(when, kind="stable")
    starts = np.empty(len(order), np.int64)
    starts[order] = np.cumsum(lengths[order]) - lengths[order]
    stream = np.zeros(int(lengths.sum()), np.int32)
    stream[_runs(starts[: len(counts)], counts)] = words
    at = starts[len(counts) :]
    stream[at] = table.place[entries]
    for shape, count in enumerate(taps):
        has = table.shape[entries] == shape
        values = table.weights(entries[has], shape).astype(np.float32).view(np.int32)
        stream[at[has, None] + 1 + np.arange(count)] = values.reshape(-1, count)
    return stream
