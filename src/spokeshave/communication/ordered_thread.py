"""Ordered thread: one thread that does jobs in the order in which they were given, and keeps that promise after errors.

Rounds of a hook that are started from callbacks run in an order of their own on each worker, and gloo then mixes them
up or waits for ever. In one thread, on a process group of its own, their order is that of the buckets, everywhere.
"""

import threading
import weakref
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from torch import Tensor
from torch.futures import Future

Job = tuple[Callable[[], Tensor], Future[Any]]


class OrderedThread:
    """Does jobs one after the other, in a thread that begins with the first and does not keep a process alive.

    After a job that failed, no further one is done: the workers would no longer be in step.

    Example:
        >>> import torch
        >>> thread = OrderedThread()
        >>> thread.submit(lambda: torch.ones(2)).wait()
        tensor([1., 1.])
    """

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Job | None] | None = None
        self._failures: list[Exception] = []

    def submit(self, job: Callable[[], Tensor]) -> Any:  # a future of C++ without type arguments
        """Have a job done.

        Args:
            job: gives what the future will hold.

        Returns:
            the future of a tensor.

        Raises:
            Exception: that of an earlier job.
        """
        if self._failures:
            raise self._failures[0]
        if self._jobs is None:
            self._jobs = SimpleQueue()
            # The thread knows the queue, not this object: with it, it ends.
            work = threading.Thread(
                target=_work, args=(self._jobs, self._failures), name="spokeshave-terngrad", daemon=True
            )
            work.start()
            weakref.finalize(self, self._jobs.put, None)
        promise: Future[Any] = Future()
        self._jobs.put((job, promise))
        # DDP takes an exception that was set for a tensor; what a callback raises it passes on.
        return promise.then(lambda done: done.value())


def _work(jobs: "SimpleQueue[Job | None]", failures: list[Exception]) -> None:
    while (given := jobs.get()) is not None:
        job, promise = given
        try:
            if failures:
                raise failures[0]
            promise.set_result(job())
        except Exception as error:  # noqa: BLE001 - whoever waits for the future gets it
            failures.append(error)
            promise.set_exception(error)
        del given, job, promise  # the next job may be long in coming
