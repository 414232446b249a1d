"""Operations of a sequence run in order, on all threads, and no late thread holds the others up."""

import ctypes
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from spokeshave.jit import operation_sequence
from spokeshave.jit.host_cpu import host_cpu
from spokeshave.jit.operation_loops import FINISHED, ITEMS, LINE, OperationLoops
from spokeshave.jit.operation_sequence import run_sequence, run_side_by_side

VECTORS = host_cpu().widest()
pytestmark = pytest.mark.skipif(VECTORS is None, reason="no code is generated for this CPU")
OPERATION = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)


def address(function: object) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def successor() -> tuple[OperationLoops, object]:
    """Operation each of whose items writes one more than the sum of all items of the row above."""
    loops = OperationLoops("successor", VECTORS, ["above_at", "count", "target_at"])
    given = loops.arguments
    kind = loops.thread.type
    with loops.items() as item:
        place = loops.at(given["target_at"], loops.times(item, 8))
        loops.store(loops.integer(1), place, 8)
        with loops.loop(0, given["count"]) as other:
            value = loops.load(loops.at(given["above_at"], loops.times(other, 8)), kind, 8)
            loops.store(loops.builder.add(loops.load(place, kind, 8), value), place, 8)
    return loops, loops.compile()


def rows(counts: list[int]) -> tuple[np.ndarray, list[np.ndarray], list[object]]:
    """Sequence of successors of rows of so many items, and the rows."""
    loops, function = successor()
    data = [np.zeros(count, np.int64) for count in [1, *counts]]
    tables = [
        loops.layout.table(len(row), above_at=above.ctypes.data, count=len(above), target_at=row.ctypes.data)
        for above, row in pairwise(data)
    ]
    return np.array([(address(function), table.ctypes.data) for table in tables], np.int64), data, [function, *tables]


def expected(counts: list[int]) -> list[int]:
    values, above = [], 0
    for count in counts:
        values.append(1 + above)
        above = count * values[-1]
    return values


COUNTS = [5, 1, 13, 2, 1, 1, 40, 3, 0, 7, 1]


@pytest.mark.parametrize("threads", [1, 2, 3, 11])
def test_an_operation_begins_when_all_items_of_the_one_before_are_finished(threads):
    steps, data, keep = rows(COUNTS)
    for _ in range(200):
        for row in data[1:]:
            row[:] = -1
        run_sequence(steps, threads)
        assert [row.tolist() for row in data[1:]] == [
            [value] * count for value, count in zip(expected(COUNTS), COUNTS, strict=True)
        ]
    assert keep


def test_callers_at_the_same_time_do_not_meet():
    def call(_: int) -> bool:
        steps, data, keep = rows(COUNTS)
        right = True
        for _ in range(100):
            for row in data[1:]:
                row[:] = -1
            run_sequence(steps, 2)
            right &= all((row == value).all() for row, value in zip(data[1:], expected(COUNTS), strict=True))
        return right and bool(keep)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(call, range(8)))


class Watched:
    """An operation of `items` items, done in Python; others than the first call `late` instead, if given."""

    def __init__(self, items: int, late=None) -> None:
        memory = np.zeros(ITEMS + 1 + LINE // 8, np.int64)
        self.table = memory[-memory.ctypes.data % LINE // 8 :][: ITEMS + 1]
        self.table[ITEMS] = items
        self.seen: list[tuple[int, int, float]] = []
        self.function = OPERATION(self._run)
        self._late = late

    def _run(self, table: int, thread: int, threads: int) -> None:
        if thread and self._late:
            self._late()
            return
        self.seen.append((thread, threads, time.perf_counter()))
        if thread == 0:
            self.table[FINISHED] = self.table[ITEMS]

    def step(self) -> tuple[int, int]:
        return address(self.function), self.table.ctypes.data


def test_a_late_thread_does_not_hold_up_the_others():
    woken: list[float] = []
    begun = threading.Event()

    def sleep() -> None:
        assert begun.wait(20)  # the other thread comes to the last operation, or this test fails
        woken.append(time.perf_counter())

    first, second, last = Watched(2, sleep), Watched(2), Watched(2)
    last.function = OPERATION(lambda table, thread, threads: (begun.set(), last._run(table, thread, threads)))
    run_sequence(np.array([part.step() for part in (first, second, last)], np.int64), 2)
    if woken:  # else OpenMP gave one thread only
        assert [thread for thread, *_ in second.seen] == [0]  # what was finished meanwhile is passed
        assert second.seen[0][2] < woken[0]


def test_threads_have_numbers_of_their_own_and_the_caller_is_the_first():
    seen: set[tuple[int, int]] = set()
    meeting = threading.Barrier(3, timeout=20)

    def run(table: int, thread: int, threads: int) -> None:
        meeting.wait()
        seen.add((thread, threads))
        if thread == 0:
            watched.table[FINISHED] = 3
            callers.append(threading.get_ident())

    callers: list[int] = []
    watched = Watched(3)
    watched.function = OPERATION(run)
    run_sequence(np.array([watched.step()], np.int64), 3)
    assert seen == {(0, 3), (1, 3), (2, 3)} and callers == [threading.get_ident()]


@pytest.mark.parametrize("numbered", [True, False])
def test_threads_have_numbers_of_their_own_and_the_caller_may_be_any(monkeypatch, numbered):
    parallel, part, number_call, yield_call = operation_sequence._calls()
    calls = (parallel, part, number_call if numbered else 0, yield_call)  # without OpenMP's numbers, they are counted
    monkeypatch.setattr(operation_sequence, "_calls", lambda: calls)
    seen: list[int] = []
    meeting = threading.Barrier(2, timeout=20)
    watched = Watched(2)

    def run(table: int, thread: int, threads: int) -> None:
        meeting.wait()
        seen.append(thread)
        watched.table[FINISHED] = 2

    watched.function = OPERATION(run)
    run_sequence(np.array([watched.step()], np.int64), 2)
    assert sorted(seen) == [0, 1]


@pytest.mark.parametrize("items", [[1, 1, 0], [0]])
def test_operations_of_one_item_need_no_second_thread(items):
    parts = [Watched(count) for count in items]
    run_sequence(np.array([part.step() for part in parts], np.int64), 4)
    assert all([(thread, threads) for thread, threads, _ in part.seen] == [(0, 1)] for part in parts)


def test_a_thread_that_waits_long_offers_its_processor(monkeypatch):
    calls: list[float] = []
    offer = ctypes.CFUNCTYPE(ctypes.c_int)(lambda: calls.append(time.perf_counter()) or 0)
    parallel, part, number, _ = operation_sequence._calls()
    monkeypatch.setattr(operation_sequence, "_calls", lambda: (parallel, part, number, address(offer)))
    first, second = Watched(2), Watched(2)

    def run(table: int, thread: int, threads: int) -> None:
        if thread == 0:
            while not calls:
                time.sleep(0.001)
            first.table[FINISHED] = 2

    first.function = OPERATION(run)
    run_sequence(np.array([first.step(), second.step()], np.int64), 2)
    assert calls


def test_without_openmp_one_thread_does_all(monkeypatch):
    seen: list[tuple[int, ...]] = []
    runner = SimpleNamespace(function=lambda *arguments: seen.append(arguments))
    monkeypatch.setattr(operation_sequence, "_runner", lambda: runner)
    steps = np.zeros((3, 2), np.int64)
    run_sequence(steps, 4)
    monkeypatch.setattr(operation_sequence, "_calls", lambda: (0, 0, 0, 0))
    run_sequence(steps, 4)
    assert [call[:3] for call in seen] == [(steps.ctypes.data, 3, 4), (steps.ctypes.data, 3, 1)]
    assert seen[0][3] != 0 == seen[1][3]


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_sequences_run_side_by_side_each_in_its_own_order(threads):
    lengths = [COUNTS, COUNTS[:4], [3], COUNTS[2:9], [1, 2, 3]]
    made = [rows(counts) for counts in lengths]
    for _ in range(3):
        run_side_by_side(np.array([(steps.ctypes.data, len(steps)) for steps, *_ in made], np.int64), threads)
        for counts, (_, data, _) in zip(lengths, made, strict=True):
            for row, value in zip(data[1:], expected(counts), strict=True):
                assert (row == value).all()
                row[:] = 0
