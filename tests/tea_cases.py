"""Small networks of Tea layers for tests that only need some: few axons, two layers, one of them with idle neurons."""

import torch

from spokeshave.targets.truenorth.tea_benches import Signs, block_sources, strided_votes, tea_layer
from spokeshave.targets.truenorth.tea_network import TeaNetwork


def small_tea(seed: int = 5, neurons: int = 5) -> TeaNetwork:
    """36 pixels, four cores of 16 axons, then two of 8 that take the first four neurons of each; two classes.

    Axon 7 of the last cores gets nothing, so that neuron 3 of cores 1 and 3 sends nowhere, as all fifth neurons do.
    """
    generator = torch.Generator().manual_seed(seed)
    sources = torch.tensor(
        [[core * neurons + place for core in pair for place in range(4)] for pair in ((0, 1), (2, 3))]
    )
    sources[:, 7] = -1
    layers = [
        tea_layer(4, neurons, Signs.SPREAD, generator, axons=16),
        tea_layer(2, 6, Signs.PARITY, generator, axons=8),
    ]
    network = TeaNetwork(
        36, [block_sources(6, 6, 2, block=4), sources], layers, strided_votes(2, 6, classes=2), classes=2
    )
    return network.eval()


def one_core_tea() -> TeaNetwork:
    """Four pixels, one core of four axons and two neurons: as small as it gets."""
    layer = tea_layer(1, 2, Signs.PARITY, torch.Generator().manual_seed(1), axons=4)
    return TeaNetwork(4, [torch.arange(4)[None]], [layer], torch.tensor([[0, 1]])).eval()
