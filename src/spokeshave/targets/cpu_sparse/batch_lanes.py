"""Batch lanes: images side by side in the lanes of a vector, and the way there and back.

A pixel of `lanes` images is one vector: [group of images, channel, row, column, lane]. Every load is aligned, any
stride and padding costs nothing. Both ways are transpositions of lanes x lanes blocks in registers.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from llvmlite import ir

from spokeshave.jit.generated_operation import generated
from spokeshave.jit.host_cpu import VectorSet
from spokeshave.jit.native_loops import F32, I32, I64, POINTER, Loops
from spokeshave.jit.operation_loops import OperationLoops


def _transpose(loops: Loops, rows: list[ir.Value]) -> list[ir.Value]:
    """lanes x lanes transposition by log2(lanes) rounds of interleaving."""
    lanes, build = loops.vectors.lanes, loops.builder
    low = ir.Constant(ir.VectorType(I32, lanes), [n // 2 + (n % 2) * lanes for n in range(lanes)])
    high = ir.Constant(ir.VectorType(I32, lanes), [lanes // 2 + n // 2 + (n % 2) * lanes for n in range(lanes)])
    span = lanes
    while span > 1:
        half = lanes // 2
        rows = [build.shuffle_vector(rows[n], rows[n + half], mask) for n in range(half) for mask in (low, high)]
        span //= 2
    return rows


@generated
def packer(vectors: VectorSet) -> OperationLoops:
    """Operation that moves channels of some images into batch lanes; its items are channels.

    Fields: images_at (table of the address of each lane's channel 0), image_plane (bytes from a channel to the next),
    pixels (of a channel, at least `lanes`), lanes_at, lanes_plane, places_at (int64 table: byte offset of each pixel in
    such a plane).
    """
    loops = OperationLoops("pack", vectors, _FIELDS)
    with _blocks(loops) as block:
        rows = [loops.load(image) for image in block.images]
        for pixel, place in zip(_transpose(loops, rows), block.pixels, strict=True):
            loops.store(pixel, place, vectors.bytes)
    return loops


@generated
def unpacker(vectors: VectorSet) -> OperationLoops:
    """The way back, with the same fields; lanes without an image point to memory that nobody reads."""
    loops = OperationLoops("unpack", vectors, _FIELDS)
    with _blocks(loops) as block:
        rows = [loops.load(place, align=vectors.bytes) for place in block.pixels]
        for image, row in zip(block.images, _transpose(loops, rows), strict=True):
            loops.store(row, image)
    return loops


@generated
def few_pixels(vectors: VectorSet, pack: bool) -> OperationLoops:
    """Either way for channels of fewer pixels than lanes, number by number; the same fields."""
    loops = OperationLoops("few_pixels", vectors, _FIELDS)
    given = loops.arguments
    images = [loops.load(loops.at(given["images_at"], 8 * lane), POINTER, 8) for lane in range(vectors.lanes)]
    with loops.items() as channel, loops.loop(0, given["pixels"]) as pixel:
        far = loops.times(channel, given["image_plane"])
        place = loops.load(loops.at(given["places_at"], loops.times(pixel, 8)), I64, 8)
        vector = loops.at(given["lanes_at"], loops.times(channel, given["lanes_plane"]), place)
        for lane, image in enumerate(images):
            ends = loops.at(image, far, loops.times(pixel, 4)), loops.at(vector, 4 * lane)
            source, target = ends if pack else ends[::-1]
            loops.store(loops.load(source, F32), target)
    return loops


_FIELDS = ("images_at", "image_plane", "pixels", "lanes_at", "lanes_plane", "places_at")


@dataclass(frozen=True)
class _Block:
    """Addresses of a square of lanes x lanes numbers: of its row in each image, and of its pixels in the lanes."""

    images: list[ir.Value]
    pixels: list[ir.Value]


@contextmanager
def _blocks(loops: OperationLoops) -> Iterator[_Block]:
    """Go over all channels, and over the pixels of each in runs of as many as there are lanes."""
    lanes, build, given = loops.vectors.lanes, loops.builder, loops.arguments
    chunks = build.sdiv(build.add(given["pixels"], I64(lanes - 1)), I64(lanes))
    last = build.sub(given["pixels"], I64(lanes))
    images = [loops.load(loops.at(given["images_at"], 8 * lane), POINTER, 8) for lane in range(lanes)]
    with loops.items() as channel:
        far = loops.times(channel, given["image_plane"])
        plane = loops.at(given["lanes_at"], loops.times(channel, given["lanes_plane"]))
        with loops.loop(0, chunks) as chunk:
            wanted = loops.times(chunk, lanes)
            first = build.select(build.icmp_signed("<", wanted, last), wanted, last)  # the last run may overlap
            table = loops.at(given["places_at"], loops.times(first, 8))
            yield _Block(
                [loops.at(image, far, loops.times(first, 4)) for image in images],
                [loops.at(plane, loops.load(loops.at(table, 8 * pixel), I64, 8)) for pixel in range(lanes)],
            )
