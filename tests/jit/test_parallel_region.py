"""Regions run on as many threads as were asked for."""

import ctypes
import threading

import pytest

from spokeshave.jit.parallel_region import parallel_call, run_in_parallel


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_region_runs_once_on_each_thread(threads):
    seen, meeting = [], threading.Barrier(threads, timeout=20)
    region = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(
        lambda data: (meeting.wait(), seen.append((data, threading.get_ident())))
    )
    run_in_parallel(region, 42, threads)
    assert [data for data, _ in seen] == [42] * threads and len({ident for _, ident in seen}) == threads


def test_torch_brings_openmp():
    assert parallel_call() != 0
