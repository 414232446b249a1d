"""Test benches of the paper: how images and layers are cut into cores.

Wen et al., DAC 2016, Table 1: 16 x 16 blocks (256 axons) at a stride give 4, 16 or 49 cores on MNIST (28 x 28) and 4 or
16 on RS130 (19 x 19); further layers take windows of the layer before: 49~9~4 and 16~9 cores.
Departs from the paper: how many neurons a core has, their weights and their votes are not published; options here.
"""

from collections.abc import Sequence
from enum import Enum
from itertools import permutations

import torch
from jaxtyping import Int
from torch import Tensor

from spokeshave.errors import InvalidArgument
from spokeshave.targets.truenorth.core_grid import NOWHERE
from spokeshave.targets.truenorth.tea_layer import TeaLayer
from spokeshave.targets.truenorth.tea_network import TeaNetwork

AXONS = NEURONS = 256


class Signs(Enum):
    """Weights of neurons by axon type, and which axon has which type."""

    PARITY = "parity"
    """+1, -1 by turns along the axons, for all neurons: RANC's."""
    PERMUTED = "permuted"
    """Types by turns along the axons; every ten neurons have another order of (-2, -1, 1, 2): like pytruenorth's."""
    SPREAD = "spread"
    """Types by turns along both sides of a block, so that any 2 x 2 axons have all four; a neuron has two of +1 and two
    of -1, every ten neurons in another order."""


def block_sources(
    height: int, width: int, stride: int, block: int = 16, channels: int = 1
) -> Int[Tensor, "cores axons"]:
    """Pixels of every block of an image, row by row.

    Args:
        height: of the image.
        width: of the image.
        stride: between blocks.
        block: side of a block.
        channels: of the image; each has blocks of its own.

    Raises:
        InvalidArgument: the stride leaves pixels at the border out, or the image is smaller than a block.

    Example:
        >>> block_sources(28, 28, 12).shape, block_sources(28, 28, 2).shape, block_sources(19, 19, 1).shape
        (torch.Size([4, 256]), torch.Size([49, 256]), torch.Size([16, 256]))
    """
    if min(height, width) < block or stride < 1 or (height - block) % stride or (width - block) % stride:
        raise InvalidArgument(
            f"blocks of {block} x {block} at stride {stride} do not cover an image of {height} x {width} exactly"
        )
    pixels = torch.arange(channels * height * width).view(channels, height, width)
    blocks = pixels.unfold(1, block, stride).unfold(2, block, stride)
    return blocks.flatten(3).flatten(0, 2)


def window_sources(
    rows: int, columns: int, window: int, stride: int, neurons: int, axons: int = AXONS
) -> Int[Tensor, "cores axons"]:
    """What cores get that each look at a window of the layer before; every neuron is used once.

    A core sends different neurons to each window that it is in: its first ones to the window that comes first.

    Args:
        rows: of cores of the layer before.
        columns: likewise.
        window: side of a window, cores.
        stride: between windows.
        neurons: of a core of the layer before.
        axons: of a core; shared evenly by the cores of a window, the rest gets nothing.

    Raises:
        InvalidArgument: windows do not cover the layer, or a core has too few neurons.

    Example:
        >>> window_sources(7, 7, window=3, stride=2, neurons=112).shape, window_sources(3, 3, 2, 1, 256).shape
        (torch.Size([9, 256]), torch.Size([4, 256]))
    """
    if (rows - window) % stride or (columns - window) % stride or min(rows, columns) < window:
        raise InvalidArgument(f"windows of {window} at stride {stride} do not cover {rows} x {columns} cores")
    cores = torch.arange(rows * columns).view(1, rows, columns)
    windows = cores.unfold(1, window, stride).unfold(2, window, stride).flatten(3).flatten(0, 2)
    each = axons // window**2
    found = torch.full((len(windows), axons), NOWHERE)
    used = [0] * (rows * columns)
    for number, sending in enumerate(windows.tolist()):
        for place, core in enumerate(sending):
            if used[core] + each > neurons:
                raise InvalidArgument(
                    f"core {core} has {neurons} neurons, fewer than {each} for each window that it is in"
                )
            first = core * neurons + used[core]
            found[number, place * each : (place + 1) * each] = torch.arange(first, first + each)
            used[core] += each
    return found


def tea_layer(
    cores: int, neurons: int, signs: Signs = Signs.SPREAD, generator: torch.Generator | None = None, axons: int = AXONS
) -> TeaLayer:
    """Cores whose neurons have the weights of a pattern.

    Args:
        cores: how many.
        neurons: of each, at most 256.
        signs: pattern of types and weights.
        generator: of the first probabilities.
        axons: of each core.

    Raises:
        InvalidArgument: more neurons than a core has.
    """
    if not 1 <= neurons <= NEURONS:
        raise InvalidArgument(f"neurons: a core has 1..{NEURONS}, got {neurons}")
    place = torch.arange(axons)
    if signs is Signs.PARITY:
        types, orders = place % 2, [(1, -1, 1, -1)]
    elif signs is Signs.PERMUTED:
        types, orders = place % 4, list(permutations((-2, -1, 1, 2)))
    else:
        side = int(axons**0.5)
        types, orders = place % 2 + 2 * (place // side % 2), sorted(set(permutations((1, 1, -1, -1))))
    weights = torch.tensor(orders, dtype=torch.int32)[torch.arange(neurons) // 10 % len(orders)]
    return TeaLayer(types.expand(cores, -1).clone(), weights.expand(cores, -1, -1).clone(), generator)


def strided_votes(cores: int, neurons: int, classes: int = 10) -> Int[Tensor, "cores neurons"]:
    """Neuron n of a core votes for class n mod `classes`; those of an incomplete last round for none.

    Example:
        >>> strided_votes(1, 5, 2).tolist()
        [[0, 1, 0, 1, -1]]
    """
    number = torch.arange(neurons)
    votes = torch.where(number < neurons // classes * classes, number % classes, NOWHERE)
    return votes.expand(cores, -1).clone()


def mnist_bench_1(
    neurons: int = 250, signs: Signs = Signs.SPREAD, seed: int | None = None, replicas: int = 1
) -> TeaNetwork:
    """Test bench 1: MNIST in blocks at stride 12, four cores.

    Args:
        neurons: of a core.
        signs: weights of the neurons.
        seed: of the first probabilities; None for torch's generator.
        replicas: so many cores for each block; unlike copies, each learns connections of its own. The image comes to
            each with spikes of its own.
    """
    return _blocks(28, 12, neurons, signs, seed, replicas, classes=10)


def mnist_bench_2(
    neurons: int = 250, signs: Signs = Signs.SPREAD, seed: int | None = None, replicas: int = 1
) -> TeaNetwork:
    """Test bench 2: MNIST in blocks at stride 4, sixteen cores; see `mnist_bench_1`."""
    return _blocks(28, 4, neurons, signs, seed, replicas, classes=10)


def mnist_bench_3(
    neurons: int = 250, signs: Signs = Signs.SPREAD, seed: int | None = None, replicas: int = 1
) -> TeaNetwork:
    """Test bench 3: MNIST in blocks at stride 2, 49 cores, then 9, then 4; see `mnist_bench_1`."""
    windows = [
        window_sources(7, 7, window=3, stride=2, neurons=112),
        window_sources(3, 3, window=2, stride=1, neurons=NEURONS),
    ]
    sizes = ((49, 112), (9, NEURONS), (4, neurons))
    return _made([block_sources(28, 28, 2), *windows], sizes, signs, seed, replicas, pixels=784, classes=10)


def rs130_bench_4(
    neurons: int = 255, signs: Signs = Signs.SPREAD, seed: int | None = None, replicas: int = 1
) -> TeaNetwork:
    """Test bench 4: RS130 in blocks at stride 3, four cores; see `mnist_bench_1`."""
    return _blocks(19, 3, neurons, signs, seed, replicas, classes=3)


def rs130_bench_5(
    neurons: int = 255, signs: Signs = Signs.SPREAD, seed: int | None = None, replicas: int = 1
) -> TeaNetwork:
    """Test bench 5: RS130 in blocks at stride 1, sixteen cores, then nine; see `mnist_bench_1`."""
    sources = [block_sources(19, 19, 1), window_sources(4, 4, window=2, stride=1, neurons=NEURONS)]
    return _made(sources, ((16, NEURONS), (9, neurons)), signs, seed, replicas, pixels=361, classes=3)


def _blocks(
    side: int, stride: int, neurons: int, signs: Signs, seed: int | None, replicas: int, classes: int
) -> TeaNetwork:
    sources = block_sources(side, side, stride)
    return _made([sources], ((len(sources), neurons),), signs, seed, replicas, side**2, classes)


def _made(
    sources: Sequence[Tensor], sizes: Sequence[tuple[int, int]], signs: Signs, seed: int | None, replicas: int,
    pixels: int, classes: int,
) -> TeaNetwork:  # fmt: skip
    if replicas < 1:
        raise InvalidArgument(f"replicas: expected at least 1, got {replicas}")
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    layers = [tea_layer(replicas * cores, count, signs, generator) for cores, count in sizes]
    before = [pixels, *(cores * count for cores, count in sizes)]
    wired = [
        torch.cat([torch.where(source == NOWHERE, NOWHERE, source + number * count) for number in range(replicas)])
        for source, count in zip(sources, before, strict=False)
    ]
    votes = strided_votes(len(layers[-1].probability), sizes[-1][1], classes)
    return TeaNetwork(pixels, wired, layers, votes, classes, streams=replicas)
