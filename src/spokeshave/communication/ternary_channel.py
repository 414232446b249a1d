"""Ternary channel: the collectives that ternary gradients travel by, and a count of the bytes that they send."""

from datetime import timedelta
from typing import Any, cast

import torch
from torch import Tensor, distributed


class Channel:
    """A process group of its own, so that no other collective of the training meets its rounds.

    Made by all workers together. It lives as long as torch's other groups: torch may give the name of one that was
    destroyed earlier to a later one that its members make, while others still hold it.

    Args:
        group: of the workers.
        timeout: of a collective; the group's own by default.

    Attributes:
        workers: N.
        rank: of this worker in the group.
        bytes_sent: payload since the beginning, without headers of the network.
    """

    def __init__(self, group: distributed.ProcessGroup, timeout: timedelta | None = None) -> None:
        self.workers, self.rank, self.bytes_sent = group.size(), group.rank(), 0
        ranks = distributed.get_process_group_ranks(group)
        _make_as_many_groups(group, ranks)
        made = distributed.new_group(
            ranks, timeout or timeout_of(group), distributed.get_backend_config(group), use_local_synchronization=True
        )
        self._group = cast(distributed.ProcessGroup, made)

    def all_gather(self, gathered: Tensor, own: Tensor) -> distributed.Work:
        """Start to collect every worker's bytes.

        Args:
            gathered: [N, ...], written.
            own: this worker's.
        """
        self.bytes_sent += (self.workers - 1) * own.nbytes
        # The older name warns where the newer one is known.
        gather: Any = getattr(distributed, "all_gather_single", distributed.all_gather_into_tensor)
        return gather(gathered.view(-1), own, group=self._group, async_op=True)

    def all_to_all(self, received: Tensor, sent: Tensor) -> distributed.Work:
        """Start to exchange equal shares.

        Args:
            received: [N, ...], written.
            sent: [N, ...], a row for each worker.
        """
        self.bytes_sent += sent.nbytes * (self.workers - 1) // self.workers
        return cast(Any, distributed.all_to_all_single(received, sent, group=self._group, async_op=True))

    def all_reduce(self, tensor: Tensor, largest: bool = False) -> distributed.Work:
        """Start to add the workers' elements, in place.

        Args:
            tensor: of this worker.
            largest: find the largest instead.
        """
        self.bytes_sent += self.reduce_bytes(tensor)
        operation = distributed.ReduceOp.MAX if largest else distributed.ReduceOp.SUM
        return cast(Any, distributed.all_reduce(tensor, operation, group=self._group, async_op=True))

    def reduce_bytes(self, tensor: Tensor) -> int:
        """What a worker sends in a ring all-reduce."""
        return 2 * tensor.nbytes * (self.workers - 1) // self.workers

    def agree(self, text: str) -> list[str]:
        """Every worker's text, by rank: to see whether all of them mean the same."""
        texts: list[Any] = [None] * self.workers
        distributed.all_gather_object(texts, text, group=self._group)
        return texts


def _make_as_many_groups(group: distributed.ProcessGroup, ranks: list[int]) -> None:
    """Let every worker know of equally many process groups.

    torch names a group that only its members make after how many each of them knows: with different numbers they would
    wait for each other under different names.
    """
    known = len(distributed.distributed_c10d._world.pg_names)
    numbers: list[Any] = [0] * len(ranks)
    distributed.all_gather_object(numbers, known, group=group)
    for _ in range(max(numbers) - known):
        distributed.new_group([distributed.get_rank()], use_local_synchronization=True)


def timeout_of(group: distributed.ProcessGroup) -> timedelta | None:
    """How long a group's collectives wait; None where it does not say.

    Args:
        group: of processes.
    """
    try:
        backend: Any = group._get_backend(torch.device("cuda" if distributed.get_backend(group) == "nccl" else "cpu"))
        return backend.options._timeout
    except (AttributeError, RuntimeError):
        return None
