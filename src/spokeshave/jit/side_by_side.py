"""Side by side: independent parts of one job, each on a thread of its own where there are processors for them."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

CPUS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
"""That this process may use."""
_MOST_HELPERS = 7
Result = TypeVar("Result")


def side_by_side(tasks: Sequence[Callable[[], Result]]) -> list[Result]:
    """Results of some calls, in order; the calling thread works as well.

    Args:
        tasks: that do not wait for each other, and leave Python's lock to others most of the time. The first runs in
            the calling thread. One may run twice where the system starts no thread any more.

    Raises:
        BaseException: of the first task that failed, when all that were begun have ended.

    Example:
        >>> side_by_side([lambda: 1, lambda: 2])
        [1, 2]
    """
    helpers = min(len(tasks) - 1, CPUS - 1, _MOST_HELPERS)
    if helpers < 1:
        return [task() for task in tasks]
    with ThreadPoolExecutor(helpers, "spokeshave-helper") as pool:
        given: list[Future[Result]] = []
        with suppress(RuntimeError):  # the process is ending, and starts no thread any more
            for task in tasks[1:]:
                given.append(pool.submit(task))
        results = [tasks[0]()]
        results += [future.result() for future in given]
        return results + [task() for task in tasks[1 + len(given) :]]
