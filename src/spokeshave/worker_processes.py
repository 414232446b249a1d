"""Worker processes: jobs done by fresh Python processes on this machine, none of which outlives the one that asked.

A worker is spawned, not forked: forking a process whose torch has run threads may hang. What all jobs need travels
once a worker, its CPU tensors through shared memory, as those of jobs do; answers are copied. A worker ends when its
parent does, also when that was killed.
"""

import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch
import torch.multiprocessing  # tensors travel through shared memory once it is imported

from spokeshave import errors
from spokeshave.errors import InvalidArgument, SpokeshaveError, WorkerFailed
from spokeshave.large_blocks import keep_large_blocks

Work = Callable[[Any, Any, Callable[[Any], None]], Any]
"""What is done: called with what all jobs share, the job, and what sends a message home; its answer goes home too."""

PATIENCE_S = 5.0
"""For a process to end that was told to."""

_UNGUARDED = (
    "processes import the script that asks for them, and must not ask again: put what it runs under "
    "`if __name__ == '__main__':`, or do without processes"
)


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    job: int
    name: str
    started: bool = False


def do_in_processes(
    work: Work,
    shared: object,
    jobs: Sequence[Any],
    names: Sequence[str],
    workers: int,
    threads: int = 1,
    heard: Callable[[int, Any], None] | None = None,
) -> list[Any]:
    """Do jobs in processes, as many at a time as there are workers.

    Args:
        work: at the top level of a module.
        shared: what every job needs; anything that pickles. The tensors of it, and of jobs, are to be read only.
        jobs: anything that pickles.
        names: of the jobs, for messages.
        workers: processes at most, at least 1.
        threads: of torch in each, at least 1.
        heard: called with a job's position and each message that the job sends.

    Returns:
        The answers, in the order of the jobs.

    Raises:
        SpokeshaveError: that a job raised, of the same kind, with the job's name before its message.
        WorkerFailed: where a job raised anything else, or its process was killed or could not start.
        InvalidArgument: where something does not pickle, a number is out of its range, or the script that asks is
            imported by its processes and asks again.
    """
    if workers < 1 or threads < 1:
        raise InvalidArgument(f"expected at least 1 worker and 1 thread, got {workers} and {threads}")
    answers: dict[int, Any] = {}
    waiting = list(range(len(jobs)))
    crew: list[_Worker] = []
    leaving: list[BaseProcess] = []
    try:
        for _ in range(min(workers, len(jobs))):
            job = waiting.pop(0)
            crew.append(_hired(threads, job, names[job]))
        while crew:
            ready = wait([worker.connection for worker in crew])
            for worker in [worker for worker in crew if worker.connection in ready]:
                kind, value = _received(worker)
                if kind == "failed":
                    raise _failure(worker.name, *value)
                if kind == "message" and heard is not None:
                    heard(worker.job, value)
                if kind == "started":
                    worker.started = True
                    _send(worker, (work, shared))
                    _send(worker, jobs[worker.job])
                if kind == "answer":
                    answers[worker.job] = value
                    if waiting:
                        worker.job = waiting.pop(0)
                        worker.name = names[worker.job]
                        _send(worker, jobs[worker.job])
                    else:
                        worker.connection.close()
                        crew.remove(worker)
                        leaving.append(worker.process)
    finally:
        for worker in crew:
            worker.process.terminate()
            worker.connection.close()
        for process in [*leaving, *(worker.process for worker in crew)]:
            _end(process)
    return [answers[position] for position in range(len(jobs))]


def _hired(threads: int, job: int, name: str) -> _Worker:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, threads), daemon=True)
    try:
        process.start()
    except (RuntimeError, AssertionError) as error:  # while the main script is imported; in a process that is a worker
        raise InvalidArgument(
            f"no process can be started here ({str(error).split('.')[0].strip()}); {_UNGUARDED}"
        ) from error
    finally:
        there.close()
    return _Worker(process, here, job, name)  # pyright: ignore[reportArgumentType] - Windows' pipes have its methods


def _received(worker: _Worker) -> tuple[str, Any]:
    try:
        return pickle.loads(worker.connection.recv_bytes())
    except (EOFError, OSError):
        raise _death(worker) from None


def _send(worker: _Worker, what: object) -> None:
    try:
        worker.connection.send(what)
    except BrokenPipeError:
        raise _death(worker) from None
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InvalidArgument(
            f"what is sent to a process must pickle, but {error}; use functions and classes from the top level of a "
            "module, or do without processes"
        ) from error
    except RuntimeError as error:
        raise WorkerFailed(
            f"data could not be put into shared memory ({error}); give the container more of it (docker run "
            "--shm-size), or do without processes"
        ) from error


def _end(process: BaseProcess) -> None:
    process.join(PATIENCE_S)
    if process.is_alive():
        process.kill()
        process.join()
    process.close()


def _death(worker: _Worker) -> WorkerFailed:
    worker.process.join(PATIENCE_S)
    status = worker.process.exitcode
    reason = f"exit status {status}"
    if status is not None and status < 0:
        reason = f"signal {signal.Signals(-status).name}"
        if -status == signal.SIGKILL:
            reason += ", as the system does where memory runs out"
    if not worker.started:
        return WorkerFailed(
            f"{worker.name}: its process ended while it started ({reason}); what it wrote is above. Most often "
            f"{_UNGUARDED}"
        )
    return WorkerFailed(f"{worker.name}: its process ended before its work was done ({reason}); what it wrote is above")


def _failure(job: str, kind: str, message: str, trace: str) -> SpokeshaveError:
    found = getattr(errors, kind, None)
    if isinstance(found, type) and issubclass(found, SpokeshaveError):
        error = found(f"{job}: {message}")
    else:
        error = WorkerFailed(f"{job}: {kind}: {message}")
    error.add_note(f"In its process:\n{trace}")
    return error


def _serve(connection: Connection, threads: int) -> None:
    """Do the jobs that come, in a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent ends the workers
    threading.Thread(target=_leave_with_the_parent, daemon=True).start()
    torch.set_num_threads(threads)
    keep_large_blocks()

    def tell(kind: str, value: object = None) -> None:
        connection.send_bytes(pickle.dumps((kind, value)))

    try:
        tell("started")
        work, shared = connection.recv()
        for job in _jobs(connection):
            tell("answer", work(shared, job, lambda value: tell("message", value)))
    except BaseException as error:  # noqa: BLE001 - whatever it is, the parent tells
        tell("failed", (type(error).__name__, str(error), traceback.format_exc()))


def _jobs(connection: Connection) -> Iterator[Any]:
    while True:
        try:
            job = connection.recv_bytes()
        except EOFError:
            return
        yield pickle.loads(job)


def _leave_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
