"""Codec cost: seconds an element to make ternary codes of gradients, to add them up, and to make gradients of them.

Measured on this machine and device, so that the performance model knows from which link speed on a codec takes longer
than what it saves on the wire.
"""

import statistics
import time
from collections.abc import Callable

import torch

from spokeshave.communication.counter_random import StreamKey
from spokeshave.communication.digit_packing import LANES, Pack, code_packing, sum_packing
from spokeshave.communication.performance_model import CodecCost
from spokeshave.communication.ternary_codes import local_scalers
from spokeshave.communication.ternary_loops import tile_rows
from spokeshave.communication.ternary_packing import Place, codec_for
from spokeshave.errors import InvalidArgument
from spokeshave.timing import using_threads

ELEMENTS = 1 << 22
"""Enough that calls cost nothing beside them, and more than most caches hold."""
_CLIP_FACTOR = 2.5
_CPU = torch.device("cpu")
_MOST_STREAMS = 8
_WARM_UP = 1


def measure_codec(
    workers: int,
    pack: Pack = Pack.TWO_BIT,
    device: torch.device = _CPU,
    elements: int = ELEMENTS,
    rounds: int = 5,
    threads: int | None = None,
) -> CodecCost:
    """Time the codec that the device gets (`codec_for`) on a gradient like any other, and the way to bfloat16 and back.

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
    codec = codec_for(device.type)
    gradient = torch.randn(elements, generator=torch.Generator().manual_seed(0)).to(device)
    tile = tile_rows(codes, sums)
    rows = -(-elements // (LANES * tile)) * tile
    place = Place(0, elements)
    stream = torch.zeros(rows // codes.digits * codes.block_bytes, dtype=torch.uint8, device=device)
    total = torch.zeros(rows // sums.digits * sums.block_bytes, dtype=torch.uint8, device=device)
    decoded, half = torch.empty_like(gradient), torch.ones(1, device=device) / 2
    streams = [stream] * min(workers, _MOST_STREAMS)

    def encode() -> None:
        scalers = local_scalers(codec.statistics([gradient], totals=False), _CLIP_FACTOR).to(device)
        codec.encode([gradient], scalers, scalers, [StreamKey(1, 2)], codes, [place], stream)

    def add() -> None:
        codec.reduce(streams, codes, sums, total)

    def decode() -> None:
        codec.decode([stream], codes, 1, half, [place], [decoded])

    def halve() -> None:
        decoded.copy_(gradient.to(torch.bfloat16))

    tried: list[Callable[[], None]] = [encode, add, decode, halve]
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
    return CodecCost(encode_s, add_s / len(streams), decode_s, halve_s)


def _nothing() -> None:
    """A CPU need not be waited for."""
