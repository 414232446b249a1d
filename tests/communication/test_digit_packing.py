"""Packing against Python's own integers, and its sizes against the arithmetic of the wire."""

import math

import pytest
import torch

from spokeshave.communication.digit_packing import (
    LANES,
    Pack,
    Packing,
    code_packing,
    lane_packing,
    pack_digits,
    packed_bytes,
    radix_words,
    sum_packing,
    unpack_digits,
    whole_bits,
)
from spokeshave.errors import InvalidArgument

WORKERS = (1, 2, 3, 4, 5, 7, 8, 15, 16, 31, 64, 127, 128, 300, 32767)
PACKINGS = {
    *(code_packing(pack) for pack in Pack),
    *(sum_packing(pack, workers) for pack in Pack for workers in WORKERS),
    *(lane_packing(workers) for workers in WORKERS if workers < 32767),
}


def by_integers(digits: list[int], packing: Packing) -> bytes:
    """A lane at a time: its digits as one long number, cut into words."""
    block, out = [[0] * packing.words for _ in range(LANES)], b""
    for start in range(0, len(digits), packing.block_digits):
        for lane in range(LANES):
            own = [digits[start + row * LANES + lane] for row in range(packing.digits)]
            if packing.radix:
                value = 0
                for digit in own:
                    value = value * packing.levels + digit
                whole = -(-value * 2**packing.word_bits // packing.levels**packing.digits)
            else:
                whole = sum(digit << (row * packing.digit_bits) for row, digit in enumerate(own))
            mask = (1 << packing.word_bits) - 1
            block[lane] = [whole >> (word * packing.word_bits) & mask for word in range(packing.words)]
        for word in range(packing.words):
            out += b"".join(block[lane][word].to_bytes(packing.word_bits // 8, "little") for lane in range(LANES))
    return out


@pytest.mark.parametrize("packing", sorted(PACKINGS, key=str), ids=str)
def test_digits_come_back_and_bytes_are_those_of_integers(packing: Packing) -> None:
    generator = torch.Generator().manual_seed(3)
    for count in (0, 1, 3 * packing.block_digits - 7):
        digits = torch.randint(0, packing.levels, (count,), generator=generator)
        digits[: count // 2] = packing.levels - 1
        packed = pack_digits(digits, packing)
        filled = digits.tolist() + [0] * (-count % packing.block_digits)
        assert packed.numpy().tobytes() == by_integers(filled, packing)
        assert len(packed) == packed_bytes(packing, count)
        assert unpack_digits(packed, packing).tolist() == filled


def test_bits_are_those_of_the_paper_and_never_below_the_information() -> None:
    assert code_packing(Pack.TWO_BIT).bits == 2 and code_packing(Pack.BASE3).bits == pytest.approx(1.6)
    for workers in WORKERS:
        levels = 2 * workers + 1
        assert sum_packing(Pack.TWO_BIT, workers).bits == math.ceil(math.log2(levels))
        assert math.log2(levels) <= sum_packing(Pack.BASE3, workers).bits <= math.ceil(math.log2(levels))
        assert radix_words(levels).bits <= whole_bits(levels).bits


def test_lanes_can_be_added_as_integers() -> None:
    for workers in (2, 3, 7, 8, 31, 127, 128):
        packing = lane_packing(workers)
        digits = torch.full((packing.block_digits,), 2)  # the largest, on every worker
        kind = {8: torch.uint8, 32: torch.int32}[packing.word_bits]
        words = sum(pack_digits(digits, packing).view(kind) for _ in range(workers))
        assert isinstance(words, torch.Tensor)
        assert set(unpack_digits(words.view(torch.uint8), packing).tolist()) == {2 * workers}


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="32767"):
        sum_packing(Pack.TWO_BIT, 32768)
    with pytest.raises(InvalidArgument, match="blocks of 32 bytes, got 31"):
        unpack_digits(torch.zeros(31, dtype=torch.uint8), code_packing(Pack.TWO_BIT))
