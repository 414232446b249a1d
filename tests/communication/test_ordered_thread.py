"""Jobs in order, and what becomes of them after one that failed."""

import time

import pytest
import torch

from spokeshave.communication.ordered_thread import OrderedThread


def test_jobs_are_done_in_the_order_in_which_they_were_given() -> None:
    thread, order = OrderedThread(), []

    def job(number: int) -> torch.Tensor:
        time.sleep(0.02 if number == 0 else 0)
        order.append(number)
        return torch.tensor(number)

    futures = [thread.submit(lambda number=number: job(number)) for number in range(5)]
    assert [int(future.wait()) for future in futures] == order == [0, 1, 2, 3, 4]


def test_after_a_job_that_failed_no_other_is_done() -> None:
    thread, done = OrderedThread(), []

    def fails() -> torch.Tensor:
        time.sleep(0.05)
        raise ValueError("the link is gone")

    first = thread.submit(fails)
    second = thread.submit(lambda: done.append(1) or torch.ones(1))
    for future in (first, second):
        with pytest.raises(Exception, match="the link is gone"):
            future.wait()
    with pytest.raises(ValueError, match="the link is gone"):
        thread.submit(lambda: torch.ones(1))
    assert not done
