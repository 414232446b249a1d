"""Codec cost: seconds an element to make ternary codes of gradients, to add them up, and to make gradients of them.

Measured on this machine and device, so that the performance model knows from which link speed on a codec takes longer
than what it saves on the wire.
"""

import statistics
import time
from collections.abc import Callable

import torch

from spokeshave.communication.counter_random import StreamKey
from spokeshave.communication.digit_packing import Pack, code_packing, pack_digits, sum_packing, unpack_digits
from spokeshave.communication.performance_model import CodecCost
from spokeshave.communication.ternary_codes import local_scalers, statistics_of, ternarize
from spokeshave.errors import InvalidArgument
from spokeshave.timing import using_threads

ELEMENTS = 1 << 20
"""Enough that calls cost nothing beside them, and more than most caches hold."""
_CLIP_FACTOR = 2.5
_WARM_UP = 1


def measure_codec(
    workers: int,
    pack: Pack = Pack.TWO_BIT,
    device: torch.device = torch.device("cpu"),
    elements: int = ELEMENTS,
    rounds: int = 5,
    threads: int | None = None,
) -> CodecCost:
    """Time the codec on a gradient like any other, and the way to bfloat16 and back.

    Args:
        workers: N, whose codes are added: 1..32767, of which at most eight are made.
        pack: of the codes.
        device: that gradients are on.
        elements: of the gradient, at least 1.
        rounds: in turns; medians count.
        threads: of the CPU; none for as many as torch uses.

    Returns:
        seconds an element, none of them overlapped.

    Raises:
        InvalidArgument: where a number is out of its range.
    """
    if elements < 1 or rounds < 1:
        raise InvalidArgument(f"expected at least one element and one round, got {elements} and {rounds}")
    sums, codes = sum_packing(pack, workers), code_packing(pack)
    gradient = torch.randn(elements, generator=torch.Generator().manual_seed(0)).to(device)
    key = StreamKey(1, 2)

    def encode() -> torch.Tensor:
        scaler = local_scalers(statistics_of(gradient)[None], _CLIP_FACTOR)
        return pack_digits(ternarize(gradient, scaler[0], key, scaler[0]) + 1, codes)

    stream = encode()
    others = min(workers, 8)

    def add() -> torch.Tensor:
        return pack_digits(torch.stack([unpack_digits(stream, codes) for _ in range(others)]).sum(0), sums)

    def decode() -> torch.Tensor:
        return (unpack_digits(stream, codes)[:elements] - 1).float() * 0.5

    def halve() -> torch.Tensor:
        return gradient.to(torch.bfloat16).float()

    tried: list[Callable[[], torch.Tensor]] = [encode, add, decode, halve]
    samples: list[list[float]] = [[] for _ in tried]
    synchronize = torch.cuda.synchronize if device.type == "cuda" else _nothing
    with torch.no_grad(), using_threads(threads or torch.get_num_threads()):
        for number in range(_WARM_UP + rounds):
            for seconds, work in zip(samples, tried, strict=True):
                synchronize()
                start = time.perf_counter()
                work()
                synchronize()
                if number >= _WARM_UP:
                    seconds.append((time.perf_counter() - start) / elements)
    encode_s, add_s, decode_s, halve_s = (statistics.median(seconds) for seconds in samples)
    return CodecCost(encode_s, add_s / others, decode_s, halve_s)


def _nothing() -> None:
    """A CPU need not be waited for."""
