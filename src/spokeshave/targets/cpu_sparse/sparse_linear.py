"""Sparse linear layers: y = W x + b for a sparse matrix W, for one vector of features and for a vector of images.

For one image the layer is bound by memory: what counts is the bytes of a nonzero, six here (a float and a 16-bit
column), or four where every weight of the layer is a bfloat16, the upper half of a float. Sixteen rows of equal length
lie side by side in the lanes (SELL, Kreutzer et al., SISC 2014) and gather their features from the fastest cache. For a
vector of images each nonzero is one multiply-add of a whole vector; the features are taken in passes that fit into that
cache.
"""

from dataclasses import dataclass

import numpy as np
from llvmlite import ir

from spokeshave.jit.code_cache import Arrays
from spokeshave.jit.generated_operation import generated
from spokeshave.jit.host_cpu import VectorSet
from spokeshave.jit.native_loops import F32, I32, I64
from spokeshave.jit.operation_loops import OperationLoops
from spokeshave.targets.cpu_sparse.plane_operations import rectified, splat
from spokeshave.targets.cpu_sparse.stored_weight import StoredWeight, places_kind

UNROLL = 4
"""Independent sums of a row, so that one multiply-add need not wait for the one before."""
PASS_BYTES = 32 << 10
"""Bytes of features in a pass over the images' matrix."""
AHEAD = 256
"""Nonzeros by which the images' product asks for memory in advance: rows are short, and end before the CPU would."""
GATHER_AHEAD = 1024
"""Likewise of the product for one vector of features."""
CRUMB = np.float32(2.0**-40)
"""Part of a weight that each padding entry beside it has: far less than what is lost by rounding."""
ROWS_AN_ITEM = 64
"""Rows that a thread takes at a time."""


@dataclass(frozen=True)
class PackedRows:
    """A sparse matrix in the order in which a kernel reads it.

    Attributes:
        values: float32, or uint16, the upper halves of floats whose lower halves are all zero.
        columns: uint16 or uint32, one for each value.
        starts: int64, first entry of each visit, and the end of the last.
        rows: int64, the row that each lane of a visit computes; empty where visits go row by row.
        passes: how often the rows of an item are visited.
    """

    values: np.ndarray
    columns: np.ndarray
    starts: np.ndarray
    rows: np.ndarray
    passes: int = 1

    @property
    def bytes(self) -> int:
        """Of everything that is read for one product."""
        return self.values.nbytes + self.columns.nbytes + self.starts.nbytes + self.rows.nbytes

    def unpacked(self, shape: tuple[int, ...]) -> StoredWeight:
        """The matrix again, bit for bit.

        Args:
            shape: of the matrix.
        """
        visit = np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))
        if len(self.rows):
            lanes = len(self.rows) // (len(self.starts) - 1)
            row = self.rows[visit * lanes + np.arange(len(visit)) % lanes]
        else:
            row = visit // (self.passes * ROWS_AN_ITEM) * ROWS_AN_ITEM + visit % ROWS_AN_ITEM
        kept = np.flatnonzero(row >= 0)
        places = row[kept] * shape[1] + self.columns[kept]
        order = np.argsort(places, kind="stable")  # what pads a weight comes behind it
        places, values = places[order], floats(self.values[kept[order]])
        first = np.diff(places, prepend=-1) != 0
        return StoredWeight(shape, places[first].astype(places_kind(shape)), values[first])

    def arrays(self) -> Arrays:
        """As plain arrays, to be kept on disk."""
        return vars(self) | {"passes": np.array([self.passes])}

    @classmethod
    def of(cls, arrays: Arrays) -> "PackedRows":
        """What `arrays` gave, after it came through the cache of code: vectors are loaded from where it begins."""
        return cls(
            values=arrays["values"],
            columns=arrays["columns"],
            starts=arrays["starts"],
            rows=arrays["rows"],
            passes=int(arrays["passes"][0]),
        )


def floats(values: np.ndarray) -> np.ndarray:
    """Values of `PackedRows` as float32."""
    return (values.astype(np.uint32) << 16).view(np.float32) if values.dtype == np.uint16 else values


def _shortest(values: np.ndarray) -> np.ndarray:
    """Upper halves of floats, where the lower ones are all zero; else the floats."""
    halves = values.view("<u2").reshape(-1, 2)
    return values if halves[:, 0].any() else np.ascontiguousarray(halves[:, 1])


def _filled(count: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    kind = np.uint16 if columns <= 1 << 16 else np.uint32
    return np.zeros(max(count, 1), np.float32), np.zeros(max(count, 1), kind)


def _index(*largest: int) -> type[np.signedinteger]:
    """Integer that holds these numbers; half as wide ones are twice as fast to make millions of."""
    return np.int32 if max(largest) < 1 << 31 else np.int64


def pack_for_gathering(weight: StoredWeight, lanes: int) -> PackedRows:
    """Rows side by side in the lanes, those of nearly equal length together.

    What pads a row repeats its last column with a tiny part of that column's weight, far less than what rounding loses:
    a NaN in a feature that a row does not use stays out of it, and an infinity in one that it uses gives infinity, as 0
    times it would not. Rows without any nonzero are visited apart from the others.

    Args:
        weight: [rows, columns].
        lanes: of a vector.
    """
    height, width = weight.shape
    places, nonzeros = weight.arrays()
    begins = np.arange(height) * width  # of each row, among all elements
    first = np.append(np.searchsorted(places, begins.astype(places.dtype)), len(places))
    lengths = np.diff(first)
    full = lengths > 0
    order = np.argsort(-lengths, kind="stable")
    used = int(np.count_nonzero(full))
    parts = [np.concatenate([part, np.full(-len(part) % lanes, -1)]) for part in (order[:used], order[used:])]
    rows = np.concatenate(parts).reshape(-1, lanes).astype(np.int64)
    slots = -(-lengths[rows[:, 0]] // UNROLL) * UNROLL  # the first of a group is its longest
    starts = np.concatenate([[0], np.cumsum(slots)]) * lanes
    ends = first[1:][full] - 1  # each row's last nonzero
    last = np.zeros(height, np.int64)
    last[full] = places[ends] - begins[full]
    values, columns = _filled(int(starts[-1]), width)
    fill = np.where(rows >= 0, last[rows], last[rows[:, :1]])
    columns[: starts[-1]] = np.repeat(fill.astype(columns.dtype), slots, axis=0).ravel()
    final = np.zeros(height, np.float32)
    final[full] = nonzeros[ends]
    crumbs = np.where(rows >= 0, final[rows], 0) * CRUMB
    values[: starts[-1]] = np.repeat(crumbs, slots, axis=0).ravel()
    position = np.empty(height, np.int64)  # of a row among the lanes of all groups
    position[rows[rows >= 0]] = np.flatnonzero(rows.ravel() >= 0)
    # Where a row's nonzeros lie: a line of all lanes after another, from where its group begins.
    origin = starts[position // lanes] + position % lanes - first[:-1] * lanes
    kind = _index(lanes * len(places), int(starts[-1]))
    place = np.repeat(origin.astype(kind), lengths)
    place += np.arange(0, lanes * len(places), lanes, dtype=kind)
    values[place] = nonzeros
    columns[place] = places - np.repeat(begins.astype(places.dtype), lengths)
    return PackedRows(_shortest(values), columns, starts, rows.ravel())


def pack_for_images(weight: StoredWeight, vector_bytes: int) -> PackedRows:
    """Rows one by one, in passes over the features.

    Args:
        weight: [rows, columns].
        vector_bytes: bytes of one feature of all images.
    """
    height, width = weight.shape
    wide = PASS_BYTES // vector_bytes
    passes, items = max(1, -(-width // wide)), -(-height // ROWS_AN_ITEM)
    places, nonzeros = weight.arrays()
    # Places ascend: what a row has in a pass lies between two borders, here and in the order of the visits.
    borders = np.arange(height)[:, None] * width + np.minimum(np.arange(passes) * wide, width)
    begins = np.searchsorted(places, borders.ravel().astype(places.dtype))
    counts = np.diff(begins, append=len(places))
    visits = np.zeros((items * ROWS_AN_ITEM, passes), np.int64)
    visits[:height] = -(-counts.reshape(height, passes) // UNROLL) * UNROLL
    ordered = visits.reshape(items, ROWS_AN_ITEM, passes).transpose(0, 2, 1)
    starts = np.concatenate([[0], np.cumsum(ordered)])
    start = starts[:-1].reshape(ordered.shape).transpose(0, 2, 1).reshape(-1, passes)[:height].ravel()
    kind = _index(int(starts[-1]))
    place = np.arange(len(places), dtype=kind) + np.repeat((start - begins).astype(kind), counts)
    values, columns = _filled(int(starts[-1]), width)
    values[place] = nonzeros
    lengths = counts.reshape(height, passes).sum(1)
    columns[place] = places - np.repeat(borders[:, 0].astype(places.dtype), lengths)
    ends = begins + counts - 1
    for extra in range(UNROLL - 1):  # as for gathering
        short = ends[(counts > 0) & (counts % UNROLL != 0) & (counts % UNROLL + extra < UNROLL)]
        padding = place[short] + extra + 1
        columns[padding], values[padding] = columns[place[short]], nonzeros[short] * CRUMB
    return PackedRows(_shortest(values), columns, starts, np.zeros(0, np.int64), passes)


@generated
def gathering_product(vectors: VectorSet, value_bytes: int, column_bytes: int, rectify: bool) -> OperationLoops:
    """Operation for one vector of features; its items are groups of as many rows as there are lanes.

    Features are loaded one by one: the CPU's own gather instruction takes 1.6 times as long on Zen 4.

    Args:
        vectors: set of instructions.
        value_bytes: of a value, 4 or 2.
        column_bytes: of a column, likewise.
        rectify: end with max(0, x).

    Fields: source_at, target_at (float32 features), bias_at, values_at, columns_at, starts_at, rows_at.
    """
    loops = OperationLoops("gathering_product", vectors, _FIELDS[:-2] + ("rows_at",))
    given, build, lanes = loops.arguments, loops.builder, vectors.lanes
    with loops.items() as group:
        visit = loops.at(given["starts_at"], loops.times(group, 8))
        start, stop = loops.load(visit, I64, 8), loops.load(loops.at(visit, 8), I64, 8)
        totals = [loops.variable() for _ in range(UNROLL)]
        for total in totals:
            loops.store(splat(loops, 0.0), total, vectors.bytes)
        with loops.loop(start, stop, UNROLL * lanes) as entry:
            values = loops.at(given["values_at"], loops.times(entry, value_bytes))
            columns = loops.at(given["columns_at"], loops.times(entry, column_bytes))
            for start, size in ((values, value_bytes), (columns, column_bytes)):
                for far in range(0, UNROLL * lanes * size, 64):
                    prefetch(loops, loops.at(start, size * GATHER_AHEAD + far))
            for part, total in enumerate(totals):
                features = ir.Constant(loops.vector, ir.Undefined)
                numbers = _numbers(loops, loops.at(columns, part * lanes * column_bytes), column_bytes, lanes)
                for lane, number in enumerate(numbers):
                    value = loops.load(loops.at(given["source_at"], loops.times(number, 4)), F32)
                    features = build.insert_element(features, value, I64(lane))
                weight = _weights(loops, loops.at(values, part * lanes * value_bytes), value_bytes, lanes)
                loops.store(
                    loops.multiply_add(weight, features, loops.load(total, align=vectors.bytes)), total, vectors.bytes
                )
        result = sum_of(loops, totals)
        rows = loops.at(given["rows_at"], loops.times(group, 8 * lanes))
        for lane in range(lanes):
            row = loops.load(loops.at(rows, 8 * lane), I64, 8)
            with build.if_then(build.icmp_signed(">=", row, I64(0))):
                far = loops.times(row, 4)
                value = build.fadd(
                    build.extract_element(result, I64(lane)), loops.load(loops.at(given["bias_at"], far), F32)
                )
                if rectify:
                    value = build.select(build.fcmp_ordered("<", value, F32(0.0)), F32(0.0), value)
                loops.store(value, loops.at(given["target_at"], far))
    return loops


def sum_of(loops: OperationLoops, totals: list[ir.Value]) -> ir.Value:
    """Sum of some variables, as many as a power of two."""
    values = [loops.load(total, align=loops.vectors.bytes) for total in totals]
    while len(values) > 1:
        values = [loops.builder.fadd(one, other) for one, other in zip(values[::2], values[1::2], strict=True)]
    return values[0]


@generated
def images_product(vectors: VectorSet, value_bytes: int, column_bytes: int, rectify: bool) -> OperationLoops:
    """Operation for a vector of images; its items are runs of rows.

    Args:
        vectors: set of instructions.
        value_bytes: of a value, 4 or 2.
        column_bytes: of a column, likewise.
        rectify: end with max(0, x).

    Fields: source_at, target_at ([features, lanes]), bias_at, values_at, columns_at, starts_at, passes, height.
    """
    loops = OperationLoops("images_product", vectors, _FIELDS)
    given, build = loops.arguments, loops.builder
    with loops.items() as item:
        first = loops.times(item, ROWS_AN_ITEM)
        left = build.sub(given["height"], first)
        count = build.select(build.icmp_signed("<", left, I64(ROWS_AN_ITEM)), left, I64(ROWS_AN_ITEM))
        with loops.loop(0, given["passes"]) as turn, loops.loop(0, count) as line:
            row = build.add(first, line)
            number = build.add(build.mul(item, given["passes"]), turn)
            visit = loops.at(given["starts_at"], loops.times(build.add(loops.times(number, ROWS_AN_ITEM), line), 8))
            start, stop = loops.load(visit, I64, 8), loops.load(loops.at(visit, 8), I64, 8)
            target = loops.at(given["target_at"], loops.times(row, vectors.bytes))
            totals = [loops.variable() for _ in range(UNROLL)]
            bias = splat(loops, loops.load(loops.at(given["bias_at"], loops.times(row, 4)), F32))
            begin = build.select(build.icmp_signed("==", turn, I64(0)), bias, loops.load(target, align=vectors.bytes))
            for part, total in enumerate(totals):
                loops.store(splat(loops, 0.0) if part else begin, total, vectors.bytes)
            with loops.loop(start, stop, UNROLL) as entry:
                values = loops.at(given["values_at"], loops.times(entry, value_bytes))
                columns = loops.at(given["columns_at"], loops.times(entry, column_bytes))
                prefetch(loops, loops.at(values, value_bytes * AHEAD))
                prefetch(loops, loops.at(columns, column_bytes * AHEAD))
                weights, places = _spread(loops, values, value_bytes), _numbers(loops, columns, column_bytes, UNROLL)
                for total, weight, column in zip(totals, weights, places, strict=True):
                    place = loops.at(given["source_at"], loops.times(column, vectors.bytes))
                    features = loops.load(place, align=vectors.bytes)
                    loops.store(
                        loops.multiply_add(weight, features, loops.load(total, align=vectors.bytes)),
                        total,
                        vectors.bytes,
                    )
            result = sum_of(loops, totals)
            if rectify:
                last = build.icmp_signed("==", turn, build.sub(given["passes"], I64(1)))
                result = build.select(last, rectified(loops, result), result)
            loops.store(result, target, vectors.bytes)
    return loops


def prefetch(loops: OperationLoops, pointer: ir.Value) -> None:
    """Ask for memory that will be read soon; an address beyond the end does no harm."""
    loops.call("llvm.prefetch.p0", ir.VoidType(), pointer, I32(0), I32(3), I32(1))


def _numbers(loops: OperationLoops, columns: ir.Value, size: int, count: int) -> list[ir.Value]:
    """Some unsigned integers of `size` bytes, by as few loads as 64 bits allow."""
    build, found = loops.builder, []
    for first in range(0, count * size, 8):
        word = loops.load(loops.at(columns, first), I64, size)
        for part in range(0, 64, 8 * size):
            found.append(build.and_(build.lshr(word, I64(part)), I64(2 ** (8 * size) - 1)))
    return found


def _weights(loops: OperationLoops, values: ir.Value, size: int, count: int) -> ir.Value:
    """A vector of some floats, of which memory may hold the upper halves only."""
    if size == 4:
        return loops.load(values, ir.VectorType(F32, count), 4 * count)
    build, words = loops.builder, ir.VectorType(I32, count)
    halves = build.zext(loops.load(values, ir.VectorType(ir.IntType(16), count), 2 * count), words)
    return build.bitcast(build.shl(halves, words([16] * count)), ir.VectorType(F32, count))


def _spread(loops: OperationLoops, values: ir.Value, size: int) -> list[ir.Value]:
    """`UNROLL` floats, each in all lanes of a vector.

    With AVX-512, whose loads are what limits the product, one load brings all four into every quarter of a vector, and
    shuffles do the rest; LLVM would make loads of them again, were they not behind a line of assembly without content.
    """
    build, lanes = loops.builder, loops.vectors.lanes
    if loops.vectors is not VectorSet.AVX512 and size == 4:
        return [splat(loops, loops.load(loops.at(values, 4 * part), F32)) for part in range(UNROLL)]
    four = _weights(loops, values, size, UNROLL)
    if loops.vectors is not VectorSet.AVX512:
        return [splat(loops, build.extract_element(four, I64(part))) for part in range(UNROLL)]

    def mask(places: list[int]) -> ir.Constant:
        return ir.Constant(ir.VectorType(I32, lanes), places)

    nothing = ir.Constant(ir.VectorType(F32, UNROLL), ir.Undefined)
    quarters = build.shuffle_vector(four, nothing, mask([lane % UNROLL for lane in range(lanes)]))
    kind = ir.FunctionType(loops.vector, [loops.vector])
    quarters = build.call(ir.InlineAsm(kind, "", "=v,0"), [quarters])
    rest = ir.Constant(loops.vector, ir.Undefined)
    return [
        build.shuffle_vector(quarters, rest, mask([lane - lane % UNROLL + part for lane in range(lanes)]))
        for part in range(UNROLL)
    ]


_FIELDS = ("source_at", "target_at", "bias_at", "values_at", "columns_at", "starts_at", "passes", "height")
