"""Generated code against the definition, bit for bit, for every packing and every set of instructions of this CPU."""

import pytest
import torch

from spokeshave.communication.counter_random import stream_key
from spokeshave.communication.digit_packing import (
    LANES,
    Pack,
    Packing,
    code_packing,
    lane_packing,
    pack_digits,
    packed_bytes,
    sum_packing,
)
from spokeshave.communication.ternary_codes import decode_factors, local_scalers
from spokeshave.communication.ternary_loops import tile_rows
from spokeshave.communication.ternary_packing import GeneratedCodec, Place, TernaryCodec, codec_for
from spokeshave.errors import InvalidArgument
from spokeshave.jit.host_cpu import VectorSet, host_cpu

SETS = [vectors for vectors in VectorSet if host_cpu().supports(vectors)]
PLAIN = TernaryCodec()
SIZES = (1, 7, 128, 160, 1000, 4097, 0)


def layers() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    found = [torch.randn(size, generator=generator) for size in SIZES]
    found[3][:80] = 0.0
    found[4][::2] *= -0.0
    return found


def places(packing: Packing) -> list[Place]:
    found, row = [], 0
    for size in SIZES:
        found.append(Place(row, size, 7 * packing.block_digits))
        row += -(-size // packing.block_digits) * packing.digits
    return found


def encoded(codec: TernaryCodec, packing: Packing) -> torch.Tensor:
    gradients, where = layers(), places(packing)
    own = local_scalers(PLAIN.statistics(gradients), 2.5)
    keys = [stream_key(0, 1, 3, number) for number in range(len(SIZES))]
    packed = torch.zeros(where[-1].first_row // packing.digits * packing.block_bytes, dtype=torch.uint8)
    codec.encode(gradients, own * 1.2, own, keys, packing, where, packed)
    return packed


def decoded(codec: TernaryCodec, packing: Packing, packed: torch.Tensor, workers: int) -> list[torch.Tensor]:
    targets, factors = layers(), decode_factors(torch.linspace(0.1, 3, len(SIZES)), 3)
    codec.decode([packed], packing, workers, factors, places(packing), targets)
    codec.decode([packed], packing, workers, factors, places(packing), targets, add=True)
    return targets


@pytest.mark.parametrize("vectors", SETS, ids=lambda vectors: vectors.name)
def test_gradients_become_the_same_codes_and_come_back_the_same(vectors: VectorSet) -> None:
    codec = GeneratedCodec(vectors)
    assert torch.allclose(codec.statistics(layers()), PLAIN.statistics(layers()), rtol=1e-12, atol=0)
    assert torch.equal(codec.statistics(layers(), totals=False)[:, [0, 1, 3]], codec.statistics(layers())[:, [0, 1, 3]])
    for packing in (code_packing(Pack.TWO_BIT), code_packing(Pack.BASE3), lane_packing(2), lane_packing(4)):
        packed = encoded(codec, packing)
        assert torch.equal(packed, encoded(PLAIN, packing)), packing
        for one, other in zip(decoded(codec, packing, packed, 1), decoded(PLAIN, packing, packed, 1), strict=True):
            assert torch.equal(one, other), packing


@pytest.mark.parametrize("vectors", SETS, ids=lambda vectors: vectors.name)
@pytest.mark.parametrize("pack", Pack)
def test_sums_are_the_same_however_many_workers(vectors: VectorSet, pack: Pack) -> None:
    codec, generator = GeneratedCodec(vectors), torch.Generator().manual_seed(2)
    for workers in (1, 2, 3, 8, 128):
        codes, sums = code_packing(pack), sum_packing(pack, workers)
        rows = 2 * tile_rows(codes, sums)
        digits = torch.randint(0, 3, (workers, rows * LANES), generator=generator)
        digits[:, :32] = 2
        streams = [pack_digits(one, codes) for one in digits]
        packed = torch.zeros(packed_bytes(sums, rows * LANES), dtype=torch.uint8)
        codec.reduce(streams, codes, sums, packed)
        assert torch.equal(packed, pack_digits(digits.sum(0), sums)), workers
        found, directly = torch.empty(rows * LANES - 5), torch.empty(rows * LANES - 5)
        place, factor = [Place(0, len(found))], torch.tensor([0.37])
        codec.decode([packed], sums, workers, factor, place, [found])
        codec.decode(streams, codes, workers, factor, place, [directly])
        assert torch.equal(found, ((digits.sum(0) - workers).float() * factor)[: len(found)]), workers
        assert torch.equal(found, directly)


@pytest.mark.parametrize("vectors", SETS, ids=lambda vectors: vectors.name)
def test_large_layers_are_written_past_the_caches_wherever_they_begin(vectors: VectorSet) -> None:
    codec, packing, size = GeneratedCodec(vectors), code_packing(Pack.TWO_BIT), (1 << 19) + 5
    digits = torch.randint(0, 3, (size,), generator=torch.Generator().manual_seed(4))
    packed, wanted = pack_digits(digits, packing), (digits - 1).float()
    for start in (0, 3):
        memory = torch.full((size + 40,), 7.0)
        start += -(memory.data_ptr() // 4) % 16  # from the beginning of a line, and from within one
        codec.decode([packed], packing, 1, torch.ones(1), [Place(0, size)], [memory[start : start + size]])
        assert torch.equal(memory[start : start + size], wanted)
        assert bool((memory[:start] == 7).all()) and bool((memory[start + size :] == 7).all())


def test_statistics_tell_what_is_not_finite() -> None:
    for poison in (float("nan"), float("inf")):
        for place in (0, 5, 40, 99):
            gradient = torch.ones(100)
            gradient[place] = poison
            assert float(local_scalers(codec_for("cpu").statistics([gradient]), None)[0]) == float("inf")


def test_memory_that_does_not_fit_is_refused() -> None:
    codec, packing, short = GeneratedCodec(), code_packing(Pack.TWO_BIT), torch.zeros(31, dtype=torch.uint8)
    one, key = torch.ones(1), [stream_key(0, 0, 0, 0)]
    with pytest.raises(InvalidArgument, match="at least 32 bytes, got 31"):
        codec.encode([one], one, one, key, packing, [Place(0, 1)], short)
    with pytest.raises(InvalidArgument, match="at least 32 bytes, got 31"):
        codec.decode([short], packing, 1, one, [Place(0, 1)], [one])
    with pytest.raises(InvalidArgument, match="expected 2 float32 elements"):
        codec.encode([one], one, one, key, packing, [Place(0, 2)], torch.zeros(32, dtype=torch.uint8))
    with pytest.raises(InvalidArgument, match="contiguous"):
        codec.statistics([torch.ones(4, 4).T])
    with pytest.raises(InvalidArgument, match="whole tiles"):
        codec.reduce([short, short], packing, sum_packing(Pack.TWO_BIT, 2), short)


def test_other_devices_get_the_definition() -> None:
    assert isinstance(codec_for("cpu"), GeneratedCodec)
    assert type(codec_for("meta")) is TernaryCodec
