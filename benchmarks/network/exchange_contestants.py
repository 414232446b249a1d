"""The contestants: how DDP's gradients travel, and how many bytes that takes.

Bytes are those of `communication/wire_bytes.py`, which a rank sends in a step, and receives; without headers.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch.nn.parallel import DistributedDataParallel

from spokeshave.communication.bfloat16_hook import bfloat16_hook
from spokeshave.communication.digit_packing import Pack
from spokeshave.communication.ternary_wire import Wire
from spokeshave.communication.terngrad import terngrad_hook
from spokeshave.communication.terngrad_state import TernGradState
from spokeshave.communication.wire_bytes import Exchange, GradientSize, sent_bytes

PLAIN, BFLOAT16 = Exchange.FLOAT32.value, Exchange.BFLOAT16.value
MIN_NUMEL = 1024
"""Smaller tensors travel as floats, as is the hook's default."""
TRIAL_STEPS = 12
"""In which AUTO finds out whether codes are faster here; floats travel from then on if not."""
FIRST_STEPS = 2
"""In the first one DDP orders its buckets."""


@dataclass(frozen=True)
class Contestant:
    """One way for gradients to travel.

    Attributes:
        register: puts the hook on a network; gives the hook's state, if it has one.
        exchange: ranks -> what travels among so many.
        pack: of ternary codes.
        first_steps: that are not counted.
    """

    register: Callable[[DistributedDataParallel], TernGradState | None]
    exchange: Callable[[int], Exchange]
    pack: Pack = Pack.TWO_BIT
    first_steps: int = FIRST_STEPS

    def sent_bytes(self, sizes: Sequence[int], ranks: int) -> float:
        """Bytes that a rank sends in a step.

        Args:
            sizes: elements of each parameter.
            ranks: how many exchange gradients.
        """
        return sent_bytes(self.exchange(ranks), GradientSize.of(sizes, MIN_NUMEL), ranks, self.pack)


def _always(exchange: Exchange) -> Callable[[int], Exchange]:
    return lambda ranks: exchange


def _register_bfloat16(network: DistributedDataParallel) -> None:
    network.register_comm_hook(None, bfloat16_hook)


def _terngrad(wire: Wire, pack: Pack = Pack.TWO_BIT) -> Contestant:
    def register(network: DistributedDataParallel) -> TernGradState:
        state = TernGradState(network, wire=wire, pack=pack, min_numel=MIN_NUMEL, trial_steps=TRIAL_STEPS)
        network.register_comm_hook(state, terngrad_hook)
        return state

    first = FIRST_STEPS + (TRIAL_STEPS if wire is Wire.AUTO else 0)
    return Contestant(register, lambda ranks: Exchange(wire.chosen(ranks).value), pack, first)


CONTESTANTS: Mapping[str, Contestant] = {
    PLAIN: Contestant(lambda network: None, _always(Exchange.FLOAT32)),
    BFLOAT16: Contestant(_register_bfloat16, _always(Exchange.BFLOAT16)),
    "allgather": _terngrad(Wire.ALLGATHER),
    "allgather-base3": _terngrad(Wire.ALLGATHER, Pack.BASE3),
    "alltoall": _terngrad(Wire.ALLTOALL),
    "alltoall-base3": _terngrad(Wire.ALLTOALL, Pack.BASE3),
    "lanes": _terngrad(Wire.LANES),
    "auto": _terngrad(Wire.AUTO),
}
"""Name -> contestant, in the order of the tables."""
