import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from gloo_workers import WorkerFailed, run_workers


@dataclass
class Letter:
    text: str


def exchange(rank: int, workers: int, letter: Letter, scale: float) -> tuple[Letter, list[float], int, int]:
    mine = torch.tensor([scale * (rank + 1)])
    dist.all_reduce(mine)
    return Letter(f"{letter.text} {rank}/{workers}"), mine.tolist(), torch.get_num_threads(), os.getpid()


def fail(rank: int, workers: int, folder: str) -> None:
    (Path(folder) / str(rank)).write_text(str(os.getpid()))
    if rank == 1:
        raise ValueError("what went wrong")
    dist.barrier()


def die(rank: int, workers: int) -> None:
    if rank == 0:
        print("last words", flush=True)
        os._exit(7)
    dist.barrier()


def hang(rank: int, workers: int) -> int:
    time.sleep(1000)
    return rank


def wait_for_ever(rank: int, workers: int, folder: str) -> None:
    (Path(folder) / str(rank)).write_text(str(os.getpid()))
    time.sleep(1000)


def gone(pid: int, patience_s: float = 10) -> bool:
    until = time.monotonic() + patience_s
    while time.monotonic() < until:
        try:
            os.kill(pid, 0)
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True  # nobody waits for orphans in some containers
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.02)
    return False


def test_results_come_home_by_rank() -> None:
    results = run_workers(exchange, 3, Letter("for"), 2.0)
    assert [letter for letter, *_ in results] == [Letter("for 0/3"), Letter("for 1/3"), Letter("for 2/3")]
    assert [(total, threads) for _, total, threads, _ in results] == [([12.0], 1)] * 3
    pids = {pid for *_, pid in results}
    assert len(pids - {os.getpid()}) == 3
    assert all(gone(pid) for pid in pids)


def test_the_first_failure_is_told_and_nobody_stays(tmp_path: Path) -> None:
    with pytest.raises(WorkerFailed, match=r"^worker 1 of 2 failed(?s:.)*in fail(?s:.)*what went wrong") as caught:
        run_workers(fail, 2, str(tmp_path))
    assert "worker 0" not in str(caught.value), "who only waited did not fail"
    assert all(gone(int(file.read_text()), 0.1) for file in tmp_path.iterdir())
    with pytest.raises(WorkerFailed, match=r"^worker 0 of 2 died with exit status 7:\s+last words"):
        run_workers(die, 2)


def test_a_hang_ends_with_its_stack() -> None:
    with pytest.raises(WorkerFailed, match=r"not done after 1 s(?s:.)*worker 0 of 1:(?s:.)*in hang"):
        run_workers(hang, 1, timeout_s=1)


def test_workers_leave_with_a_killed_parent(tmp_path: Path) -> None:
    script = (
        f"import sys; sys.path[:0] = {[str(Path(__file__).parent)]}\n"
        "from gloo_workers import run_workers\n"
        "from test_gloo_workers import wait_for_ever\n"
        f"run_workers(wait_for_ever, 1, {str(tmp_path)!r})"
    )
    parent = subprocess.Popen([sys.executable, "-c", script])
    try:
        until = time.monotonic() + 60
        while not (tmp_path / "0").exists() or not (tmp_path / "0").read_text():
            assert time.monotonic() < until and parent.poll() is None
            time.sleep(0.02)
    finally:
        parent.kill()
        parent.wait()
    assert gone(int((tmp_path / "0").read_text()))


def test_a_function_that_cannot_be_found_again_is_refused() -> None:
    with pytest.raises(ValueError, match="top level"):
        run_workers(lambda rank, workers: None, 2)
