"""Windowed rows: y = W x + b for one vector of features, where one instruction fetches sixteen features.

Sixteen rows lie in the lanes. All that a step multiplies lies within 32 neighbouring features, which fill two vectors,
so that a permutation of these brings each row the feature that it wants; loading them one by one takes three times as
long, and then it is no longer memory that bounds the layer. Rows that have no nonzero left there sit the step out: a
mask says which, and their place in memory is saved (the CPU's expand instruction puts it back), so that a nonzero costs
five bytes and its share of four.
"""

from dataclasses import dataclass

import numpy as np
from llvmlite import ir

from spokeshave.jit.code_cache import Arrays
from spokeshave.jit.generated_operation import generated
from spokeshave.jit.host_cpu import VectorSet, host_cpu
from spokeshave.jit.native_loops import I32, I64
from spokeshave.jit.operation_loops import OperationLoops
from spokeshave.targets.cpu_sparse.plane_operations import rectified, splat
from spokeshave.targets.cpu_sparse.sparse_linear import prefetch, sum_of
from spokeshave.targets.cpu_sparse.stored_weight import StoredWeight, places_kind

LANES, WINDOW = 16, 32
"""Rows side by side; features in reach of one permutation of two vectors."""
FEATURE = "avx512vbmi2"
"""Of the CPU: without it there is no instruction that spreads bytes by a mask."""
WORTH = 6.0
"""Nonzeros that a step has to have on average: a step takes as long as gathering about so many one by one."""
AHEAD_BYTES = 4096
"""By which values are asked for in advance."""
UNROLL = 4
"""Steps that the loop takes at once, each with a sum of its own: left to itself, it runs at half the speed."""
_GROUPS_AT_ONCE = 32
"""Groups packed together: what is made on the way then stays small."""
_I8, _I16 = ir.IntType(8), ir.IntType(16)


@dataclass(frozen=True)
class WindowedRows:
    """A sparse matrix in the order in which the product reads it.

    Attributes:
        heads: uint32, one a step: mask of the rows that take part, and above it where the window begins, in vectors;
            steps of no row at the end of each group make their number a multiple of `UNROLL`.
        values: float32, one for each nonzero: by group of rows, window, step, row.
        columns: uint8, likewise: counted from where the window begins.
        starts: int64, [groups + 1, 2]: first step and first nonzero of each group of rows.
    """

    heads: np.ndarray
    values: np.ndarray
    columns: np.ndarray
    starts: np.ndarray

    @property
    def bytes(self) -> int:
        """Of everything that is read for one product."""
        return sum(part.nbytes for part in vars(self).values())

    def unpacked(self, shape: tuple[int, ...]) -> StoredWeight:
        """The matrix again, bit for bit.

        Args:
            shape: of the matrix.
        """
        masks = (self.heads & 0xFFFF).astype("<u2").view(np.uint8).reshape(-1, 2)
        step, line = np.nonzero(np.unpackbits(masks, axis=1, bitorder="little"))
        group = np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts[:, 0]))[step]
        column = self.columns + (self.heads[step] >> 16).astype(np.int64) * LANES
        places = (group * LANES + line) * shape[1] + column
        order = np.argsort(places, kind="stable")
        return StoredWeight(shape, places[order].astype(places_kind(shape)), self.values[order])

    def arrays(self) -> Arrays:
        """As plain arrays, to be kept on disk."""
        return dict(vars(self))

    @classmethod
    def of(cls, arrays: Arrays) -> "WindowedRows":
        """What `arrays` gave, with the cache's room behind it: a vector is loaded wherever a nonzero stands."""
        return cls(**arrays)


def nonzeros_a_step(weight: StoredWeight) -> float:
    """How many rows take part in a step on average, 0 to 16.

    Args:
        weight: [rows, columns].
    """
    counts = _counts(weight)
    return weight.nonzeros / max(1, int(counts.max(1).sum()))


def _counts(weight: StoredWeight) -> np.ndarray:
    """Nonzeros of each group, row of the group and window: int64, [groups, lanes, windows]."""
    height, width = weight.shape
    windows, groups = -(-width // WINDOW), -(-height // LANES)
    places = weight.places
    row, column = np.divmod(places, places.dtype.type(width))
    visit = row.astype(np.int64) * windows + column // WINDOW
    return np.bincount(visit, minlength=groups * LANES * windows).reshape(groups, LANES, windows)


def fits(weight: StoredWeight, vectors: VectorSet) -> bool:
    """Whether this layer can run, and runs faster, this way.

    Args:
        weight: [rows, columns].
        vectors: set of instructions.
    """
    able = vectors is VectorSet.AVX512 and FEATURE in host_cpu().features
    return able and WINDOW <= weight.shape[1] <= LANES << 16 and nonzeros_a_step(weight) >= WORTH


def pack_windows(weight: StoredWeight) -> WindowedRows:
    """Put a matrix into this order.

    Args:
        weight: [rows, columns]; at least 32 columns.
    """
    counts = _counts(weight)
    places, nonzeros = weight.arrays()
    groups, _, windows = counts.shape
    begins = np.concatenate([[0], np.cumsum(counts)])
    base = np.minimum(np.arange(windows) * (WINDOW // LANES), -(-weight.shape[1] // LANES) - WINDOW // LANES)
    corner = (np.arange(groups * LANES)[:, None] * weight.shape[1] + LANES * base).ravel()  # of each visit
    values, columns = np.empty(weight.nonzeros, np.float32), np.empty(weight.nonzeros, np.uint8)
    heads, starts = [np.zeros(0, np.uint32)], [np.zeros((1, 2), np.int64)]
    for first in range(0, groups, _GROUPS_AT_ONCE):
        some = counts[first : first + _GROUPS_AT_ONCE].transpose(0, 2, 1).copy()  # [groups, windows, lanes]
        visits = slice(first * LANES * windows, (first + len(some)) * LANES * windows)
        begin, end = int(begins[visits.start]), int(begins[visits.stop])
        mine = counts.ravel()[visits]
        steps = max(1, some.max())
        present = some[:, :, None, :] > np.arange(steps)[:, None]  # [groups, windows, steps, lanes]
        # Where the first nonzero of each visit lies in an array like `present`; the next lie a step farther each.
        start = np.arange(some.size).reshape(some.shape)
        start = ((start // LANES * steps) * LANES + start % LANES).transpose(0, 2, 1).ravel()
        number = np.arange(begin, end)
        which = np.empty(present.shape, np.int64)
        which.ravel()[np.repeat(start - LANES * begins[visits], mine) + LANES * number] = number
        order = which[present]
        values[begin:end] = nonzeros[order]
        columns[begin:end] = (places[begin:end] - np.repeat(corner[visits], mine))[order - begin]
        masks = np.packbits(present.ravel(), bitorder="little").view("<u2").reshape(present.shape[:-1])
        used = masks != 0
        taken = used.sum((1, 2))
        padded = -(-taken // UNROLL) * UNROLL
        shift = (np.cumsum(padded) - padded) - (np.cumsum(taken) - taken)
        head = np.zeros(padded.sum(), np.uint32)  # steps of no row fill up what the loop takes at once
        head[np.arange(taken.sum()) + np.repeat(shift, taken)] = masks[used] | (
            np.broadcast_to(base[:, None], masks.shape)[used] << 16
        )
        heads.append(head)
        starts.append(starts[-1][-1] + np.cumsum(np.stack([padded, some.sum((1, 2))], axis=1), axis=0))
    return WindowedRows(np.concatenate(heads), values, columns, np.concatenate(starts))


@generated
def windowed_product(rectify: bool) -> OperationLoops:
    """Operation for one vector of features; its items are groups of sixteen rows.

    Fields: source_at, target_at (float32 features), bias_at (as many as rows in whole groups), heads_at, values_at,
    columns_at, starts_at.
    """
    vectors = VectorSet.AVX512
    fields = ("source_at", "target_at", "bias_at", "heads_at", "values_at", "columns_at", "starts_at")
    loops = OperationLoops("windowed_product", vectors, fields)
    given, build = loops.arguments, loops.builder
    mask_type, bytes_type, wide_type = (ir.VectorType(kind, LANES) for kind in (ir.IntType(1), _I8, I32))

    with build.goto_entry_block():  # inside a loop the stack would grow with every turn
        entry = build.alloca(I64)
    with loops.items() as group:
        visit = loops.at(given["starts_at"], loops.times(group, 16))
        start, stop = loops.load(visit, I64, 8), loops.load(loops.at(visit, 16), I64, 8)
        loops.store(loops.load(loops.at(visit, 8), I64, 8), entry, 8)
        totals = [loops.variable() for _ in range(UNROLL)]  # so that a multiply-add need not wait for the last
        bias = loops.load(loops.at(given["bias_at"], loops.times(group, vectors.bytes)))
        for part, total in enumerate(totals):
            loops.store(splat(loops, 0.0) if part else bias, total, vectors.bytes)
        with loops.loop(start, stop, UNROLL) as step:
            number = loops.load(entry, I64, 8)
            for part, total in enumerate(totals):
                head = loops.load(loops.at(given["heads_at"], loops.times(step, 4), 4 * part), I32, 4)
                bits = build.trunc(head, _I16)
                mask = build.bitcast(bits, mask_type)
                begin = loops.times(build.zext(build.lshr(head, I32(16)), I64), vectors.bytes)
                window = loops.at(given["source_at"], begin)
                values = loops.at(given["values_at"], loops.times(number, 4))
                prefetch(loops, loops.at(values, AHEAD_BYTES))
                weights = loops.call(
                    "llvm.x86.avx512.mask.expand.v16f32", loops.vector, loops.load(values), splat(loops, 0.0), mask
                )
                columns = loops.load(loops.at(given["columns_at"], number), bytes_type, 1)
                nothing = ir.Constant(bytes_type, [0] * LANES)
                places = loops.call("llvm.x86.avx512.mask.expand.v16i8", bytes_type, columns, nothing, mask)
                near, far = (loops.load(loops.at(window, half * vectors.bytes), align=vectors.bytes) for half in (0, 1))
                wanted = loops.call(
                    "llvm.x86.avx512.vpermi2var.ps.512", loops.vector, near, build.zext(places, wide_type), far
                )  # fmt: skip
                # 0 for rows that sit out: 0 times a feature that is no number would not be 0. Masking the sum instead
                # takes 1.8 times as long on Zen 4.
                features = build.select(mask, wanted, splat(loops, 0.0))
                older = loops.load(total, align=vectors.bytes)
                loops.store(loops.multiply_add(weights, features, older), total, vectors.bytes)
                number = build.add(number, build.zext(loops.call("llvm.ctpop.i16", _I16, bits), I64))
            loops.store(number, entry, 8)
        result = sum_of(loops, totals)
        if rectify:
            result = rectified(loops, result)
        target = loops.at(given["target_at"], loops.times(group, vectors.bytes))
        loops.store(result, target, vectors.bytes)
    return loops
