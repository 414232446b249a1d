"""Wire bytes: what a worker sends in a step, by the way that the gradients are exchanged.

TernGrad, Wen et al., NIPS 2017, section 3: codes on the way there, sums of N workers on the way back. For M elements
(M (N - 1) / N of them for the others), c bits of a code, s bits of a sum, w bits of a lane:

    floats 2 * 32, bfloat16 2 * 16, all-gather N c, all-to-all c + s, lanes 2 w       bits an element of M (N - 1) / N
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from spokeshave.communication.digit_packing import Pack, code_packing, lane_packing, sum_packing
from spokeshave.errors import InvalidArgument

_FLOAT_BYTES = 4


class Exchange(Enum):
    """How gradients travel.

    FLOAT32 and BFLOAT16: a ring all-reduce. ALLGATHER: every worker's codes to every other. ALLTOALL: codes to the
    worker that sums a share of the elements, its sums to all. LANES: an all-reduce of words that hold codes side by
    side, with room for their sums.
    """

    FLOAT32 = "fp32"
    BFLOAT16 = "bf16"
    ALLGATHER = "allgather"
    ALLTOALL = "alltoall"
    LANES = "lanes"

    @property
    def ternary(self) -> bool:
        """True where codes travel."""
        return self not in (Exchange.FLOAT32, Exchange.BFLOAT16)


@dataclass(frozen=True)
class GradientSize:
    """Elements of a model's gradient.

    Attributes:
        ternary: that become codes where the exchange has codes.
        floats: that stay float32 then: small tensors, or a last layer.
        layers: tensors of the first kind, a scaler each, which the workers share.
    """

    ternary: int
    floats: int = 0
    layers: int = 0

    def __post_init__(self) -> None:
        if min(self.ternary, self.floats, self.layers) < 0 or not self.elements:
            raise InvalidArgument(f"expected a gradient with elements, got {self}")

    @property
    def elements(self) -> int:
        """All of them."""
        return self.ternary + self.floats

    @classmethod
    def of(cls, sizes: Sequence[int], min_numel: int) -> "GradientSize":
        """Sort the tensors of a model: those with fewer elements than `min_numel` stay floats.

        Args:
            sizes: elements of each tensor.
            min_numel: from so many elements on, codes are made.

        Example:
            >>> GradientSize.of([500, 20, 25000], min_numel=100)
            GradientSize(ternary=25500, floats=20, layers=2)
        """
        large = [size for size in sizes if size >= min_numel]
        return cls(sum(large), sum(sizes) - sum(large), len(large))


def bits_of(exchange: Exchange, workers: int, pack: Pack = Pack.TWO_BIT) -> float:
    """Bits that a worker sends for each of the M (N - 1) / N elements that are not its own share.

    Args:
        exchange: which.
        workers: N, 1..32767.
        pack: of the codes.

    Raises:
        InvalidArgument: for more workers, or none.

    Example:
        >>> [round(bits_of(exchange, 4), 1) for exchange in Exchange]
        [64.0, 32.0, 8.0, 6.0, 8.0]
    """
    back = sum_packing(pack, workers).bits  # raises where the number of workers is out of its range
    if exchange is Exchange.FLOAT32:
        return 64.0
    if exchange is Exchange.BFLOAT16:
        return 32.0
    if exchange is Exchange.ALLGATHER:
        return workers * code_packing(pack).bits
    if exchange is Exchange.ALLTOALL:
        return code_packing(pack).bits + back
    return 2 * lane_packing(workers).bits


def sent_bytes(exchange: Exchange, size: GradientSize, workers: int, pack: Pack = Pack.TWO_BIT) -> float:
    """Bytes that a worker sends, and receives, in a step, without blocks filled up and headers of the network.

    Args:
        exchange: which.
        size: of the gradient.
        workers: N, 1..32767.
        pack: of the codes.

    Raises:
        InvalidArgument: for more workers, or none.

    Example:
        >>> [round(sent_bytes(exchange, GradientSize(1000), 2)) for exchange in Exchange]
        [4000, 2000, 250, 312, 400]
    """
    bits = bits_of(exchange, workers, pack)
    others = (workers - 1) / workers
    if not exchange.ternary:
        return others * size.elements * bits / 8
    # Floats travel beside the codes, and their means beside the sums; the largest scalers are all-reduced before.
    floats = size.floats * _FLOAT_BYTES * (workers if exchange is Exchange.ALLGATHER else 2)
    return others * (size.ternary * bits / 8 + floats + size.layers * _FLOAT_BYTES * 2)


def crossing_bytes(
    exchange: Exchange, size: GradientSize, machines: int, devices: int, pack: Pack = Pack.TWO_BIT
) -> float:
    """Bytes that leave a machine in a step, where it holds several workers.

    Rings pass each machine's border once, so that its link carries what one worker sends. An all-to-all sends from
    every worker of a machine to all those of the others.

    Args:
        exchange: which.
        size: of the gradient.
        machines: at least 1; 1 has no border.
        devices: workers on each, at least 1.
        pack: of the codes.

    Example:
        >>> size = GradientSize(1024)
        >>> crossing_bytes(Exchange.FLOAT32, size, 2, 2), sent_bytes(Exchange.FLOAT32, size, 4)
        (6144.0, 6144.0)
        >>> crossing_bytes(Exchange.ALLTOALL, size, 2, 2)  # codes 2*2*256*2/8; sums in a ring, 3*256*4/8
        640.0
    """
    workers = machines * devices
    if machines == 1:
        return 0.0
    sent = sent_bytes(exchange, size, workers, pack)
    if exchange is not Exchange.ALLTOALL:
        return sent
    share = (size.ternary * code_packing(pack).bits / 8 + size.floats * _FLOAT_BYTES) / workers
    return sent + (devices * (workers - devices) - (workers - 1)) * share
