"""Real processes: answers, failures of every kind, and that none stays behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import process_jobs
from spokeshave.errors import InvalidArgument, TrainingDiverged, WorkerFailed
from spokeshave.worker_processes import do_in_processes
from test_gloo_workers import gone

# A shell that starts the tests in the background has them ignore Ctrl-C, and what they start inherits that.
WAITING = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path[:0] = {path!r}
import process_jobs
from spokeshave.worker_processes import do_in_processes
if __name__ == "__main__":
    do_in_processes(process_jobs.waits, {folder!r}, [0], ["a"], workers=1)
"""
UNGUARDED = """
import process_jobs
from spokeshave.worker_processes import do_in_processes
print("once more", flush=True)
do_in_processes(process_jobs.waits, "", [0], ["a"], workers=1)
"""


def test_answers_come_in_the_order_of_the_jobs_from_few_processes_that_share_the_data() -> None:
    data = torch.arange(4.0)
    heard: list[tuple[int, str]] = []
    names = [f"job {number}" for number in range(5)]
    answers = do_in_processes(
        process_jobs.scaled, data, [1.0, 2.0, 3.0, 4.0, 5.0], names, 2, 3, lambda job, text: heard.append((job, text))
    )
    assert [value for value, *_ in answers] == [6.0, 12.0, 18.0, 24.0, 30.0]
    assert sorted(heard) == [(number, f"job {number + 1.0}") for number in range(5)]
    assert len({pid for _, pid, *_ in answers}) == 2
    assert {(threads, shared) for *_, threads, shared in answers} == {(3, True)}
    assert all(gone(pid) for _, pid, *_ in answers)


@pytest.mark.parametrize(
    ("job", "kind", "says"),
    [
        ("diverges", TrainingDiverged, r"^member 2: the loss became nan at step 7\nIn its process:(?s:.*) in raises\n"),
        ("end of file", WorkerFailed, r"^member 2: EOFError: nothing left to read\nIn its process:(?s:.*) in raises\n"),
        ("killed", WorkerFailed, r"^member 2: its process ended before its work was done \(signal SIGKILL, as"),
    ],
)
def test_a_failure_names_the_job_and_the_reason(job: str, kind: type[Exception], says: str) -> None:
    with pytest.raises(kind, match=says):  # which looks at the notes, too
        do_in_processes(process_jobs.raises, None, [job], ["member 2"], 1)


def test_what_does_not_pickle_is_refused_in_words() -> None:
    with pytest.raises(InvalidArgument, match="must pickle, but .*lambda"):
        do_in_processes(process_jobs.scaled, lambda: None, [1.0], ["a"], 1)
    with pytest.raises(WorkerFailed, match="a: AttributeError: Can't get attribute 'Net'"):
        do_in_processes(process_jobs.scaled, process_jobs.OfAnUnknownClass(), [1.0], ["a"], 1)
    with pytest.raises(InvalidArgument, match="at least 1 worker"):
        do_in_processes(process_jobs.scaled, None, [1.0], ["a"], 0)


def run_waiting(folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    script = folder / "script.py"
    script.write_text(WAITING.format(path=[str(Path(__file__).parent)], folder=str(folder)))
    parent = subprocess.Popen([sys.executable, str(script)], stderr=subprocess.PIPE, start_new_session=True)
    until = time.monotonic() + 60
    while not (folder / "0").exists() or not (folder / "0").read_text():
        assert time.monotonic() < until and parent.poll() is None
        time.sleep(0.02)
    return parent, int((folder / "0").read_text())


@pytest.mark.parametrize("ending", ["kill", "interrupt"])
def test_nobody_stays_behind(tmp_path: Path, ending: str) -> None:
    parent, worker = run_waiting(tmp_path)
    with parent:  # which waits for it, also after a failure
        if ending == "kill":
            parent.kill()
        else:
            os.killpg(parent.pid, signal.SIGINT)  # as a terminal does: to all of them
        try:
            _, written = parent.communicate(timeout=60)
        finally:
            parent.kill()
    assert gone(worker)
    if ending == "interrupt":
        assert written.count(b"KeyboardInterrupt") == 1


def test_a_script_without_a_guard_is_told_so(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"import sys\nsys.path[:0] = [{str(Path(__file__).parent)!r}]\n{UNGUARDED}")
    run = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120)
    assert run.returncode == 1
    assert run.stdout.split("\n") == ["once more", "once more", ""]
    last = run.stderr.strip().split("\n")[-1]
    assert last.startswith("spokeshave.errors.WorkerFailed: a: its process ended while it started (exit status 1)")
    assert "if __name__ == '__main__':" in last
