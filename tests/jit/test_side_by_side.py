"""Independent parts of one job on several threads."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from spokeshave.jit import side_by_side as module
from spokeshave.jit.side_by_side import side_by_side


@pytest.mark.parametrize("processors", [1, 2, 8])
@pytest.mark.parametrize("count", [0, 1, 2, 20])
def test_results_come_in_order(monkeypatch, processors, count):
    monkeypatch.setattr(module, "CPUS", processors)
    assert side_by_side([lambda number=number: number for number in range(count)]) == list(range(count))


def test_two_run_at_the_same_time(monkeypatch):
    monkeypatch.setattr(module, "CPUS", 2)
    both = threading.Barrier(2)
    assert side_by_side([lambda: both.wait(60) >= 0] * 2) == [True, True]


def test_one_processor_gets_no_thread(monkeypatch):
    monkeypatch.setattr(module, "CPUS", 1)
    assert side_by_side([threading.current_thread] * 3) == [threading.current_thread()] * 3


@pytest.mark.parametrize("processors", [1, 2])
@pytest.mark.parametrize("failing", [0, 1, 2])
def test_a_failure_is_raised_when_all_have_ended(monkeypatch, processors, failing):
    monkeypatch.setattr(module, "CPUS", processors)
    ended = []

    def task(number: int) -> None:
        if number == failing:
            raise ValueError(f"task {number}")
        time.sleep(0.01)
        ended.append(number)

    with pytest.raises(ValueError, match=f"task {failing}"):
        side_by_side([lambda number=number: task(number) for number in range(3)])
    assert processors == 1 or len(ended) == 2


def test_where_no_thread_can_be_started_the_caller_does_all(monkeypatch):
    monkeypatch.setattr(module, "CPUS", 4)

    def refuse(*_: object) -> None:
        raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    monkeypatch.setattr(ThreadPoolExecutor, "submit", refuse)
    assert side_by_side([lambda: 1, lambda: 2, lambda: 3]) == [1, 2, 3]
