"""Geometry of the paper's test benches: cores a layer, pixels of blocks, one destination a neuron."""

from collections.abc import Callable

import pytest
import torch

from spokeshave.errors import InvalidArgument
from spokeshave.targets.truenorth import tea_benches
from spokeshave.targets.truenorth.tea_benches import Signs, block_sources, tea_layer, window_sources
from spokeshave.targets.truenorth.tea_network import TeaNetwork


@pytest.mark.parametrize(
    ("bench", "cores", "pixels", "classes"),
    [
        (tea_benches.mnist_bench_1, (4,), 784, 10),
        (tea_benches.mnist_bench_2, (16,), 784, 10),
        (tea_benches.mnist_bench_3, (49, 9, 4), 784, 10),
        (tea_benches.rs130_bench_4, (4,), 361, 3),
        (tea_benches.rs130_bench_5, (16, 9), 361, 3),
    ],
)
def test_cores_of_every_bench(
    bench: Callable[[], TeaNetwork], cores: tuple[int, ...], pixels: int, classes: int
) -> None:
    network = bench()
    assert tuple(len(layer.probability) for layer in network.tea_layers) == cores
    assert (network.pixels, network.classes) == (pixels, classes)
    assert network(torch.rand(2, pixels)).shape == (2, classes)
    for layer in network.tea_layers:
        assert layer.probability.shape[2] == 256 and layer.probability.shape[1] <= 256


def test_replicas_are_networks_side_by_side() -> None:
    """Each with connections of its own; the scores are their mean."""
    both, images = tea_benches.mnist_bench_3(30, replicas=2), torch.rand(3, 784)
    alone = []
    for number in range(2):
        one = tea_benches.mnist_bench_3(30)
        for mine, theirs in zip(one.tea_layers, both.tea_layers, strict=True):
            mine.probability.data = theirs.probability.data.chunk(2)[number].clone()
        alone.append(one(images))
    assert both.cores == 124 and torch.allclose(both(images), (alone[0] + alone[1]) / 2, atol=1e-4)
    with pytest.raises(InvalidArgument, match="replicas: expected at least 1, got 0"):
        tea_benches.mnist_bench_1(replicas=0)


def test_blocks_are_windows_of_the_image() -> None:
    pixels = torch.arange(28 * 28).view(28, 28)
    blocks = block_sources(28, 28, 12)
    for number, (y, x) in enumerate([(0, 0), (0, 12), (12, 0), (12, 12)]):
        assert torch.equal(blocks[number], pixels[y : y + 16, x : x + 16].flatten())
    assert block_sources(28, 28, 12, channels=3).shape == (12, 256)
    with pytest.raises(InvalidArgument, match="do not cover an image of 28 x 28"):
        block_sources(28, 28, 5)


@pytest.mark.parametrize(("rows", "window", "stride", "neurons"), [(7, 3, 2, 112), (3, 2, 1, 256), (4, 2, 1, 256)])
def test_windows_use_every_neuron_once_and_cores_of_their_window_only(
    rows: int, window: int, stride: int, neurons: int
) -> None:
    sources = window_sources(rows, rows, window, stride, neurons)
    used = sources[sources >= 0]
    assert used.unique().numel() == used.numel()
    side = (rows - window) // stride + 1
    for number, source in enumerate(sources):
        top, left = number // side * stride, number % side * stride
        inside = {r * rows + c for r in range(top, top + window) for c in range(left, left + window)}
        assert set((source[source >= 0] // neurons).tolist()) == inside
        assert (source >= 0).sum() == 256 // window**2 * window**2


def test_too_few_neurons_for_all_windows_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="core 4 has 255 neurons, fewer than 64 for each window"):
        window_sources(3, 3, 2, 1, 255)


@pytest.mark.parametrize("signs", Signs)
def test_patterns_of_signs_are_balanced(signs: Signs) -> None:
    layer = tea_layer(2, 240, signs)
    assert layer.synapse_weights.sum(2).abs().max() == 0
    if signs is Signs.SPREAD:
        types = layer.get_buffer("axon_types")[0].view(16, 16)
        patches = types.unfold(0, 2, 1).unfold(1, 2, 1).flatten(2).sort(2).values
        assert (patches == torch.arange(4)).all()


def test_a_core_has_at_most_256_neurons() -> None:
    with pytest.raises(InvalidArgument, match=r"1\.\.256, got 257"):
        tea_benches.mnist_bench_1(257)
