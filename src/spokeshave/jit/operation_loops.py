"""Operation loops: native loops over items of work that any number of threads may share.

An operation is a C function of one address, of a table of 64-bit integers: the next item and the next thread (both
counted up atomically by whoever runs it), the number of items, then what the operation needs. A sequence of operations
is itself machine code: a network runs without going back to Python between its layers.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache

import numpy as np
from llvmlite import ir

from spokeshave.jit.host_cpu import VectorSet, host_cpu
from spokeshave.jit.native_loops import I32, I64, POINTER, Loops, native_address
from spokeshave.jit.parallel_region import parallel_call

NEXT_ITEM, NEXT_THREAD, ITEMS, FIRST_FIELD = range(4)
"""Places of the table that every operation has."""


class OperationLoops(Loops):
    """An operation under construction.

    Args:
        name: of the function.
        vectors: set of instructions to write for.
        fields: names of what stands in the table behind the first three; those that end in `_at` are addresses.

    Attributes:
        arguments: the fields' values by name.
    """

    def __init__(self, name: str, vectors: VectorSet, fields: Sequence[str]) -> None:
        super().__init__(name, vectors, table=POINTER)
        self._table = self.arguments["table"]
        self.fields = tuple(fields)
        self.arguments = {}
        for number, field in enumerate(fields):
            kind = POINTER if field.endswith("_at") else I64
            self.arguments[field] = self.load(self.at(self._table, 8 * (FIRST_FIELD + number)), kind, 8)

    @contextmanager
    def items(self) -> Iterator[ir.Value]:
        """Take item after item until none is left; gives its number."""
        build = self.builder
        count = self.load(self.at(self._table, 8 * ITEMS), I64, 8)
        take, body, after = (build.append_basic_block(name) for name in ("take", "item", "done"))
        build.branch(take)
        build.position_at_end(take)
        item = build.atomic_rmw("add", self._table, I64(1), "monotonic")
        build.cbranch(build.icmp_signed("<", item, count), body, after)
        build.position_at_end(body)
        yield item
        build.branch(take)
        build.position_at_end(after)

    def thread(self) -> ir.Value:
        """A number from 0 that no other thread has in this run of the operation."""
        return self.builder.atomic_rmw("add", self.at(self._table, 8 * NEXT_THREAD), I64(1), "monotonic")

    def place(self, field: str) -> int:
        """Where a field stands in a table."""
        return FIRST_FIELD + self.fields.index(field)

    def table(self, items: int, **values: int) -> np.ndarray:
        """The table for one use of the operation: int64."""
        return operation_table(items, *(values[field] for field in self.fields))


def operation_table(items: int, *values: int) -> np.ndarray:
    """A table with counters at 0."""
    return np.array([0, 0, items, *values], np.int64)


@cache
def _runner() -> Callable[[int, int, int, int], None]:
    """Machine code that runs a list of (function, table) pairs, each on some threads, one after another."""
    vectors = host_cpu().widest()
    assert vectors is not None
    loops = Loops("run_sequence", vectors, steps=POINTER, count=I64, threads=I64, parallel=POINTER)
    build, given = loops.builder, loops.arguments
    region = ir.FunctionType(ir.VoidType(), [POINTER, POINTER, I32, I32])
    with loops.loop(0, given["count"]) as step:
        pair = loops.at(given["steps"], loops.times(step, 16))
        function, table = loops.load(pair, POINTER, 8), loops.load(loops.at(pair, 8), POINTER, 8)
        loops.store(I64(0), table, 8)
        loops.store(I64(0), loops.at(table, 8 * NEXT_THREAD), 8)
        items = loops.load(loops.at(table, 8 * ITEMS), I64, 8)
        wanted = build.select(build.icmp_signed("<", items, given["threads"]), items, given["threads"])
        with build.if_else(build.icmp_signed("<=", wanted, I64(1))) as (alone, together):
            with alone:
                _call(build, ir.FunctionType(ir.VoidType(), [POINTER]), function, [table])
            with together:
                _call(build, region, given["parallel"], [function, table, build.trunc(wanted, I32), I32(0)])
    return loops.compile()


def _call(build: ir.IRBuilder, kind: ir.FunctionType, function: ir.Value, arguments: list[ir.Value]) -> None:
    typed = build.inttoptr(build.ptrtoint(function, I64), kind.as_pointer())  # llvmlite calls typed pointers only
    build.call(typed, arguments)


def run_sequence(steps: np.ndarray, threads: int) -> None:
    """Run operations one after another.

    Args:
        steps: int64, [operations, 2]: address of the function, address of its table.
        threads: at most so many for each operation, at least 1; one where torch has no OpenMP.
    """
    run_sequence_at(steps.ctypes.data, len(steps), threads)


def run_sequence_at(steps: int, count: int, threads: int) -> None:
    """As `run_sequence`, for who knows the address: numpy takes longer to tell it than a small network takes to run.

    Args:
        steps: address of the pairs.
        count: how many there are.
        threads: at most so many for each operation, at least 1; one where torch has no OpenMP.
    """
    parallel = parallel_call()
    _runner()(steps, count, threads if parallel else 1, parallel)


@cache
def _side_by_side() -> tuple[int, OperationLoops]:
    """Machine code whose items are sequences, each run by one thread: address, fields."""
    vectors = host_cpu().widest()
    assert vectors is not None
    loops = OperationLoops("side_by_side", vectors, ["runner_at", "sequences_at"])
    given = loops.arguments
    kind = ir.FunctionType(ir.VoidType(), [POINTER, I64, I64, POINTER])
    with loops.items() as item:
        pair = loops.at(given["sequences_at"], loops.times(item, 16))
        steps, count = loops.load(pair, POINTER, 8), loops.load(loops.at(pair, 8), I64, 8)
        _call(loops.builder, kind, given["runner_at"], [steps, count, I64(1), ir.Constant(POINTER, None)])
    return native_address(loops.compile()), loops


def run_side_by_side(sequences: np.ndarray, threads: int) -> None:
    """Run sequences at the same time, each on one thread from its beginning to its end.

    Args:
        sequences: int64, [sequences, 2]: address of the pairs and number of the operations of each; no operation of one
            may write what another reads or writes.
        threads: at most so many at a time, at least 1; one where torch has no OpenMP.
    """
    address, loops = _side_by_side()
    ends = {"runner_at": native_address(_runner()), "sequences_at": sequences.ctypes.data}
    table = loops.table(len(sequences), **ends)
    run_sequence(np.array([(address, table.ctypes.data)], np.int64), threads)
