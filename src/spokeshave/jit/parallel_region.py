"""Parallel region: run one piece of machine code on torch's own threads.

Generated code runs in the OpenMP pool that torch ships (GNU's libgomp or LLVM's libomp, which understands the same
call), so `torch.set_num_threads` is obeyed, no second pool fights for the cores, and a region costs microseconds.
"""

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch


@cache
def _openmp() -> ctypes.CDLL | None:
    """The OpenMP library that torch loaded; none where torch was built without."""
    root = Path(torch.__file__).parent
    for folder in (root / "lib", root.parent / "torch.libs"):
        for pattern in ("libgomp*", "libomp*", "libiomp5*"):
            for path in sorted(folder.glob(pattern)):
                try:
                    library = ctypes.CDLL(str(path))
                    library.GOMP_parallel.restype = None
                except (OSError, AttributeError):
                    continue
                return library
    return None


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="spokeshave")


@cache
def parallel_call() -> int:
    """Address of `void GOMP_parallel(void (*region)(void *), void *data, unsigned threads, unsigned flags)`.

    0 where torch has no OpenMP: generated code then runs on one thread.
    """
    library = _openmp()
    return ctypes.cast(library.GOMP_parallel, ctypes.c_void_p).value or 0 if library is not None else 0


@cache
def thread_number_call() -> int:
    """Address of `int omp_get_thread_num(void)`, of the same library; 0 where there is none."""
    try:
        return ctypes.cast(cast(Any, _openmp()).omp_get_thread_num, ctypes.c_void_p).value or 0
    except AttributeError:
        return 0


def run_in_parallel(region: Callable[[int], object], data: int, threads: int) -> None:
    """Call a C function `void region(void *data)` once on each of several threads, and wait for all.

    Args:
        region: a ctypes function; it divides the work among its calls by itself.
        data: address that every call gets.
        threads: how many calls, at least 1.
    """
    if threads == 1:
        region(data)
        return
    library = _openmp()
    if library is not None:
        library.GOMP_parallel(
            ctypes.cast(cast(Any, region), ctypes.c_void_p),
            ctypes.c_void_p(data),
            ctypes.c_uint(threads),
            ctypes.c_uint(0),
        )
    else:
        list(_pool(threads).map(region, [data] * threads))
