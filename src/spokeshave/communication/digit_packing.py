"""Digit packing: small integers as they travel, several in a word; ternary codes and the sums of several of them.

TernGrad, Wen et al., NIPS 2017: a code of three levels needs log2(3) bits, a sum over N workers log2(2N+1). Here a code
takes 2 bits, or 1.6 (five digits of base 3 in a byte); a sum whole bits, or digits of base 2N+1 in words.
The functions are the definition; what runs on CPUs by default is generated: ternary_packing.
"""

import math
from dataclasses import dataclass
from enum import Enum
from functools import cache

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from spokeshave.errors import InvalidArgument

LANES = 32
"""Words that lie side by side. Digits of one row, so many of them, go to the same place of as many words, so that any
vector width up to 32 words packs them without moving one past another; no machine's own width is in the format."""
MOST_WORKERS = 32767
"""Sums of more do not fit the 16-bit digits of the generated code."""


class Pack(Enum):
    """How ternary codes travel: TWO_BIT takes 2 bits a gradient, BASE3 1.6 and a little more work."""

    TWO_BIT = "two-bit"
    BASE3 = "base3"


@dataclass(frozen=True)
class Packing:
    """How digits become words.

    Attributes:
        levels: digits are 0..levels-1.
        word_bits: 8, 16 or 32.
        words: words of a block, for each lane.
        digits: digits of a block, for each lane: its rows.
        radix: words hold numbers of base `levels` as fractions of 2**word_bits; else each digit has bits of its own.
    """

    levels: int
    word_bits: int
    words: int
    digits: int
    radix: bool

    @property
    def digit_bits(self) -> int:
        """Bits that hold a digit alone."""
        return (self.levels - 1).bit_length()

    @property
    def bits(self) -> float:
        """Bits that a digit takes on the wire."""
        return self.word_bits * self.words / self.digits

    @property
    def block_bytes(self) -> int:
        """Bytes of a block."""
        return LANES * self.words * self.word_bits // 8

    @property
    def block_digits(self) -> int:
        """Digits of a block."""
        return LANES * self.digits


def whole_bits(levels: int) -> Packing:
    """Digits side by side, each in as many bits as it needs; one may lie across two words.

    Args:
        levels: 2..65536.

    Example:
        >>> [(whole_bits(levels).words, whole_bits(levels).digits) for levels in (3, 7, 9, 17)]
        [(1, 4), (3, 8), (1, 2), (5, 8)]
    """
    bits = (levels - 1).bit_length()
    word_bits = 8 if bits <= 8 else 16
    common = math.gcd(bits, word_bits)
    return Packing(levels, word_bits, bits // common, word_bits // common, radix=False)


def radix_words(levels: int) -> Packing:
    """Digits of base `levels`, in the words that waste least; whole bits where those are as short.

    Args:
        levels: 2..65536.

    Example:
        >>> [(radix_words(levels).word_bits, radix_words(levels).digits) for levels in (3, 9, 17)]
        [(8, 5), (16, 5), (32, 7)]
    """
    found = whole_bits(levels)
    for word_bits in (8, 16, 32):
        digits = int(min(word_bits, 31) * math.log(2) / math.log(levels) + 1e-9)  # 31: the fraction fits 63 bits
        if digits and word_bits / digits < found.bits:
            found = Packing(levels, word_bits, 1, digits, radix=True)
    return found


def code_packing(pack: Pack) -> Packing:
    """How one worker's ternary codes travel, as digits code + 1."""
    return whole_bits(3) if pack is Pack.TWO_BIT else radix_words(3)


@cache
def sum_packing(pack: Pack, workers: int) -> Packing:
    """How sums of the workers' digits travel back: 0..2N for N workers.

    Args:
        pack: of the codes: whole bits for TWO_BIT, the shortest for BASE3.
        workers: N, 1..32767.

    Raises:
        InvalidArgument: for more.

    Example:
        >>> [round(sum_packing(Pack.BASE3, workers).bits, 2) for workers in (2, 4, 8)]
        [2.46, 3.2, 4.57]
    """
    if not 1 <= workers <= MOST_WORKERS:
        raise InvalidArgument(f"expected 1..{MOST_WORKERS} workers, got {workers}")
    levels = 2 * workers + 1
    return whole_bits(levels) if pack is Pack.TWO_BIT else radix_words(levels)


def lane_packing(workers: int) -> Packing:
    """Digits in lanes of words that may be added as integers: no sum over the workers carries into the next lane.

    Args:
        workers: N, 1..32767.

    Example:
        >>> [(lane_packing(workers).word_bits, lane_packing(workers).digits) for workers in (2, 7, 8, 64)]
        [(32, 10), (8, 2), (32, 6), (8, 1)]
    """
    bits = (2 * workers).bit_length()
    # All-reduces add int32 everywhere, and bytes where these lose nothing.
    word_bits = 8 if 8 // bits * 4 >= 32 // bits and bits <= 8 else 32
    return Packing(2 * workers + 1, word_bits, 1, word_bits // bits, radix=False)


def packed_bytes(packing: Packing, digits: int) -> int:
    """Bytes of so many digits, the last block filled up."""
    return -(-digits // packing.block_digits) * packing.block_bytes


def pack_digits(digits: Int64[Tensor, " digits"], packing: Packing) -> UInt8[Tensor, " bytes"]:
    """Pack digits; the last block is filled up with zeros.

    Args:
        digits: 0..levels-1.
        packing: how.

    Returns:
        the words, little-endian.

    Example:
        >>> pack_digits(torch.tensor([2] * 32 + [1] * 32), code_packing(Pack.TWO_BIT))[:2].tolist()
        [6, 6]
    """
    short = -len(digits) % packing.block_digits
    rows = torch.nn.functional.pad(digits, (0, short)).view(-1, packing.digits, LANES)
    if packing.radix:
        value = rows[:, 0]
        for row in range(1, packing.digits):
            value = value * packing.levels + rows[:, row]
        whole = packing.levels**packing.digits
        # The fraction rounded up: multiplying by the base then brings digit after digit over the point.
        words = ((value << packing.word_bits) + whole - 1).div(whole, rounding_mode="floor")[:, None]
    else:
        words = rows.new_zeros(len(rows), packing.words, LANES)
        for row in range(packing.digits):
            word, shift = divmod(row * packing.digit_bits, packing.word_bits)
            shifted = rows[:, row] << shift
            words[:, word] |= shifted & ((1 << packing.word_bits) - 1)
            if shifted.numel() and shift + packing.digit_bits > packing.word_bits:
                words[:, word + 1] |= shifted >> packing.word_bits
    octets = [(words >> (8 * octet)) & 255 for octet in range(packing.word_bits // 8)]
    return torch.stack(octets, dim=-1).to(torch.uint8).flatten()


def unpack_digits(packed: UInt8[Tensor, " bytes"], packing: Packing) -> Int64[Tensor, " digits"]:
    """Unpack whole blocks: what `pack_digits` packed, and the zeros behind it.

    Args:
        packed: bytes of whole blocks.
        packing: how they were packed.

    Raises:
        InvalidArgument: for a part of a block.

    Example:
        >>> unpack_digits(pack_digits(torch.tensor([2, 0, 1]), code_packing(Pack.BASE3)), code_packing(Pack.BASE3))[:4]
        tensor([2, 0, 1, 0])
    """
    if len(packed) % packing.block_bytes:
        raise InvalidArgument(f"expected blocks of {packing.block_bytes} bytes, got {len(packed)} bytes")
    octets = packed.view(-1, packing.words, LANES, packing.word_bits // 8).long()
    words = sum(octets[..., octet] << (8 * octet) for octet in range(packing.word_bits // 8))
    assert isinstance(words, Tensor)
    rows, mask = [], (1 << packing.word_bits) - 1
    if packing.radix:
        fraction = words[:, 0]
        for _ in range(packing.digits):
            product = fraction * packing.levels
            rows.append(product >> packing.word_bits)
            fraction = product & mask
    else:
        for row in range(packing.digits):
            word, shift = divmod(row * packing.digit_bits, packing.word_bits)
            digit = words[:, word] >> shift
            if shift + packing.digit_bits > packing.word_bits:
                digit = digit | words[:, word + 1] << (packing.word_bits - shift)
            rows.append(digit & ((1 << packing.digit_bits) - 1))
    return torch.stack(rows, dim=1).flatten()
