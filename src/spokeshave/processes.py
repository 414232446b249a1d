"""Where a run happens: its device, and the processes that `torchrun` started, if it did."""

import gc
import os
from collections.abc import Sequence
from datetime import timedelta

import torch
from torch import distributed

from spokeshave.errors import InvalidArgument


def usable_device(name: str) -> torch.device:
    """A device by its name, checked before any work is done on it.

    Args:
        name: "cpu", "cuda", "cuda:1", "mps".

    Raises:
        InvalidArgument: for an unknown name, or a device that this machine or this build of torch lacks.

    Example:
        >>> usable_device("cpu").type
        'cpu'
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InvalidArgument(f"device {name!r} cannot be used here: {reason}; cpu always can") from error
    return device


def usable_cores() -> int:
    """Cores that this process may run on.

    Example:
        >>> usable_cores() >= 1
        True
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def torchrun_place() -> tuple[int, int]:
    """Rank and number of the processes that `torchrun` started, whether joined or not.

    Example:
        >>> torchrun_place()
        (0, 1)
    """
    if not distributed.is_available():
        return 0, 1
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def join_processes(timeout: timedelta | None = None) -> tuple[int, int]:
    """Join the processes that `torchrun` started; gloo between CPUs, NCCL between GPUs.

    Args:
        timeout: longest wait for the others, now and in every exchange; None for torch's own.

    Returns:
        (rank, number of processes): (0, 1) for a process that runs alone.
    """
    if torchrun_place()[1] == 1:
        return 0, 1
    if not distributed.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=timeout)
    return distributed.get_rank(), distributed.get_world_size()


def process_rank() -> int:
    """Number of this process in its group; 0 for one that runs alone."""
    return distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0


def is_first() -> bool:
    """True in the process that writes files: the first of a group, or one that runs alone."""
    return process_rank() == 0


def wait_for_all() -> None:
    """Wait until every process is here; nothing to wait for where a process runs alone."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()


def from_first(numbers: Sequence[float]) -> list[float]:
    """Numbers of the first process, in every process: what each measures for itself would differ.

    Args:
        numbers: as many in each process.

    Example:
        >>> from_first([0.5, 2.0])
        [0.5, 2.0]
    """
    if distributed.is_available() and distributed.is_initialized():
        device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
        shared = torch.tensor(numbers, dtype=torch.float64, device=device)
        distributed.broadcast(shared, 0)
        return shared.tolist()
    return list(numbers)


def leave_processes() -> None:
    """Leave the group, if one was joined: all processes together."""
    if distributed.is_available() and distributed.is_initialized():
        # A DistributedDataParallel sits in a reference cycle. Left for the interpreter's exit, it takes gloo's
        # connections down while their threads still run, which now and then aborts the process.
        gc.collect()
        distributed.barrier()
        distributed.destroy_process_group()
