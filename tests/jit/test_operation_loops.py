import ctypes

import numpy as np
import pytest

from spokeshave.jit import operation_loops
from spokeshave.jit.executable_memory import aligned_zeros
from spokeshave.jit.host_cpu import VectorSet, host_cpu
from spokeshave.jit.operation_loops import OperationLoops, run_sequence, run_side_by_side

SETS = [vectors for vectors in VectorSet if host_cpu().supports(vectors)]


def doubling(vectors: VectorSet) -> tuple[OperationLoops, object]:
    loops = OperationLoops("double", vectors, ["data_at", "stride"])
    with loops.items() as item:
        place = loops.at(loops.arguments["data_at"], loops.times(item, loops.arguments["stride"]))
        value = loops.load(place)
        loops.store(loops.builder.fadd(value, value), place)
    return loops, loops.compile()


@pytest.mark.parametrize("vectors", SETS)
@pytest.mark.parametrize("threads", [1, 2, 4])
def test_every_item_is_done_once(vectors: VectorSet, threads: int) -> None:
    loops, function = doubling(vectors)
    data = aligned_zeros((1000, vectors.lanes))
    data[:] = np.arange(1000)[:, None]
    table = loops.table(1000, data_at=data.ctypes.data, stride=vectors.bytes)
    address = ctypes.cast(function, ctypes.c_void_p).value
    run_sequence(np.array([(address, table.ctypes.data)] * 3, np.int64), threads)
    np.testing.assert_array_equal(data, 8.0 * np.arange(1000)[:, None] * np.ones(vectors.lanes))


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_sequences_run_side_by_side_each_in_its_own_order(threads: int) -> None:
    vectors = SETS[0]
    loops, function = doubling(vectors)
    address = ctypes.cast(function, ctypes.c_void_p).value
    data = [np.ascontiguousarray(aligned_zeros((100, vectors.lanes)) + 1 + number) for number in range(5)]
    tables = [loops.table(100, data_at=part.ctypes.data, stride=vectors.bytes) for part in data]
    steps = [np.array([(address, table.ctypes.data)] * (1 + number), np.int64) for number, table in enumerate(tables)]
    run_side_by_side(np.array([(step.ctypes.data, len(step)) for step in steps], np.int64), threads)
    for number, part in enumerate(data):
        assert (part == (1 + number) * 2.0 ** (1 + number)).all()


def test_fields_are_found_in_the_table() -> None:
    loops, _ = doubling(SETS[0])
    table = loops.table(7, data_at=11, stride=13)
    assert table.tolist() == [0, 0, 7, 11, 13]
    assert table[loops.place("stride")] == 13


def test_no_item_is_no_work() -> None:
    loops, function = doubling(SETS[0])
    table = loops.table(0, data_at=0, stride=0)
    address = ctypes.cast(function, ctypes.c_void_p).value
    run_sequence(np.array([(address, table.ctypes.data)], np.int64), 2)
    assert table[0] <= 2 and table[2] == 0


def test_without_openmp_one_thread_does_all(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []
    monkeypatch.setattr(operation_loops, "_runner", lambda: lambda *arguments: seen.append(arguments))
    steps = np.zeros((3, 2), np.int64)
    run_sequence(steps, 4)
    monkeypatch.setattr(operation_loops, "parallel_call", lambda: 0)
    run_sequence(steps, 4)
    assert [call[:3] for call in seen] == [(steps.ctypes.data, 3, 4), (steps.ctypes.data, 3, 1)]
    assert seen[0][3] != 0 == seen[1][3]
