"""Contestants of a benchmark, each in a process of its own, called in turns in a new random order every round.

One thread is judged by the CPU time of the process, which other work on the machine disturbs least: the median of the
calls of a turn. More threads are judged by wall time: the fastest call of a turn, since one thread that waits for a
core makes all of them wait. Ratios are taken within a round; reported are medians and quartile distances over rounds.
"""

import json
import math
import os
import random
import subprocess
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from peer_environments import installed, python_of
from torch import Tensor, nn

from spokeshave import save_sparse, to_sparse
from spokeshave.timing import median_and_spread

WORKER = Path(__file__).resolve().parent / "peers" / "worker.py"
SOURCES = Path(__file__).resolve().parents[1] / "src"
OURS, SEGMENT = "spokeshave", "spokeshave-segment"
TORCH = ("torch", "torch-channels-last", "torch-frozen")
PEERS = ("deepsparse", "openvino", "onnxruntime")
DENSE = (*TORCH, "openvino", "onnxruntime")
"""Contestants that zeros do not help."""
SUFFIX = dict.fromkeys((OURS, SEGMENT), ".safetensors") | dict.fromkeys(TORCH, ".pt")
"""Contestant -> kind of file that it reads, where that is not ONNX."""
TOLERANCE = 1e-4
"""Largest accepted difference from torch, relative to the largest value."""
_PAUSE_S = 0.005
"""Between turns: waiting threads of a pool spin a while after their last work."""


@dataclass(frozen=True)
class TurnOptions:
    """Who takes turns, and how long."""

    only_contestants: tuple[str, ...] = ()
    """Whom to compare with; all that are installed if none is given."""
    peers: Path = Path("build/peers")
    """Folder that peer_environments.py made."""
    rounds: int = 15
    """Turns of each contestant in each setting."""
    turn_ms: float = 50.0
    """About how long a turn lasts."""
    seed: int = 0
    """Of inputs, random weights and the order of turns."""
    ledger: Path | None = None
    """Folder of the ledger; writes a row there."""


class Contestant:
    """A worker process.

    Args:
        name: as `peers/worker.py` knows it.
        threads: that it may use.
        python: interpreter of its environment.
    """

    def __init__(self, name: str, threads: int, python: Path | str) -> None:
        self.name, self.threads, self._python = name, threads, str(python)
        self._begin()

    def _begin(self) -> None:
        name, threads = self.name, self.threads
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(SOURCES)}
        self._process = subprocess.Popen(
            [self._python, str(WORKER), name, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self.version = str(self._answer().get("version", "does not start"))

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        return {"error": f"the process ended with status {self._process.wait()}"}

    def ask(self, **request: object) -> dict[str, Any]:
        """Send a request; its answer, which has `error` where it failed. A process that ended is started again."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            answer = self._answer()
        except OSError as error:
            answer = {"error": f"the process ended: {error.strerror}"}
        if self._process.poll() is not None:
            self.close()
            self._begin()
        return answer

    def close(self) -> None:
        """End the process."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):  # what was not sent to a process that is gone
                    pipe.close()
        self._process.wait()


def start(threads: int, folder: Path, only: Sequence[str] = ()) -> list[Contestant]:
    """Start ours, torch's and every peer that is installed in `folder`; `only` leaves out what it does not name."""
    wanted = dict.fromkeys((OURS, SEGMENT, *TORCH), sys.executable)
    wanted |= {name: str(python_of(folder, name)) for name in PEERS if installed(folder, name)}
    return [Contestant(name, threads, python) for name, python in wanted.items() if not only or name in (OURS, *only)]


@dataclass
class Turns:
    """What one contestant took in each round, seconds a call: median of the calls of a turn, and the fastest."""

    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    least_wall_s: list[float] = field(default_factory=list)
    least_cpu_s: list[float] = field(default_factory=list)

    def seconds(self, threads: int) -> list[float]:
        """By the clock that judges this number of threads."""
        return self.cpu_s if threads == 1 else self.least_wall_s

    def fastest(self, threads: int) -> float:
        """The fastest call of all, by the same clock: what an undisturbed machine would show."""
        return min(self.least_cpu_s if threads == 1 else self.least_wall_s)


def take_turns(
    contestants: Mapping[str, Contestant], rounds: int, turn_s: float, order: random.Random, peak: list[float]
) -> dict[str, Turns]:
    """Time what each contestant has loaded.

    Args:
        contestants: by any name.
        rounds: how many.
        turn_s: about how long a turn lasts; at least 2 calls.
        order: of the turns.
        peak: the FMA peak of every round is appended, in GFLOP/s, where ours takes part.

    Returns:
        The times; contestants that fail on the way are left out.
    """
    calls, turns = {}, {}
    for name, contestant in contestants.items():
        answer = contestant.ask(do="run", calls=2)
        if "error" not in answer:
            calls[name] = min(1000, max(2, round(turn_s / median(answer["wall_s"]))))
            turns[name] = Turns()
    for _ in range(rounds):
        names = list(turns)
        order.shuffle(names)
        for name in names:
            if name == OURS:
                peak += contestants[name].ask(do="peak", calls=2).get("gflops", [])
            time.sleep(_PAUSE_S)
            answer = contestants[name].ask(do="run", calls=calls[name])
            if "error" in answer:
                del turns[name]
                continue
            turns[name].wall_s.append(median(answer["wall_s"]))
            turns[name].cpu_s.append(median(answer["cpu_s"]))
            turns[name].least_wall_s.append(min(answer["wall_s"]))
            turns[name].least_cpu_s.append(min(answer["cpu_s"]))
    return turns


def write_models(
    network: nn.Module, images: Tensor, folder: Path, batch: int | None = None
) -> tuple[dict[str, Path], Path]:
    """Write a network as ours and torch's contestants read it.

    Args:
        network: in eval mode.
        images: that all contestants get.
        folder: for the files.
        batch: that ours plans for; a single image if none.

    Returns:
        Suffix -> file, without .onnx; and the example, with what torch answers.
    """
    models = {suffix: folder / f"network{suffix}" for suffix in set(SUFFIX.values())}
    with torch.no_grad():
        save_sparse(to_sparse(network, images[:1], batch=batch)[0], models[".safetensors"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # nothing else runs a network without Python in between
            torch.jit.trace(network, images).save(str(models[".pt"]))
        example = folder / "example.npz"
        np.savez(example, input=images.numpy(), expected=network(images).numpy())
    return models, example


def ratio(others: Sequence[float], ours: Sequence[float]) -> tuple[float, float]:
    """How many times faster ours is: median over rounds, and the distance between the quartiles.

    Example:
        >>> ratio([2.0, 4.0, 6.0], [1.0, 1.0, 2.0])  # 2, 4, 3
        (3.0, 1.0)
    """
    return median_and_spread([other / our for other, our in zip(others, ours, strict=True)])


def load(contestant: Contestant, model: Path, example: Path) -> str:
    """Load a network into a contestant.

    Args:
        contestant: any.
        model: file of the kind that it reads.
        example: from `write_models`.

    Returns:
        Why it cannot take part; nothing where it answers what torch answers.
    """
    answer = contestant.ask(do="load", model=str(model), example=str(example))
    if answer.get("relative_error", math.inf) <= TOLERANCE:
        return ""
    return answer.get("error", f"its relative error is {answer.get('relative_error')}")


def best_of(turns: Mapping[str, Turns], names: Sequence[str], threads: int) -> str | None:
    """Whose median is the smallest; None where nobody took part."""
    taking_part = [name for name in names if name in turns]
    return min(taking_part, key=lambda name: median(turns[name].seconds(threads)), default=None)
