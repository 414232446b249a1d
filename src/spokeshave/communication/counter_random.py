"""Counter-based random numbers: a pure function of (seed, rank, step, tensor, element), on any device the same bits.

Nothing is drawn from torch's random state and nothing has to be kept to resume; no two workers or steps share a stream.
The mixing is lowbias32 (Wellons, "Prospecting for hash functions", 2018), keyed twice, so that 64 bits would have to
agree for two streams to meet; Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011, for the idea.
"""

import hashlib
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

RANDOM_BITS = 24
"""Of a number: as many as a float32 holds exactly."""
FIRST_FACTOR = 0x7FEB352D
SECOND_FACTOR = 0x846CA68B
MOST_ELEMENTS = 1 << 32
"""Of one tensor: its elements are counted in 32 bits."""
_WORD = 0xFFFFFFFF


@dataclass(frozen=True)
class StreamKey:
    """What the numbers of one tensor in one step on one worker are made from: two 32-bit words."""

    first: int
    second: int


def stream_key(seed: int, rank: int, step: int, tensor: int) -> StreamKey:
    """Give the key of a stream.

    Args:
        seed: of the run, the same on every worker.
        rank: of the worker.
        step: of the training.
        tensor: number of the parameter.

    Example:
        >>> stream_key(0, 0, 1, 2) == stream_key(0, 0, 1, 2) != stream_key(0, 1, 0, 2)
        True
    """
    digest = hashlib.blake2b(f"ternary/{seed}/{rank}/{step}/{tensor}".encode(), digest_size=8).digest()
    return StreamKey(int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little"))


def random_numbers(
    key: StreamKey, count: int, device: torch.device | str = "cpu", first: int = 0
) -> Int64[Tensor, " count"]:
    """Give the numbers of some of a stream's elements, each 0..2**24-1.

    Args:
        key: of the stream.
        count: of elements.
        device: where they come out.
        first: number of the first element; first + count is at most 2**32.

    Example:
        >>> random_numbers(StreamKey(1, 2), 3).tolist()
        [6271147, 579917, 7241121]
    """
    mixed = torch.arange(first, first + count, dtype=torch.int64, device=device) ^ key.first
    mixed = mixed ^ mixed >> 16
    mixed = _times(mixed, FIRST_FACTOR) + key.second & _WORD
    mixed = mixed ^ mixed >> 15
    # Lowbias32 would fold the upper half onto the lower one here: the lowest eight bits are not used.
    return _times(mixed, SECOND_FACTOR) >> 32 - RANDOM_BITS


def _times(words: Tensor, factor: int) -> Tensor:
    """Product modulo 2**32; in halves, because 64 bits with a sign do not hold it whole."""
    return (words * (factor & 0xFFFF) + (words * (factor >> 16) << 16 & _WORD)) & _WORD
