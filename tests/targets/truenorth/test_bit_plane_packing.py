"""Planes: there and back, counted, drawn."""

import numpy as np
import pytest

from spokeshave.jit.host_cpu import VectorSet, host_cpu
from spokeshave.targets.truenorth.bit_plane_packing import aligned_copy, counted, from_planes, random_planes, to_planes

SETS = [one for one in VectorSet if host_cpu().supports(one)]


@pytest.mark.parametrize("octets", [16, 32, 64])
@pytest.mark.parametrize("shape", [(1, 1, 1), (130, 3, 17), (600, 2, 8), (2, 0, 3), (2, 3, 0)])
def test_there_and_back(octets: int, shape: tuple[int, int, int]) -> None:
    spikes = np.random.default_rng(0).random(shape) < 0.4
    planes = to_planes(spikes, octets)
    images, ticks, lines = shape
    assert planes.shape == (-(-images // (8 * octets)), ticks, lines, octets) and (
        planes.ctypes.data % 64 == 0 or not planes.size
    )
    for image, tick, line in (
        () if not spikes.size else ((0, 0, 0), (images - 1, ticks - 1, lines - 1), (images // 2, 0, lines // 2))
    ):
        block, inside = divmod(image, 8 * octets)
        assert planes[block, tick, line, inside // 8] >> inside % 8 & 1 == spikes[image, tick, line]
    assert np.array_equal(from_planes(planes, images), spikes)


@pytest.mark.parametrize("lines", [1, 2, 5, 16, 100])
def test_planes_are_counted_image_by_image(lines: int) -> None:
    spikes = np.random.default_rng(1).random((256, 3, lines)) < 0.6
    got = counted(to_planes(spikes, 32))
    assert got.shape == (1, 3, 256) and np.array_equal(got[0].T, spikes.sum(2))


@pytest.mark.parametrize("vectors", SETS)
def test_draws_are_as_likely_as_their_chances(vectors: VectorSet) -> None:
    """Every chance in 256ths; the exact ones exactly, others within five standard deviations."""
    chances = np.tile(np.arange(257), (1000, 1))
    planes = random_planes(chances, 3, 4, vectors, 1, np.random.default_rng(2))
    spikes = from_planes(planes, 1000).reshape(1000, 3, 4, 257)
    found = spikes.mean((0, 1, 2))
    assert found[0] == 0 and found[256] == 1
    assert np.abs(found - np.arange(257) / 256).max() < 5 * (0.25 / 12000) ** 0.5
    # Draws of other ticks, repeats, lines and images have nothing to do with each other.
    half = spikes[:, :, :, 100:157] - chances[:, None, None, 100:157] / 256
    neighbours = [(half[:, 0], half[:, 1]), (half[:, :, 0], half[:, :, 1]), (half[..., :-1], half[..., 1:])]
    for one, other in (*neighbours, (half[:-1], half[1:])):
        assert abs((one * other).mean()) < 5 * 0.25 / one.size**0.5


def test_the_seed_tells_the_draws_however_many_threads_share_them() -> None:
    chances = np.random.default_rng(3).integers(0, 257, (700, 20))
    first, same, other = (
        random_planes(chances, 2, 1, SETS[0], threads, np.random.default_rng(seed))
        for threads, seed in ((1, 4), (3, 4), (1, 5))
    )
    assert np.array_equal(first, same) and not np.array_equal(first, other)


def test_a_copy_begins_with_a_cache_line() -> None:
    planes = np.zeros(200, np.uint8)[7:39].reshape(1, 1, 1, 32)
    assert aligned_copy(planes).ctypes.data % 64 == 0
