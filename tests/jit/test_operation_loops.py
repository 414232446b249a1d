"""Every item of an operation is done once, whoever calls it, in whatever order."""

import ctypes

import numpy as np
import pytest

from spokeshave.jit.executable_memory import aligned_zeros
from spokeshave.jit.host_cpu import VectorSet, host_cpu
from spokeshave.jit.operation_loops import (
    FINISHED,
    FIRST_FIELD,
    ITEMS,
    LINE,
    MOST_RANGES,
    NEXT_ITEM,
    PATCH_FIELDS,
    OperationLoops,
    patch_items,
)

SETS = [vectors for vectors in VectorSet if host_cpu().supports(vectors)]


def marking(vectors: VectorSet) -> tuple[OperationLoops, object]:
    """Operation that counts in the first half of `data` how often each item was done, and notes who did it last."""
    loops = OperationLoops("mark", vectors, ["data_at", "stride"])
    with loops.items() as item:
        place = loops.at(loops.arguments["data_at"], loops.times(item, loops.arguments["stride"]))
        count = loops.load(place, loops.thread.type, 8)
        loops.store(loops.builder.add(count, loops.integer(1)), place, 8)
        loops.store(loops.thread, loops.at(place, 8), 8)
    return loops, loops.compile()


@pytest.mark.parametrize("vectors", SETS)
@pytest.mark.parametrize(("items", "threads"), [(1, 1), (13, 2), (1, 2), (3, 8), (8, 8), (50, 20), (0, 2), (1000, 3)])
def test_one_thread_that_comes_first_does_all_and_the_others_nothing(vectors, items, threads):
    loops, function = marking(vectors)
    data = np.zeros((max(items, 1), 2), np.int64)
    table = loops.layout.table(items, data_at=data.ctypes.data, stride=16)
    late = threads // 2
    for thread in [late, *(other for other in range(threads) if other != late)]:
        function(table.ctypes.data, thread, threads)
    assert (data[:items] == [1, late]).all()
    assert table[FINISHED] == items


def test_a_thread_begins_with_its_own_range():
    loops, function = marking(SETS[0])
    data = np.zeros((13, 2), np.int64)
    table = loops.layout.table(13, data_at=data.ctypes.data, stride=16)
    table[NEXT_ITEM] = 4  # two of thread 0's six items are left
    function(table.ctypes.data, 1, 2)
    assert data[:, 0].tolist() == [0] * 4 + [1] * 9
    assert table[FINISHED] == 9


def test_counters_share_no_cache_line_with_others_or_with_what_is_read():
    loops, _ = marking(SETS[0])
    table = loops.layout.table(7, data_at=11, stride=13)
    assert table.ctypes.data % LINE == 0 and LINE == 64
    counters = [FINISHED, *(NEXT_ITEM + 8 * number for number in range(MOST_RANGES))]
    assert len({place // 8 for place in [*counters, ITEMS]}) == len(counters) + 1


@pytest.mark.parametrize(("planes", "rows", "threads"), [(1, 1, 1), (256, 13, 2), (3, 2, 5), (1, 13, 2), (7, 30, 20)])
def test_patches_are_every_row_of_every_plane(planes, rows, threads):
    loops = OperationLoops("mark_rows", SETS[0], ["data_at", *PATCH_FIELDS])
    with loops.patches() as (plane, first, last), loops.loop(first, last) as row:
        number = loops.builder.add(loops.times(plane, rows), row)
        place = loops.at(loops.arguments["data_at"], loops.times(number, 16))
        count = loops.load(place, loops.thread.type, 8)
        loops.store(loops.builder.add(count, loops.integer(1)), place, 8)
        loops.store(loops.thread, loops.at(place, 8), 8)
    function = loops.compile()
    data = np.zeros((planes, rows, 2), np.int64)
    table = loops.layout.table(**patch_items(planes, rows, threads), data_at=data.ctypes.data)
    for thread in range(threads):
        function(table.ctypes.data, thread, threads)
    assert (data == [1, 0]).all()  # the first had time for all


def test_threads_begin_with_bands_of_rows():
    first, second = (patch_items(256, rows, 2) for rows in (13, 6))
    assert (first["bands"], second["bands"]) == (2, 2) and first["items"] == second["items"] == 16
    assert patch_items(1000, 1, 4)["items"] >= 16  # features have no rows: a thread begins with some of the planes


def test_fields_are_found_in_the_table():
    loops, _ = marking(SETS[0])
    table = loops.layout.table(7, data_at=11, stride=13)
    assert table[ITEMS:].tolist() == [7, 11, 13] and not table[:ITEMS].any()
    assert table[loops.layout.place("stride")] == 13 and loops.layout.place("data_at") == FIRST_FIELD


def test_vectors_are_written_whole():
    vectors = SETS[0]
    loops = OperationLoops("double", vectors, ["data_at"])
    with loops.items() as item:
        place = loops.at(loops.arguments["data_at"], loops.times(item, vectors.bytes))
        loops.store(loops.builder.fadd(loops.load(place), loops.load(place)), place)
    data = aligned_zeros((9, vectors.lanes))
    data[:] = np.arange(9)[:, None]
    table = loops.layout.table(9, data_at=data.ctypes.data)
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
    compiled = loops.compile()
    function(ctypes.cast(compiled, ctypes.c_void_p).value)(table.ctypes.data, 0, 1)
    np.testing.assert_array_equal(data, 2.0 * np.arange(9)[:, None] * np.ones(vectors.lanes))
