"""Ternary codec for GPUs: the kernels of `ternary_packing` in Triton, which comes with torch's CUDA builds.

TernGrad, Wen et al., NIPS 2017. The bits are those of the definition; no kernel makes the host wait. Checked in
Triton's interpreter on a CPU; not yet run on a GPU.
Nothing but `codec_for` imports this file: it needs triton.
"""

# A kernel is a language of its own in the form of Python, which a type checker takes for Python, and where triton is
# not installed, for a function:
# pyright: reportArgumentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false, reportIndexIssue=false

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from jaxtyping import Float32, UInt8
from torch import Tensor

from spokeshave.communication.counter_random import FIRST_FACTOR, SECOND_FACTOR, StreamKey
from spokeshave.communication.digit_packing import LANES, Packing
from spokeshave.communication.ternary_codes import draw_factors
from spokeshave.communication.ternary_packing import Place, TernaryCodec

_BLOCKS = 8
"""Blocks of a packing that one program works on."""


@triton.jit(do_not_specialize=["layer", "elements", "first", "key", "second_key"])  # they change with every step
def _encode(
    gradient, packed, factors, clips, layer, elements, first, key, second_key,
    FIRST: tl.constexpr, SECOND: tl.constexpr, LEVELS: tl.constexpr, DIGITS: tl.constexpr, BITS: tl.constexpr,
    RADIX: tl.constexpr, WORD_BITS: tl.constexpr, LANE_COUNT: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    block = tl.program_id(0).to(tl.int64) * BLOCKS + tl.arange(0, BLOCKS)[:, None]
    lane = tl.arange(0, LANE_COUNT)[None, :]
    factor, clip_at = tl.load(factors + layer), tl.load(clips + layer)
    total = tl.zeros([BLOCKS, LANE_COUNT], dtype=tl.int64)
    for digit in tl.static_range(DIGITS):
        place = block * DIGITS * LANE_COUNT + digit * LANE_COUNT + lane
        value = tl.load(gradient + place, mask=place < elements, other=0.0)
        mixed = (place + first).to(tl.uint32) ^ key.to(tl.uint32)
        mixed = mixed ^ (mixed >> 16)
        mixed = (mixed.to(tl.uint64) * FIRST + second_key).to(tl.uint32)
        mixed = mixed ^ (mixed >> 15)
        mixed = (mixed.to(tl.uint64) * SECOND).to(tl.uint32)
        drawn = (mixed >> 8).to(tl.int32).to(tl.float32)
        fires = drawn < tl.minimum(tl.abs(value), clip_at) * factor
        code = tl.where(fires, tl.where(value < 0, 0, 2), 1).to(tl.int64)
        if RADIX:
            total = total * LEVELS + code
        else:
            total = total + (code << (digit * BITS))
    if RADIX:
        whole = 1
        for _ in tl.static_range(DIGITS):
            whole = whole * LEVELS
        total = ((total << WORD_BITS) + whole - 1) // whole
    blocks = tl.cdiv(elements, DIGITS * LANE_COUNT)
    word = total.to(packed.dtype.element_ty)
    tl.store(packed + block * LANE_COUNT + lane, word, mask=block < blocks)


@triton.jit(do_not_specialize=["blocks"])
def _accumulate(
    packed, digits, blocks, LEVELS: tl.constexpr, DIGITS: tl.constexpr, WORDS: tl.constexpr, BITS: tl.constexpr,
    RADIX: tl.constexpr, WORD_BITS: tl.constexpr, LANE_COUNT: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    block = tl.program_id(0).to(tl.int64) * BLOCKS + tl.arange(0, BLOCKS)[:, None]
    lane = tl.arange(0, LANE_COUNT)[None, :]
    inside = (block < blocks) & (lane >= 0)
    mask: tl.constexpr = (1 << WORD_BITS) - 1
    fraction = tl.load(packed + block * WORDS * LANE_COUNT + lane, mask=inside, other=0).to(tl.int64) & mask
    for digit in tl.static_range(DIGITS):
        if RADIX:
            product = fraction * LEVELS
            found = product >> WORD_BITS
            fraction = product & mask
        else:
            word: tl.constexpr = digit * BITS // WORD_BITS
            shift: tl.constexpr = digit * BITS % WORD_BITS
            at = packed + (block * WORDS + word) * LANE_COUNT + lane
            found = (tl.load(at, mask=inside, other=0).to(tl.int64) & mask) >> shift
            if shift + BITS > WORD_BITS:
                above = tl.load(at + LANE_COUNT, mask=inside, other=0).to(tl.int64) & mask
                found = found | (above << (WORD_BITS - shift))
            found = found & ((1 << BITS) - 1)
        target = digits + (block * DIGITS + digit) * LANE_COUNT + lane
        so_far = tl.load(target, mask=inside, other=0)
        tl.store(target, so_far + found.to(tl.int32), mask=inside)


class TritonCodec(TernaryCodec):
    """A GPU's codec. Statistics and the packing of sums, a small share of the elements, are torch's."""

    def encode(
        self,
        gradients: Sequence[Tensor],
        scalers: Float32[Tensor, " layers"],
        clips: Float32[Tensor, " layers"],
        keys: Sequence[StreamKey],
        packing: Packing,
        places: Sequence[Place],
        packed: UInt8[Tensor, " bytes"],
    ) -> None:
        """As the definition."""
        factors, words = draw_factors(scalers), _words(packed, packing)
        for layer, (gradient, key, place) in enumerate(zip(gradients, keys, places, strict=True)):
            blocks = -(-place.elements // packing.block_digits)
            if not blocks:
                continue
            start = place.first_row // packing.digits * LANES
            _encode[(-(-blocks // _BLOCKS),)](
                gradient.view(-1), words[start:], factors, clips.contiguous(), layer, place.elements,
                place.first_element, key.first, key.second, FIRST_FACTOR, SECOND_FACTOR, packing.levels,
                packing.digits, packing.digit_bits, packing.radix, packing.word_bits, LANES, _BLOCKS,
            )  # fmt: skip

    def _added(self, streams: Sequence[Tensor], packing: Packing) -> Tensor:
        blocks = len(streams[0]) // packing.block_bytes
        digits = torch.zeros(blocks * packing.block_digits, dtype=torch.int32, device=streams[0].device)
        for stream in streams if blocks else ():
            _accumulate[(-(-blocks // _BLOCKS),)](
                _words(stream.contiguous(), packing), digits, blocks, packing.levels, packing.digits, packing.words,
                packing.digit_bits, packing.radix, packing.word_bits, LANES, _BLOCKS,
            )  # fmt: skip
        return digits


def _words(packed: Tensor, packing: Packing) -> Tensor:
    return packed.view({8: torch.uint8, 16: torch.int16, 32: torch.int32}[packing.word_bits])
