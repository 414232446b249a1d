"""The ranks of one setting as processes: started on their hosts, asked together, ended together.

A rank that raises or dies ends the run: its traceback is what the error says, and no process stays behind.
"""

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from network_namespaces import Host, Traffic, traffic

WORKER = Path(__file__).resolve().with_name("rank_worker.py")
SOURCES = WORKER.parents[2] / "src"
PORT = 29555
_GRACE_S = 1.0
"""For the true cause to arrive: a rank that dies makes others raise."""


class RankFailed(RuntimeError):
    """A rank raised, died or did not answer in time; the message holds its traceback."""


class Crew:
    """Processes, one for each host; use it as a context manager.

    Args:
        hosts: where they run.
        start: the first request, without rank, ranks and where they meet.
        pin: whether each stays on one core, in turns.
        timeout_s: for any answer.
        worker: the script of a rank.
        port: where the ranks meet, on the first host; None finds a free one, for hosts that are this machine.

    Raises:
        RankFailed: where a rank does not start.
    """

    def __init__(
        self,
        hosts: Sequence[Host],
        start: dict[str, Any],
        *,
        pin: bool = False,
        timeout_s: float = 600,
        worker: Path = WORKER,
        port: int = PORT,
    ) -> None:
        self._hosts, self._timeout_s = hosts, timeout_s
        self._answers: queue.Queue[tuple[int, str]] = queue.Queue()
        self._processes: list[subprocess.Popen[str]] = []
        self._logs: list[IO[str]] = []
        cores = sorted(os.sched_getaffinity(0))
        try:
            for host in hosts:
                self._start(host, worker)
            answers = self._ask(
                lambda rank: (
                    start
                    | {"rank": rank, "ranks": len(hosts), "address": hosts[0].address, "port": port}
                    | {"interface": hosts[rank].interface, "timeout_s": timeout_s}
                    | {"core": cores[rank % len(cores)] if pin else None}
                )
            )
        except BaseException:
            self.close()
            raise
        self.sizes: list[int] = answers[0]["sizes"]

    def __enter__(self) -> "Crew":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, **request: Any) -> list[dict[str, Any]]:
        """Send all ranks a request at once; their answers, by rank.

        Raises:
            RankFailed: where one does not answer well.
        """
        return self._ask(lambda rank: request)

    def traffic(self) -> list[Traffic]:
        """Bytes so far through each rank's interface."""
        return [
            traffic(process.pid, host.interface) for process, host in zip(self._processes, self._hosts, strict=True)
        ]

    def close(self) -> None:
        """Kill every process and wait for it."""
        for process in self._processes:
            process.kill()
        for process, log in zip(self._processes, self._logs, strict=True):
            process.wait()
            for pipe in (process.stdin, process.stdout, log):
                with suppress(OSError):  # what was not sent to a process that is gone
                    if pipe is not None:
                        pipe.close()

    def _start(self, host: Host, worker: Path) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(SOURCES)}
        log = TemporaryFile("w+")  # noqa: SIM115 - `close` closes it
        self._logs.append(log)
        # In a session of its own: Ctrl-C is for the parent, which ends the ranks.
        process = subprocess.Popen(
            [*host.command(), sys.executable, str(worker)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=log, text=True, env=environment, start_new_session=True,
        )  # fmt: skip
        self._processes.append(process)
        threading.Thread(target=self._read, args=(len(self._processes) - 1, process.stdout), daemon=True).start()

    def _read(self, rank: int, pipe: IO[str]) -> None:
        with suppress(ValueError):  # closed while it was read
            for line in pipe:
                self._answers.put((rank, line))
        self._answers.put((rank, ""))

    def _ask(self, request: Callable[[int], dict[str, Any]]) -> list[dict[str, Any]]:
        lines = [json.dumps(request(rank)) + "\n" for rank in range(len(self._processes))]
        for process, line in zip(self._processes, lines, strict=True):
            assert process.stdin is not None
            with suppress(BrokenPipeError):  # its end is read below
                process.stdin.write(line)
                process.stdin.flush()
        answers: dict[int, dict[str, Any]] = {}
        deadline = time.monotonic() + self._timeout_s
        while len(answers) < len(self._processes):
            try:
                rank, line = self._answers.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                missing = sorted(set(range(len(self._processes))) - set(answers))
                said = f"no answer from rank {missing} within {self._timeout_s:g} s"
                raise RankFailed("\n".join([said, *map(self._log, missing)])) from None
            answers[rank] = json.loads(line) if line else {}
            if not answers[rank] or "error" in answers[rank]:
                raise RankFailed(self._what_failed(answers))
        return [answers[rank] for rank in range(len(self._processes))]

    def _what_failed(self, answers: dict[int, dict[str, Any]]) -> str:
        time.sleep(_GRACE_S)
        with suppress(queue.Empty):
            while True:
                rank, line = self._answers.get_nowait()
                answers.setdefault(rank, json.loads(line) if line else {})
        dead = [rank for rank, answer in answers.items() if not answer]
        if dead:  # it closed its connections, which makes the others raise
            status = self._processes[dead[0]].wait()
            return f"rank {dead[0]} ended with status {status}:\n{self._log(dead[0])}"
        rank = next(rank for rank, answer in answers.items() if "error" in answer)
        return f"rank {rank} failed:\n{answers[rank]['error']}{self._log(rank)}"

    def _log(self, rank: int) -> str:
        self._logs[rank].seek(0)
        return self._logs[rank].read()[-8000:]
