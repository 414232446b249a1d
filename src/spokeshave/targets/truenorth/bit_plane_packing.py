"""Bit-plane packing: images to bits of registers and back, random spikes, and votes that are counted as planes.

A plane has one bit for each of `8 * octets` images, a block of them; see `bit_plane_loops`.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np

from spokeshave.jit.host_cpu import VectorSet
from spokeshave.targets.truenorth.bit_plane_loops import CHANCE_BITS, random_loops


def blocks_of(images: int, octets: int) -> int:
    """Blocks that hold so many images."""
    return -(-images // (8 * octets))


def to_planes(spikes: np.ndarray, octets: int) -> np.ndarray:
    """Spikes to planes.

    Args:
        spikes: bool [images, ticks, lines].
        octets: bytes of a plane.

    Returns:
        uint8 [blocks, ticks, lines, octets]; bit k of octet j is image 8j + k of the block.
    """
    images, ticks, lines = spikes.shape
    blocks = blocks_of(images, octets)
    packed = np.packbits(spikes, axis=2, bitorder="little")
    room = np.zeros((blocks * octets, 8, ticks, packed.shape[2]), np.uint8)
    room.reshape(blocks * octets * 8, *packed.shape[1:])[:images] = packed
    turned = _turn(np.moveaxis(room, 1, 3))  # [octets of images, ticks, octets of lines, 8 lines]
    turned = turned.reshape(blocks, octets, ticks, 8 * packed.shape[2])[..., :lines]
    planes = aligned(blocks, ticks, lines, octets)
    planes[...] = np.moveaxis(turned, 1, 3)
    return planes


def from_planes(planes: np.ndarray, images: int) -> np.ndarray:
    """Planes to spikes, bool [images, ticks, lines].

    Args:
        planes: from `to_planes`.
        images: how many there are; what the last block has beyond is left out.
    """
    blocks, ticks, lines, octets = planes.shape
    room = np.zeros((blocks, octets, ticks, -(-lines // 8) * 8), np.uint8)
    room[..., :lines] = np.moveaxis(planes, 3, 1)
    turned = _turn(room.reshape(blocks * octets, ticks, room.shape[3] // 8, 8))
    packed = np.moveaxis(turned, 3, 1).reshape(blocks * octets * 8, ticks, room.shape[3] // 8)[:images]
    return np.unpackbits(packed, axis=2, count=lines, bitorder="little").view(bool)


def _turn(octets: np.ndarray) -> np.ndarray:
    """Transpose 8 x 8 bits along the last axis: bit b of octet a becomes bit a of octet b (Hacker's Delight, 7-3)."""
    words = np.ascontiguousarray(octets).view("<u8")
    for shift, mask in ((7, 0x00AA00AA00AA00AA), (14, 0x0000CCCC0000CCCC), (28, 0x00000000F0F0F0F0)):
        swapped = (words ^ words >> np.uint64(shift)) & np.uint64(mask)
        words = words ^ swapped ^ swapped << np.uint64(shift)
    return words.view(np.uint8)


def aligned(*shape: int) -> np.ndarray:
    """Memory that begins with a cache line, uint8 of this shape."""
    size = int(np.prod(shape))
    memory = np.empty(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].reshape(shape)


def aligned_copy(planes: np.ndarray) -> np.ndarray:
    """A copy that begins with a cache line."""
    made = aligned(*planes.shape)
    made[...] = planes
    return made


def random_planes(
    chances: np.ndarray, ticks: int, repeats: int, vectors: VectorSet, threads: int, random: np.random.Generator
) -> np.ndarray:
    """Spikes by chance: uint8 [blocks, ticks, repeats * lines, octets], each drawn by itself.

    Args:
        chances: int [images, lines], in 256ths: 0 never spikes, 256 always.
        ticks: draws in time.
        repeats: draws in space, the lines of one after those of the other.
        vectors: set of instructions.
        threads: that may share the work.
        random: of the seeds: one state of the generator (xoshiro256++; Blackman, Vigna 2021) for each block and lane.
    """
    octets, lines = vectors.bytes, chances.shape[1]
    bits = (chances[:, None, :] >> np.arange(CHANCE_BITS)[:, None]) & 1 == 1
    planes = to_planes(bits, octets)  # [blocks, bits, lines, octets]
    blocks = len(planes)
    seeds = random.integers(0, 1 << 64, (blocks, 4 * octets // 8), np.uint64)
    states = aligned(blocks, 4, octets)
    states[...] = seeds.view(np.uint8).reshape(states.shape)
    out, draw = aligned(blocks, ticks, repeats * lines, octets), random_loops(vectors).function

    def work(first: int) -> None:
        for block in range(first, blocks, threads):
            draw(planes[block].ctypes.data, lines, states[block].ctypes.data, out[block].ctypes.data, ticks * repeats)

    in_threads(work, threads)
    return out


def counted(planes: np.ndarray) -> np.ndarray:
    """How many of some planes have each image: [..., lines, octets] -> int32 [..., images].

    A tree of bit-wise full adders: numbers are lists of planes, two of which make one that is a plane longer.
    """
    words = np.moveaxis(planes, -2, 0)
    numbers: list[list[np.ndarray]] = [[word.view(np.uint64)] for word in np.ascontiguousarray(words)]
    while len(numbers) > 1:
        pairs = zip(numbers[::2], numbers[1::2], strict=False)
        rest = numbers[-1:] if len(numbers) % 2 else []
        numbers = [_added(a, b) for a, b in pairs] + rest
    total = np.zeros((*planes.shape[:-2], 8 * planes.shape[-1]), np.int32)
    for bit, plane in enumerate(numbers[0]):
        total += np.unpackbits(plane.view(np.uint8), axis=-1, bitorder="little").astype(np.int32) << bit
    return total


def _added(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> list[np.ndarray]:
    if len(a) < len(b):
        a, b = b, a
    total, carry = [], None
    for number, x in enumerate(a):
        y = b[number] if number < len(b) else None
        given = [plane for plane in (x, y, carry) if plane is not None]
        if len(given) == 3:
            either = given[0] ^ given[1]
            total.append(either ^ given[2])
            carry = (given[0] & given[1]) | (either & given[2])
        elif len(given) == 2:
            total.append(given[0] ^ given[1])
            carry = given[0] & given[1]
        else:
            total.append(x)
    return total if carry is None else [*total, carry]


def in_threads(work: Callable[[int], None], threads: int) -> None:
    """Call `work` with each number below `threads`, side by side."""
    if threads == 1:
        work(0)
    else:
        list(_pool(threads).map(work, range(threads)))


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="bit-planes")


# The threads of a pool are not there in a forked process.
os.register_at_fork(after_in_child=_pool.cache_clear)
