"""Operation sequence: operations run one after another by some threads, without going back to Python in between.

All threads enter one parallel region for the whole sequence. An operation begins as soon as all items of the one before
are finished, whoever finished them: a thread that comes late, because the system let another process have its
processor, holds nobody up unless it is in the middle of an item, and passes what others have done meanwhile.
"""

import ctypes
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir

from spokeshave.jit.generated_operation import generated
from spokeshave.jit.host_cpu import VectorSet, host_cpu
from spokeshave.jit.native_loops import I32, I64, POINTER, Loops
from spokeshave.jit.operation_loops import FINISHED, ITEMS, LINE, NEXT_ITEM, OperationLoops, number_of_ranges
from spokeshave.jit.parallel_region import parallel_call, thread_number_call

_SPINS = 2000
"""Looks at an unfinished operation before the processor is offered to others: some 50 microseconds."""
_OPERATION = ir.FunctionType(ir.VoidType(), [POINTER, I64, I64])
_REGION = ir.FunctionType(ir.VoidType(), [POINTER, POINTER, I32, I32])
_NUMBER = ir.FunctionType(I32, [])
_STEPS, _COUNT, _THREADS, _NEXT_THREAD, _NUMBER_CALL, _YIELD_CALL, _WORDS = range(7)
"""What the threads of a region are told, in 64-bit words."""


def call_function(build: Any, kind: ir.FunctionType, function: Any, arguments: list[ir.Value]) -> ir.Value:
    """Write a call of a function whose address is a value."""
    if function.type == POINTER:
        function = build.ptrtoint(function, I64)
    return build.call(build.inttoptr(function, kind.as_pointer()), arguments)  # llvmlite calls typed pointers only


def run_alone(loops: Loops, steps: ir.Value, count: ir.Value) -> None:
    """Write code by which the calling thread runs a sequence by itself.

    Args:
        loops: function under construction.
        steps: address of the pairs of function and table.
        count: how many there are.
    """
    with loops.loop(0, count) as step:
        pair = loops.at(steps, loops.times(step, 16))
        function, table = loops.load(pair, I64, 8), loops.load(loops.at(pair, 8), POINTER, 8)
        loops.store(I64(0), loops.at(table, 8 * NEXT_ITEM), 8)  # one thread has one range, and waits for nobody
        call_function(loops.builder, _OPERATION, function, [table, I64(0), I64(1)])


@cache
def _yield_call() -> int:
    """Address of `int sched_yield(void)`; 0 where there is none."""
    try:
        return ctypes.cast(ctypes.CDLL(None).sched_yield, ctypes.c_void_p).value or 0
    except (OSError, AttributeError, TypeError):
        return 0


@generated
def _part() -> Loops:
    """Machine code that every thread of a region runs."""
    vectors = host_cpu().widest()
    assert vectors is not None
    loops = Loops("take_part", vectors, told=POINTER)
    build, told = loops.builder, loops.arguments["told"]
    steps = loops.load(loops.at(told, 8 * _STEPS), POINTER, 8)
    count, threads, number_call, yield_call = (
        loops.load(loops.at(told, 8 * word), I64, 8) for word in (_COUNT, _THREADS, _NUMBER_CALL, _YIELD_CALL)
    )
    # OpenMP's own number is the same in every region, so that a thread finds its part of the weights in its caches.
    known, unknown, begin = (build.append_basic_block(name) for name in ("known", "unknown", "begin"))
    build.cbranch(build.icmp_unsigned("!=", number_call, I64(0)), known, unknown)
    build.position_at_end(known)
    given = build.zext(call_function(build, _NUMBER, number_call, []), I64)
    build.branch(begin)
    build.position_at_end(unknown)
    counted = build.atomic_rmw("add", loops.at(told, 8 * _NEXT_THREAD), I64(1), "monotonic")
    build.branch(begin)
    build.position_at_end(begin)
    thread = build.phi(I64)
    thread.add_incoming(given, known)
    thread.add_incoming(counted, unknown)
    with loops.loop(0, count) as step:
        pair = loops.at(steps, loops.times(step, 16))
        with build.if_then(build.icmp_signed(">", step, I64(0))):
            _wait(loops, vectors, loops.load(loops.at(pair, -8), POINTER, 8), yield_call)
        function, table = loops.load(pair, I64, 8), loops.load(loops.at(pair, 8), POINTER, 8)
        items = loops.load(loops.at(table, 8 * ITEMS), I64, 8)
        finished = build.load_atomic(loops.at(table, 8 * FINISHED), "monotonic", 8, typ=I64)
        with build.if_then(build.icmp_signed("<", finished, items)):
            call_function(build, _OPERATION, function, [table, thread, threads])
    return loops


def _wait(loops: Loops, vectors: VectorSet, table: ir.Value, yield_call: ir.Value) -> None:
    """Write code that waits until all items of an operation are finished."""
    build = loops.builder
    items = loops.load(loops.at(table, 8 * ITEMS), I64, 8)
    before = build.block
    look, rest, spin, offer, after = (
        build.append_basic_block(name) for name in ("look", "rest", "spin", "offer", "finished")
    )
    build.branch(look)
    build.position_at_end(look)
    looks = build.phi(I64)
    looks.add_incoming(I64(0), before)
    finished = build.load_atomic(loops.at(table, 8 * FINISHED), "acquire", 8, typ=I64)
    build.cbranch(build.icmp_signed("<", finished, items), rest, after)
    build.position_at_end(rest)
    long = build.and_(build.icmp_signed(">", looks, I64(_SPINS)), build.icmp_unsigned("!=", yield_call, I64(0)))
    build.cbranch(long, offer, spin)
    build.position_at_end(spin)
    pause = "yield" if vectors is VectorSet.NEON else "pause"
    build.asm(ir.FunctionType(ir.VoidType(), []), pause, "", [], True)
    looks.add_incoming(build.add(looks, I64(1)), spin)
    build.branch(look)
    build.position_at_end(offer)
    call_function(build, _NUMBER, yield_call, [])
    looks.add_incoming(looks, offer)
    build.branch(look)
    build.position_at_end(after)


@generated
def _runner() -> Loops:
    """Machine code that runs a list of (function, table) pairs on some threads, one after another."""
    vectors = host_cpu().widest()
    assert vectors is not None
    arguments = {"steps": POINTER, "count": I64, "threads": I64, "parallel": POINTER, "part": POINTER}
    loops = Loops("run_sequence", vectors, **arguments, number_call=I64, yield_call=I64)
    build, given = loops.builder, loops.arguments
    told = build.inttoptr(build.ptrtoint(build.alloca(I64, _WORDS), I64), POINTER)
    most = build.alloca(I64)
    loops.store(I64(0), most, 8)
    with build.if_then(build.icmp_signed(">", given["threads"], I64(1))), loops.loop(0, given["count"]) as step:
        pair = loops.at(given["steps"], loops.times(step, 16))
        table = loops.load(loops.at(pair, 8), POINTER, 8)
        items, so_far = loops.load(loops.at(table, 8 * ITEMS), I64, 8), loops.load(most, I64, 8)
        loops.store(build.select(build.icmp_signed(">", items, so_far), items, so_far), most, 8)
        loops.store(I64(0), loops.at(table, 8 * FINISHED), 8)
        with loops.loop(0, number_of_ranges(build, items, given["threads"])) as number:
            loops.store(I64(0), loops.at(table, 8 * NEXT_ITEM, loops.times(number, LINE)), 8)
    most_items = loops.load(most, I64, 8)
    wanted = build.select(build.icmp_signed("<", most_items, given["threads"]), most_items, given["threads"])
    with build.if_else(build.icmp_signed("<=", wanted, I64(1))) as (alone, together):
        with alone:
            run_alone(loops, given["steps"], given["count"])
        with together:
            words = {_STEPS: build.ptrtoint(given["steps"], I64), _COUNT: given["count"], _THREADS: wanted}
            words |= {_NEXT_THREAD: I64(0), _NUMBER_CALL: given["number_call"], _YIELD_CALL: given["yield_call"]}
            for word, value in words.items():
                loops.store(value, loops.at(told, 8 * word), 8)
            region = [given["part"], told, build.trunc(wanted, I32), I32(0)]
            call_function(build, _REGION, given["parallel"], region)
    return loops


@cache
def _calls() -> tuple[int, int, int, int]:
    """Addresses that the runner is told: of the region's call, of what its threads run, and of what these call."""
    parallel = parallel_call()
    part = _part().address if parallel else 0
    return parallel, part, thread_number_call(), _yield_call()


def run_sequence(steps: np.ndarray, threads: int) -> None:
    """Run operations one after another.

    Args:
        steps: int64, [operations, 2]: address of the function, address of its table.
        threads: at most so many, at least 1; one where torch has no OpenMP.
    """
    run_sequence_at(steps.ctypes.data, len(steps), threads)


def run_sequence_at(steps: int, count: int, threads: int) -> None:
    """As `run_sequence`, for who knows the address: numpy takes longer to tell it than a small network takes to run.

    Args:
        steps: address of the pairs.
        count: how many there are.
        threads: at most so many, at least 1; one where torch has no OpenMP.
    """
    calls = _calls()
    _runner().function(steps, count, threads if calls[0] else 1, *calls)


@generated
def _side_by_side() -> OperationLoops:
    """Machine code whose items are sequences, each run by one thread."""
    vectors = host_cpu().widest()
    assert vectors is not None
    loops = OperationLoops("side_by_side", vectors, ["sequences_at"])
    with loops.items() as item:
        pair = loops.at(loops.arguments["sequences_at"], loops.times(item, 16))
        run_alone(loops, loops.load(pair, POINTER, 8), loops.load(loops.at(pair, 8), I64, 8))
    return loops


def run_side_by_side(sequences: np.ndarray, threads: int) -> None:
    """Run sequences at the same time, each on one thread from its beginning to its end.

    Args:
        sequences: int64, [sequences, 2]: address of the pairs and number of the operations of each; no operation of one
            may write what another reads or writes.
        threads: at most so many at a time, at least 1; one where torch has no OpenMP.
    """
    operation = _side_by_side()
    table = operation.layout.table(len(sequences), sequences_at=sequences.ctypes.data)
    run_sequence(np.array([(operation.address, table.ctypes.data)], np.int64), threads)
