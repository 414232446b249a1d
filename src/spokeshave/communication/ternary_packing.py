"""Ternary packing: gradients to packed codes, sums of codes, and back, each as one pass over memory.

TernGrad, Wen et al., NIPS 2017, algorithm 1: what a worker does to its gradients, what the server does to the workers'
codes, and what a worker makes of the sums. `GeneratedCodec` is machine code for this CPU, `TernaryCodec` the
definition in torch, on any device. Both give the same bits.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from jaxtyping import Float32, Float64, UInt8
from torch import Tensor

from spokeshave.communication.counter_random import MOST_ELEMENTS, StreamKey
from spokeshave.communication.digit_packing import LANES, Packing, pack_digits, unpack_digits
from spokeshave.communication.ternary_codes import draw_factors, statistics_of, ternarize
from spokeshave.communication.ternary_loops import (
    DECODE_FIELDS,
    ENCODE_FIELDS,
    decode_loops,
    encode_loops,
    reduce_loops,
    statistics_loops,
    tile_rows,
)
from spokeshave.errors import InvalidArgument, JitRefused
from spokeshave.jit.host_cpu import VectorSet, host_cpu
from spokeshave.optional import available


@dataclass(frozen=True)
class Place:
    """Where the digits of a layer, or of a part of one, lie in a stream.

    Attributes:
        first_row: number of its first row of 32 digits; a multiple of the rows of a block of codes.
        elements: how many there are.
        first_element: number of its first element in the layer, for the random numbers; a multiple of the digits of a
            block.
    """

    first_row: int
    elements: int
    first_element: int = 0


class TernaryCodec:
    """What a worker and a server do to gradients and codes; here the definition, in torch, on any device."""

    def statistics(
        self, gradients: Sequence[Float32[Tensor, "..."]], totals: bool = True
    ) -> Float64[Tensor, "layers 4"]:
        """What the scalers of some layers are made from: see `ternary_codes.statistics_of`.

        Args:
            gradients: contiguous.
            totals: False where the sums of g are not needed: they may then be anything.
        """
        found = [statistics_of(gradient.flatten()) for gradient in gradients]
        return torch.stack(found) if found else torch.zeros(0, 4, dtype=torch.float64)

    def encode(
        self,
        gradients: Sequence[Float32[Tensor, "..."]],
        scalers: Float32[Tensor, " layers"],
        clips: Float32[Tensor, " layers"],
        keys: Sequence[StreamKey],
        packing: Packing,
        places: Sequence[Place],
        packed: UInt8[Tensor, " bytes"],
    ) -> None:
        """Draw the codes of some layers and pack them into a stream, as digits code + 1.

        Args:
            gradients: contiguous.
            scalers: s, which the workers share or not.
            clips: this worker's own scalers, at which it clips; infinite for no clipping.
            keys: of the random numbers.
            packing: of the stream.
            places: of the layers in it.
            packed: the stream, written where a layer is.
        """
        for number, (gradient, key, place) in enumerate(zip(gradients, keys, places, strict=True)):
            codes = ternarize(gradient.flatten(), scalers[number], key, clips[number], place.first_element)
            digits = codes + 1
            filled = torch.nn.functional.pad(digits, (0, -len(digits) % packing.block_digits), value=1)
            start = place.first_row // packing.digits * packing.block_bytes
            written = pack_digits(filled, packing)
            packed[start : start + len(written)] = written

    def reduce(
        self, streams: Sequence[UInt8[Tensor, " bytes"]], codes: Packing, sums: Packing, packed: UInt8[Tensor, " sums"]
    ) -> None:
        """Add the digits of some workers' streams and pack the sums.

        Args:
            streams: one a worker, equally long, whole tiles (`tile_rows`) each.
            codes: packing of the streams.
            sums: packing of the result.
            packed: written whole.
        """
        packed.copy_(pack_digits(self._added(streams, codes).long(), sums))

    def decode(
        self,
        streams: Sequence[UInt8[Tensor, " bytes"]],
        packing: Packing,
        workers: int,
        factors: Float32[Tensor, " layers"],
        places: Sequence[Place],
        targets: Sequence[Float32[Tensor, "..."]],
        add: bool = False,
    ) -> None:
        """Write factor * (sum of the streams' digits - workers) to some layers' gradients.

        Args:
            streams: one with sums of the workers' digits, or one a worker.
            packing: of the streams.
            workers: whose digits are summed.
            factors: s / N.
            places: of the layers in the streams.
            targets: contiguous; written.
            add: to what is there instead.
        """
        sums = self._added(streams, packing) - workers
        for factor, place, target in zip(factors, places, targets, strict=True):
            start = place.first_row * LANES
            value = (sums[start : start + place.elements].float() * factor).view_as(target)
            target.copy_(target + value if add else value)

    def _added(self, streams: Sequence[UInt8[Tensor, " bytes"]], packing: Packing) -> Tensor:
        return torch.stack([unpack_digits(stream, packing) for stream in streams]).sum(0)


class GeneratedCodec(TernaryCodec):
    """Machine code for this CPU.

    Args:
        vectors: instructions to use; the widest that there are by default.

    Raises:
        InvalidArgument: where this CPU lacks them, or no code can be generated for it.
    """

    def __init__(self, vectors: VectorSet | None = None) -> None:
        chosen = vectors or host_cpu().widest()
        if chosen is None:
            raise InvalidArgument(f"no code can be generated for this CPU ({host_cpu().name}); use TernaryCodec")
        host_cpu().require(chosen)
        self._vectors = chosen

    def statistics(self, gradients: Sequence[Tensor], totals: bool = True) -> Float64[Tensor, "layers 4"]:
        """As the definition."""
        rows = np.array([(_address(one), one.numel()) for one in gradients], np.int64).reshape(-1, 2)
        found = np.empty((len(rows), 3))
        statistics_loops(totals, self._vectors).function(rows.ctypes.data, len(rows), found.ctypes.data)
        return torch.from_numpy(np.concatenate([rows[:, 1:].astype(np.float64), found], axis=1))

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
        rows = np.empty((len(gradients), len(ENCODE_FIELDS)), np.int64)
        start = _address(packed)
        for row, gradient, key, place in zip(rows, gradients, keys, places, strict=True):
            _check(gradient, place)
            begin = place.first_row // packing.digits * packing.block_bytes
            _inside(packed, begin + -(-place.elements // packing.block_digits) * packing.block_bytes)
            row[:5] = _address(gradient), place.elements, start + begin, key.first, key.second
            row[7] = place.first_element
        rows[:, 5], rows[:, 6] = _bits(draw_factors(scalers)), _bits(clips)
        encode_loops(packing, self._vectors).function(rows.ctypes.data, len(rows))

    def reduce(self, streams: Sequence[Tensor], codes: Packing, sums: Packing, packed: UInt8[Tensor, " sums"]) -> None:
        """As the definition."""
        rows = tile_rows(codes, sums)
        bytes_of_a_tile = rows // codes.digits * codes.block_bytes
        tiles, left = divmod(len(streams[0]), bytes_of_a_tile)
        if left or len({len(stream) for stream in streams}) > 1:
            raise InvalidArgument(
                f"expected streams of whole tiles of {bytes_of_a_tile} bytes, all as long, got "
                f"{[len(stream) for stream in streams]}"
            )
        _inside(packed, tiles * rows // sums.digits * sums.block_bytes)
        addresses = np.array([_address(stream) for stream in streams], np.int64)
        operation = reduce_loops(codes, sums, len(streams), self._vectors)
        operation.function(addresses.ctypes.data, tiles, _address(packed))

    def decode(
        self,
        streams: Sequence[Tensor],
        packing: Packing,
        workers: int,
        factors: Float32[Tensor, " layers"],
        places: Sequence[Place],
        targets: Sequence[Tensor],
        add: bool = False,
    ) -> None:
        """As the definition."""
        rows = np.empty((len(targets), len(DECODE_FIELDS)), np.int64)
        for row, target, place in zip(rows, targets, places, strict=True):
            _check(target, place)
            last_row = place.first_row + -(-place.elements // LANES)
            for stream in streams:
                _inside(stream, -(-last_row // packing.digits) * packing.block_bytes)
            row[:3] = _address(target), place.elements, place.first_row
        rows[:, 3] = _bits(factors)
        addresses = np.array([_address(stream) for stream in streams], np.int64)
        operation = decode_loops(packing, 2 * workers, add, self._vectors)
        operation.function(rows.ctypes.data, len(rows), addresses.ctypes.data, len(streams), workers)


@cache
def codec_for(device: str) -> TernaryCodec:
    """The fastest codec of a device.

    Args:
        device: its type, as in "cpu".
    """
    if device == "cpu" and host_cpu().widest():
        with suppress(JitRefused):
            codec = GeneratedCodec()
            codec.statistics([torch.zeros(1)])
            return codec
    if device == "cuda" and available("triton"):
        from spokeshave.communication.ternary_triton import TritonCodec

        return TritonCodec()
    return TernaryCodec()


def _bits(values: Tensor) -> np.ndarray:
    return values.numpy().view(np.int32)


def _address(tensor: Tensor) -> int:
    if not tensor.is_contiguous() or tensor.device.type != "cpu":
        raise InvalidArgument(
            f"expected contiguous tensors on the CPU, got {tuple(tensor.shape)} with strides {tensor.stride()} on "
            f"{tensor.device}; call contiguous() first"
        )
    return tensor.data_ptr()


def _check(tensor: Tensor, place: Place) -> None:
    if (
        tensor.numel() != place.elements
        or tensor.dtype != torch.float32
        or place.first_element + place.elements > MOST_ELEMENTS
    ):
        raise InvalidArgument(
            f"expected {place.elements} float32 elements (at most {MOST_ELEMENTS}), got {tensor.numel()} of "
            f"{tensor.dtype}"
        )


def _inside(stream: Tensor, end: int) -> None:
    if end > len(stream):
        raise InvalidArgument(f"expected a stream of at least {end} bytes, got {len(stream)}")
