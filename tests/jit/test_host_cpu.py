import pytest

from spokeshave.errors import InvalidArgument
from spokeshave.jit.host_cpu import HostCpu, VectorSet, host_cpu


def cpu(*features: str) -> HostCpu:
    return HostCpu("made-up", "x86_64-unknown-linux-gnu", frozenset(features))


def test_widest_set_is_the_one_whose_features_are_all_there() -> None:
    assert cpu("sse4.1").widest() is VectorSet.SSE
    assert cpu("sse4.1", "avx2", "fma").widest() is VectorSet.AVX2
    assert cpu("sse4.1", "avx2", "fma", "avx512f").widest() is VectorSet.AVX2, "AVX-512 needs its companions too"
    assert cpu().widest() is None


LADDER = [VectorSet.AVX512, VectorSet.AVX2, VectorSet.SSE]


@pytest.mark.parametrize("place", range(3))
def test_without_any_one_of_its_features_a_set_gives_way_to_a_narrower_one(place: int) -> None:
    features = {name for vectors in LADDER[place:] for name in vectors.value.features}
    assert cpu(*features).widest() is LADDER[place]
    for missing in LADDER[place].value.features:
        assert cpu(*features - {missing}).widest() in (*LADDER[place + 1 :], None)


def test_without_fused_multiply_add_only_sse_is_left() -> None:
    features = {name for vectors in LADDER for name in vectors.value.features}
    assert cpu(*features - {"fma"}).widest() is VectorSet.SSE


@pytest.mark.parametrize(
    ("triple", "listed", "found"),
    [
        ("aarch64-unknown-linux-gnu", ["neon", "fp-armv8"], VectorSet.NEON),
        ("aarch64-unknown-linux-gnu", [], VectorSet.NEON),  # part of the architecture, whatever the system lists
        ("arm64-apple-darwin23.1.0", [], VectorSet.NEON),
        ("aarch64_be-unknown-linux-gnu", ["neon"], None),
        ("armv7l-unknown-linux-gnueabihf", ["neon"], None),
    ],
)
def test_neon_is_that_of_64_bit_arm(triple: str, listed: list[str], found: VectorSet | None) -> None:
    assert HostCpu("made-up", triple, frozenset(listed)).as_architecture().widest() is found


def test_a_set_that_is_missing_is_refused_with_what_is_missing() -> None:
    with pytest.raises(InvalidArgument, match="AVX2 needs avx2, which this CPU .made-up. lacks"):
        cpu("fma").require(VectorSet.AVX2)
    cpu("avx2", "fma").require(VectorSet.AVX2)


def test_lanes_and_bytes_agree() -> None:
    assert {(v.lanes, v.bytes, v.registers) for v in VectorSet} == {(16, 64, 32), (8, 32, 16), (4, 16, 16), (4, 16, 32)}


def test_this_machine_has_vectors() -> None:
    assert host_cpu().widest() is not None
    assert host_cpu().name
