"""Runs a function in several real processes that form a gloo group, and brings home what each returned.

    def body(rank: int, workers: int, *arguments): ...     # at the top level of a test file; torch.distributed is ready
    results = run_workers(body, 2, *arguments)             # by rank; anything that pickles

Each process imports torch afresh, 2 to 3 seconds: do much in one call. It runs on one thread, over loopback.
A process ends when its standard input does, so that none outlives the tests, even killed ones. The types in
signatures are not checked in it: pytest's import hook is not there.
"""

import faulthandler
import importlib.util
import inspect
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

START_S = 180
"""For the processes to start; on a busy machine they take long, and that says nothing about what is tested."""
GRACE_S = 0.5
"""After a failure others may still be failing, and the true cause may be theirs: all of them are told."""


class WorkerFailed(RuntimeError):
    """A worker raised, died or did not end in time; the message holds its traceback and what it printed."""


def run_workers(
    function: Callable[..., Any], workers: int, *arguments: Any, timeout_s: float = 120, grace_s: float = GRACE_S
) -> list[Any]:
    """Call `function(rank, workers, *arguments)` in so many processes of one gloo group.

    Args:
        function: at the top level of a file; it is found there again by its name.
        workers: processes.
        arguments: anything that pickles.
        timeout_s: for the calls, from when all processes have formed the group.
        grace_s: after a failure, for others that may still be failing.

    Returns:
        What the calls returned, by rank.

    Raises:
        WorkerFailed: with the tracebacks of those that raised; for a hang, with the stacks of those that hang.
    """
    if not function.__qualname__.isidentifier():
        raise ValueError(f"expected a function at the top level of a file, got {function.__qualname__}")
    file = inspect.getfile(inspect.unwrap(function))  # the types of its arguments may be checked in a wrapper
    job = (file, function.__module__, function.__qualname__, workers, timeout_s)
    with TemporaryDirectory(prefix="gloo-") as folder, ExitStack() as ending:
        processes = [_start(rank, job, arguments, Path(folder), ending) for rank in range(workers)]
        deadline, started = time.monotonic() + START_S, False
        while not all((Path(folder) / f"{rank}.result").exists() for rank in range(workers)):
            if not started and all((Path(folder) / f"{rank}.started").exists() for rank in range(workers)):
                deadline, started = time.monotonic() + timeout_s, True
            late = time.monotonic() > deadline
            dead = any(process.poll() is not None for process in processes)
            if late or dead or any(Path(folder).glob("*.failure")):
                limit = f"{timeout_s:g} s" if started else f"{START_S:g} s of starting"
                raise WorkerFailed(_what_failed(processes, Path(folder), late, limit, grace_s))
            time.sleep(0.01)
        return [pickle.loads((Path(folder) / f"{rank}.result").read_bytes()) for rank in range(workers)]


def _start(
    rank: int, job: tuple[Any, ...], arguments: Sequence[Any], folder: Path, ending: ExitStack
) -> subprocess.Popen[bytes]:
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo" if sys.platform == "linux" else "lo0",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    with (folder / f"{rank}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment
        )
    ending.callback(_end, process)
    assert process.stdin is not None
    # The arguments apart: their classes may stand in the function's file, which has to be loaded first.
    with suppress(BrokenPipeError):  # where it died already, run_workers tells
        for part in ((rank, str(folder), *job), tuple(arguments)):
            blob = pickle.dumps(part)
            process.stdin.write(len(blob).to_bytes(8, "little") + blob)
        process.stdin.flush()
    return process


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        process.stdin.close()


def _what_failed(processes: list[subprocess.Popen[bytes]], folder: Path, late: bool, limit: str, grace_s: float) -> str:
    if late:
        hanging = [rank for rank in range(len(processes)) if not (folder / f"{rank}.result").exists()]
        for rank in hanging:
            processes[rank].send_signal(signal.SIGABRT)  # faulthandler writes the stacks
        for rank in hanging:
            processes[rank].wait()
        reports = [f"worker {rank} of {len(processes)}:\n{_log(folder, rank)}" for rank in hanging]
        return "\n".join([f"not done after {limit}; the stacks of those that are not:", *reports])
    deadline = time.monotonic() + grace_s
    while time.monotonic() < deadline and not all(
        process.poll() is not None or any((folder / f"{rank}.{ending}").exists() for ending in ("failure", "result"))
        for rank, process in enumerate(processes)
    ):
        time.sleep(0.05)
    # Who died comes first: it closed its connections, which makes the others raise.
    dead = [rank for rank, process in enumerate(processes) if process.poll() is not None]
    reports = [f"worker {rank} of {len(processes)} died with exit status {processes[rank].returncode}" for rank in dead]
    reports = [f"{report}:\n{_log(folder, rank)}" for report, rank in zip(reports, dead, strict=True)]
    for path in sorted(folder.glob("*.failure"), key=lambda path: path.stat().st_mtime_ns):
        said = f"{path.read_text()}\nIt printed:\n{_log(folder, int(path.stem))}"
        reports.append(f"worker {path.stem} of {len(processes)} failed:\n{said}")
    return "\n".join(reports)


def _log(folder: Path, rank: int) -> str:
    return (folder / f"{rank}.log").read_text(errors="replace")[-8000:]


def _read() -> Any:
    size = int.from_bytes(sys.stdin.buffer.read(8), "little")
    return pickle.loads(sys.stdin.buffer.read(size))


def _leave_with_the_parent() -> None:
    """End at once when standard input does: the parent has all it wants, or is dead."""
    sys.stdin.buffer.read()
    os._exit(0)


def _load(file: str, module: str) -> Any:
    spec = importlib.util.spec_from_file_location(module, file)
    assert spec is not None and spec.loader is not None
    sys.modules[module] = loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def _work() -> None:
    faulthandler.enable()
    rank, folder, file, module, name, workers, timeout_s = _read()
    try:
        function = getattr(_load(file, module), name)
        arguments = _read()
        threading.Thread(target=_leave_with_the_parent, daemon=True).start()
        import torch.distributed as dist

        dist.init_process_group(
            "gloo",
            init_method=f"file://{folder}/rendezvous",
            rank=rank,
            world_size=workers,
            timeout=timedelta(seconds=timeout_s + START_S),
        )
        (Path(folder) / f"{rank}.started").touch()
        ending, said = "result", pickle.dumps(function(rank, workers, *arguments))
    except BaseException:  # noqa: BLE001 - whatever it is, the parent tells
        ending, said = "failure", traceback.format_exc().encode()
    unfinished = Path(folder) / f"{rank}.part"
    unfinished.write_bytes(said)
    unfinished.rename(Path(folder) / f"{rank}.{ending}")
    # Not over yet: leaving closes connections on which others may still wait.
    threading.Event().wait()


if __name__ == "__main__":
    _work()
