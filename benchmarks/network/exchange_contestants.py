"""The contestants: how DDP's gradients travel, and how many bytes that takes.

Bytes are those of `communication/wire_bytes.py`, which a rank sends in a step, and receives; without headers.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch.nn.parallel import DistributedDataParallel

from spokeshave.communication.bfloat16_hook import bfloat16_hook
from spokeshave.communication.digit_packing import Pack
from spokeshave.communication.wire_bytes import Exchange, GradientSize, sent_bytes

PLAIN, BFLOAT16 = Exchange.FLOAT32.value, Exchange.BFLOAT16.value
MIN_NUMEL = 1024
"""Smaller tensors travel as floats, as is the hook's default."""


@dataclass(frozen=True)
class Contestant:
    """One way for gradients to travel.

    Attributes:
        register: puts the hook on a network.
        exchange: ranks -> what travels among so many.
        pack: of ternary codes.
    """

    register: Callable[[DistributedDataParallel], None]
    exchange: Callable[[int], Exchange]
    pack: Pack = Pack.TWO_BIT

    def sent_bytes(self, sizes: Sequence[int], ranks: int) -> float:
        """Bytes that a rank sends in a step.

        Args:
            sizes: elements of each parameter.
            ranks: how many exchange gradients.
        """
        return sent_bytes(self.exchange(ranks), GradientSize.of(sizes, MIN_NUMEL), ranks, self.pack)


def _always(exchange: Exchange) -> Callable[[int], Exchange]:
    return lambda ranks: exchange


CONTESTANTS: Mapping[str, Contestant] = {
    PLAIN: Contestant(lambda network: None, _always(Exchange.FLOAT32)),
    BFLOAT16: Contestant(lambda network: network.register_comm_hook(None, bfloat16_hook), _always(Exchange.BFLOAT16)),
}
"""Name -> contestant, in the order of the tables."""
