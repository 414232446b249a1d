"""Processes that train together: joins the group that `torchrun` describes in the environment, if there is one."""

import os

import torch
from torch import distributed


def join_processes() -> tuple[int, int]:
    """Join the processes that `torchrun` started; gloo between CPUs, NCCL between GPUs.

    Returns:
        (rank, number of processes): (0, 1) for a process that runs alone.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or not distributed.is_available():
        return 0, 1
    if not distributed.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    return distributed.get_rank(), distributed.get_world_size()


def is_first() -> bool:
    """True in the process that writes files: the first of a group, or one that runs alone."""
    return not (distributed.is_available() and distributed.is_initialized()) or distributed.get_rank() == 0


def wait_for_all() -> None:
    """Wait until every process is here; nothing to wait for where a process runs alone."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()


def leave_processes() -> None:
    """Leave the group, if one was joined."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
