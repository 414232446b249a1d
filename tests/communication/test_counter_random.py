"""Random numbers against numpy's 32-bit arithmetic, and what independence promises of them."""

import numpy as np
import torch

from spokeshave.communication.counter_random import (
    FIRST_FACTOR,
    SECOND_FACTOR,
    StreamKey,
    random_numbers,
    stream_key,
)


def by_numpy(key: StreamKey, first: int, count: int) -> np.ndarray:
    with np.errstate(over="ignore"):
        mixed = np.arange(first, first + count).astype(np.uint32) ^ np.uint32(key.first)
        mixed ^= mixed >> np.uint32(16)
        mixed = mixed * np.uint32(FIRST_FACTOR) + np.uint32(key.second)
        mixed ^= mixed >> np.uint32(15)
        return (mixed * np.uint32(SECOND_FACTOR)) >> np.uint32(8)


def test_bits_are_those_of_32_bit_words() -> None:
    for key in (StreamKey(0, 0), StreamKey(0xFFFFFFFF, 0xFFFFFFFF), stream_key(1, 2, 3, 4)):
        for first in (0, 128, 2**32 - 1000):
            assert np.array_equal(random_numbers(key, 1000, first=first).numpy(), by_numpy(key, first, 1000))


def test_no_random_state_is_touched() -> None:
    before = torch.get_rng_state()
    random_numbers(stream_key(0, 0, 0, 0), 10)
    assert torch.equal(torch.get_rng_state(), before)


def test_numbers_are_uniform_and_streams_unrelated() -> None:
    count = 1 << 18
    streams = [
        random_numbers(stream_key(*name), count).double() / 2**24
        for name in ((0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1))
    ]
    for stream in streams:
        # 255 degrees of freedom: mean 255, standard deviation 22.6; 5 of them.
        shares = torch.histc(stream, 256, 0, 1)
        assert abs(float(((shares - count / 256) ** 2).sum() / (count / 256)) - 255) < 5 * 22.6
        low = torch.histc((stream * 2**24) % 256, 256, 0, 256)
        assert abs(float(((low - count / 256) ** 2).sum() / (count / 256)) - 255) < 5 * 22.6
        for lag in (1, 2, 8, 32, 128, 1024):
            assert abs(float(torch.corrcoef(torch.stack([stream[:-lag], stream[lag:]]))[0, 1])) < 5 / count**0.5
    correlations = torch.corrcoef(torch.stack(streams)) - torch.eye(len(streams))
    assert float(correlations.abs().max()) < 5 / count**0.5
