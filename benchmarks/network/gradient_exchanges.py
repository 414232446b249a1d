"""The contestants: how DDP's gradients travel, and how many bytes that must take.

Bytes are those that one rank sends in a step, without headers; it receives as many. M gradients, N ranks:
float32 all-reduce 8 M (N-1) / N, bfloat16 half of it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch.nn.parallel import DistributedDataParallel

from spokeshave import bfloat16_hook

PLAIN, BFLOAT16 = "float32", "bfloat16"


@dataclass(frozen=True)
class Exchange:
    """One way for gradients to travel.

    Attributes:
        register: puts the hook on a network; gives the hook's state, if it has one.
        bytes_sent: (elements of each parameter, ranks) -> bytes that a rank sends in a step.
    """

    register: Callable[[DistributedDataParallel], Any]
    bytes_sent: Callable[[list[int], int], float]


def _all_reduce(bytes_each: int) -> Callable[[list[int], int], float]:
    return lambda sizes, ranks: 2 * bytes_each * sum(sizes) * (ranks - 1) / ranks


EXCHANGES: Mapping[str, Exchange] = {
    PLAIN: Exchange(lambda network: None, _all_reduce(4)),
    BFLOAT16: Exchange(lambda network: network.register_comm_hook(None, bfloat16_hook), _all_reduce(2)),
}
"""Name -> contestant, in the order of the tables."""
