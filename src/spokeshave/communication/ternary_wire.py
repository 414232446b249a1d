"""Ternary wire: how the workers' packed codes become the mean gradient on every worker, the same bits on each.

TernGrad, Wen et al., NIPS 2017, algorithm 1. ALLGATHER: every worker gets all codes and adds them. ALLTOALL: every
worker is the paper's parameter server for a share of the elements: it gets that share's codes, adds them as integers,
and hands the sums, packed, to all; nothing is lost after the codes were drawn. LANES: an all-reduce of words whose
lanes hold codes, with room for the sums.
What is large travels in pieces, so that one is encoded while another is on its way. All collectives are started in an
order that depends on sizes alone, as backends that match them by their order need.
"""

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cache

import torch
from jaxtyping import Float32
from torch import Tensor, distributed

from spokeshave.communication.counter_random import StreamKey
from spokeshave.communication.digit_packing import (
    LANES,
    Pack,
    Packing,
    code_packing,
    lane_packing,
    packed_bytes,
    sum_packing,
)
from spokeshave.communication.ternary_channel import Channel
from spokeshave.communication.ternary_codes import decode_factors
from spokeshave.communication.ternary_loops import tile_rows
from spokeshave.communication.ternary_packing import Place, TernaryCodec

PIECE = 1 << 21
"""Elements of a piece at the most: half a megabyte of codes."""


class Wire(Enum):
    """How codes travel; AUTO is ALLGATHER for one or two workers and ALLTOALL from three on."""

    AUTO = "auto"
    ALLGATHER = "allgather"
    ALLTOALL = "alltoall"
    LANES = "lanes"

    def chosen(self, workers: int) -> "Wire":
        """What AUTO stands for."""
        if self is not Wire.AUTO:
            return self
        return Wire.ALLGATHER if workers <= 2 else Wire.ALLTOALL


@dataclass(frozen=True)
class Segment:
    """A layer in a piece, or a part of it: which layer, and where its digits lie."""

    layer: int
    place: Place


@dataclass(frozen=True)
class Piece:
    """Segments that travel together, in so many rows of digits."""

    segments: tuple[Segment, ...]
    rows: int

    @property
    def places(self) -> list[Place]:
        """Of the segments."""
        return [segment.place for segment in self.segments]

    def parts(self, layers: Sequence[Tensor]) -> list[Tensor]:
        """The segments' elements."""
        starts = [(layers[one.layer], one.place.first_element, one.place.elements) for one in self.segments]
        return [layer[first : first + count] for layer, first, count in starts]

    def of(self, values: Tensor) -> Tensor:
        """The segments' values of one a layer."""
        # Not by a list of numbers: to index by one, a GPU has to be waited for.
        return torch.stack([values[segment.layer] for segment in self.segments]) if self.segments else values[:0]


@cache
def cut_pieces(sizes: tuple[int, ...], packing: Packing, most: int = PIECE) -> tuple[Piece, ...]:
    """Cut layers into pieces of nearly equal size.

    Args:
        sizes: elements of each layer.
        packing: of the codes; every segment begins with a block of its own.
        most: elements of a piece.

    Example:
        >>> [piece.rows for piece in cut_pieces((1000, 3000), code_packing(Pack.TWO_BIT), most=2048)]
        [64, 64]
    """
    total = sum(sizes)
    count = max(1, -(-total // most))
    size = -(-total // count)
    size += -size % packing.block_digits
    pieces: list[Piece] = []
    segments: list[Segment] = []
    rows, left = 0, size
    for layer, elements in enumerate(sizes):
        first = 0
        while first < elements:
            taken = min(elements - first, left)
            if taken < elements - first:
                taken -= taken % packing.block_digits  # what follows in the layer begins with a block
            if taken:
                segments.append(Segment(layer, Place(rows, taken, first)))
                rows += -(-taken // packing.block_digits) * packing.digits
                first, left = first + taken, left - taken
            if left < packing.block_digits:
                pieces.append(Piece(tuple(segments), rows))
                segments, rows, left = [], 0, size
    if segments or not pieces:
        pieces.append(Piece(tuple(segments), rows))
    return tuple(pieces)


@dataclass(frozen=True)
class Bucket:
    """What a worker brings to an exchange; gradients and floats are overwritten with the workers' means.

    Residuals and zeros are written where they are asked for.

    Attributes:
        gradients: of the layers that become codes, flat.
        keys: of their random numbers.
        scalers: shared by the workers, or this one's own.
        clips: this worker's own scalers, at which it clips; infinite for no clipping.
        floats: gradients that travel as they are, flat.
        residuals: what the codes leave out, one a gradient; empty where nobody wants to know.
        zeros: number of zero codes by layer; empty likewise.
    """

    gradients: Sequence[Float32[Tensor, " elements"]]
    keys: Sequence[StreamKey]
    scalers: Float32[Tensor, " layers"]
    clips: Float32[Tensor, " layers"]
    floats: Float32[Tensor, " floats"]
    residuals: Sequence[Float32[Tensor, " elements"]] = ()
    zeros: list[int] = field(default_factory=list)


_Rounds = Generator[distributed.Work, None, None]
"""An exchange of a piece: what it waits for, one round after the other."""


class TernaryExchange:
    """Exchanges buckets of gradients.

    Args:
        channel: to the other workers.
        codec: of the gradients' device.
        pack: of the codes.
        wire: how they travel.
        share_scaler: False where each worker has scalers of its own, which takes ALLGATHER.
    """

    def __init__(self, channel: Channel, codec: TernaryCodec, pack: Pack, wire: Wire, share_scaler: bool) -> None:
        self._channel, self.codec, self._share_scaler = channel, codec, share_scaler
        self._wire = wire.chosen(channel.workers)
        lanes = self._wire is Wire.LANES
        self.codes = lane_packing(channel.workers) if lanes else code_packing(pack)
        self._sums = sum_packing(pack, channel.workers)

    def run(self, bucket: Bucket) -> None:
        """Replace gradients and floats by the workers' means.

        Args:
            bucket: of this worker; the others' have the same sizes.
        """
        sizes = tuple(gradient.numel() for gradient in bucket.gradients)
        rounds = {Wire.ALLGATHER: self._all_gather, Wire.ALLTOALL: self._all_to_all, Wire.LANES: self._lanes}
        if self._channel.workers == 1:
            rounds = dict.fromkeys(Wire, self._alone)
        begun: list[tuple[_Rounds, distributed.Work | None]] = []
        for number, piece in enumerate(cut_pieces(sizes, self.codes, PIECE)):
            exchange = rounds[self._wire](bucket, piece, bucket.floats if number == 0 else bucket.floats[:0])
            begun.append((exchange, next(exchange, None)))
        while begun:
            again = []
            for exchange, work in begun:
                if work is not None:
                    work.wait()
                    again.append((exchange, next(exchange, None)))
            begun = again

    def _encode(self, bucket: Bucket, piece: Piece, rows: int) -> Tensor:
        """A stream of the piece's codes, filled up to so many rows with codes of nobody."""
        device = bucket.scalers.device
        packed = torch.empty(packed_bytes(self.codes, rows * LANES), dtype=torch.uint8, device=device)
        packed[packed_bytes(self.codes, piece.rows * LANES) :] = 0
        keys = [bucket.keys[segment.layer] for segment in piece.segments]
        self.codec.encode(
            piece.parts(bucket.gradients), piece.of(bucket.scalers), piece.of(bucket.clips), keys,
            self.codes, piece.places, packed,
        )  # fmt: skip
        if bucket.residuals or bucket.zeros:
            self._look_back(bucket, piece, packed)
        return packed

    def _look_back(self, bucket: Bucket, piece: Piece, packed: Tensor) -> None:
        """What this worker's own codes say."""
        gradients = piece.parts(bucket.gradients)
        targets = piece.parts(bucket.residuals) if bucket.residuals else [torch.empty_like(one) for one in gradients]
        self.codec.decode([packed], self.codes, 1, piece.of(bucket.scalers), piece.places, targets)
        for segment, gradient, target in zip(piece.segments, gradients, targets, strict=True):
            if bucket.zeros:
                bucket.zeros[segment.layer] += int((target == 0).sum())
            if bucket.residuals:
                # A gradient that was not finite is not remembered for ever.
                torch.sub(gradient, target, out=target).nan_to_num_(0.0, 0.0, 0.0)

    def _decode(
        self, bucket: Bucket, piece: Piece, streams: Sequence[Tensor], packing: Packing, scalers: Tensor
    ) -> None:
        factors = decode_factors(piece.of(scalers), self._channel.workers)
        targets = piece.parts(bucket.gradients)
        self.codec.decode(streams, packing, self._channel.workers, factors, piece.places, targets)

    def _alone(self, bucket: Bucket, piece: Piece, floats: Tensor) -> _Rounds:
        self._decode(bucket, piece, [self._encode(bucket, piece, piece.rows)], self.codes, bucket.scalers)
        return
        yield  # a generator of no round

    def _all_gather(self, bucket: Bucket, piece: Piece, floats: Tensor) -> _Rounds:
        packed, workers = self._encode(bucket, piece, piece.rows), self._channel.workers
        own = piece.of(bucket.scalers) if not self._share_scaler else floats[:0]
        payload = torch.cat([packed, _octets(own), _octets(floats)])
        gathered = payload.new_empty(workers, len(payload))
        yield self._channel.all_gather(gathered, payload)
        streams = [theirs[: len(packed)] for theirs in gathered]
        if self._share_scaler:
            self._decode(bucket, piece, streams, self.codes, bucket.scalers)
        else:
            scalers = gathered[:, len(packed) : len(packed) + own.nbytes].contiguous().view(torch.float32)
            targets = piece.parts(bucket.gradients)
            for rank, stream in enumerate(streams):
                factors = decode_factors(scalers[rank], workers)
                self.codec.decode([stream], self.codes, 1, factors, piece.places, targets, add=rank > 0)
        if floats.numel():
            floats.copy_(_mean(gathered[:, len(packed) + own.nbytes :].contiguous().view(torch.float32)))

    def _all_to_all(self, bucket: Bucket, piece: Piece, floats: Tensor) -> _Rounds:
        workers = self._channel.workers
        tile = tile_rows(self.codes, self._sums)
        share = math.ceil(piece.rows / (workers * tile)) * tile
        code_bytes, sum_bytes = (packed_bytes(packing, share * LANES) for packing in (self.codes, self._sums))
        each = -(-floats.numel() // workers)
        padded = torch.nn.functional.pad(floats, (0, workers * each - floats.numel()))
        sent = torch.cat(
            [self._encode(bucket, piece, workers * share).view(workers, -1), _octets(padded).view(workers, -1)], dim=1
        )
        received = torch.empty_like(sent)
        yield self._channel.all_to_all(received, sent)
        # What the server does: its share of the sums, which are exact.
        payload = sent.new_empty(sum_bytes + 4 * each)
        theirs = [stream[:code_bytes] for stream in received]
        self.codec.reduce(theirs, self.codes, self._sums, payload[:sum_bytes])
        if each:
            payload[sum_bytes:] = _octets(_mean(received[:, code_bytes:].contiguous().view(torch.float32)))
        gathered = payload.new_empty(workers, len(payload))
        yield self._channel.all_gather(gathered, payload)
        self._decode(bucket, piece, [gathered[:, :sum_bytes].flatten()], self._sums, bucket.scalers)
        if each:
            means = gathered[:, sum_bytes:].contiguous().view(torch.float32)
            floats.copy_(means.flatten()[: floats.numel()])

    def _lanes(self, bucket: Bucket, piece: Piece, floats: Tensor) -> _Rounds:
        packed = self._encode(bucket, piece, piece.rows)
        words = packed.view(torch.int32) if self.codes.word_bits == 32 else packed
        if words.numel():
            yield self._channel.all_reduce(words)
            self._decode(bucket, piece, [packed], self.codes, bucket.scalers)
        if floats.numel():
            yield self._channel.all_reduce(floats)
            floats /= self._channel.workers


def _octets(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(torch.uint8)


def _mean(theirs: Float32[Tensor, "workers floats"]) -> Float32[Tensor, " floats"]:
    """Added one after the other: everywhere the same bits, whatever the number of threads."""
    total = theirs[0].clone()
    for row in theirs[1:]:
        total += row
    return total / len(theirs)
