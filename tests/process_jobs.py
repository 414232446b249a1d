"""Work for test_worker_processes.py, in a module that the processes can import."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spokeshave.errors import TrainingDiverged

Say = Callable[[Any], None]


def scaled(shared: Tensor, job: float, say: Say) -> tuple[float, int, int, bool]:
    say(f"job {job}")
    return float(shared.sum()) * job, os.getpid(), torch.get_num_threads(), shared.is_shared()


def raises(shared: object, job: str, say: Say) -> None:
    if job == "diverges":
        raise TrainingDiverged("the loss became nan at step 7")
    if job == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    raise EOFError("nothing left to read")


def waits(shared: str, job: int, say: Say) -> None:
    (Path(shared) / str(job)).write_text(str(os.getpid()))
    time.sleep(1000)


def missing() -> None:
    raise AttributeError("Can't get attribute 'Net' on <module '__main__'>")


class OfAnUnknownClass:
    """Pickles, but cannot be read, as what is of a class that a notebook defines."""

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return missing, ()
