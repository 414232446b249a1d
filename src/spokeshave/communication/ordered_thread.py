"""Ordered thread: one thread that does jobs in the order in which they were given, and keeps that promise after errors.

Rounds of a hook that are started from callbacks run in an order of their own on each worker, and gloo then mixes them
up or waits for ever. In one thread, on a process group of its own, their order is that of the buckets, everywhere.
"""

import threading
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
        self._jobs: SimpleQueue[Job] | None = None
        self._failure: Exception | None = None

    def submit(self, job: Callable[[], Tensor]) -> Any:  # a future of C++ without type arguments
        """Have a job done.

        Args:
            job: gives what the future will hold.

        Returns:
            the future of a tensor.

        Raises:
            Exception: that of an earlier job.
        """
        if self._failure is not None:
            raise self._failure
        if self._jobs is None:
            self._jobs = SimpleQueue()
            threading.Thread(target=self._work, args=(self._jobs,), name="spokeshave-terngrad", daemon=True).start()
        promise: Future[Any] = Future()
        self._jobs.put((job, promise))
        # DDP takes an exception that was set for a tensor; what a callback raises it passes on.
        return promise.then(lambda done: done.value())

    def _work(self, jobs: "SimpleQueue[Job]") -> None:
        while True:
            job, promise = jobs.get()
            try:
                if self._failure is not None:
                    raise self._failure
                promise.set_result(job())
            except Exception as error:  # noqa: BLE001 - whoever waits for the future gets it
                self._failure = self._failure or error
                promise.set_exception(error)
            del job, promise  # the next job may be long in coming
