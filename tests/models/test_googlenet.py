"""GoogLeNet: Caffe's number of weights, sizes of maps, every size of image."""

import pytest
import torch
from torch import nn

from spokeshave.models import GoogLeNet


def test_weights_are_caffes() -> None:
    network = GoogLeNet()
    convolutions = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    assert len(convolutions) == 57
    # BVLC GoogLeNet without side classifiers: 6,998,552 with biases, of which there are 7,280 + 1000.
    weights = sum(layer.weight.numel() for layer in convolutions) + network.fc.weight.numel()
    assert weights == 6_998_552 - 7_280 - 1_000
    assert sum(layer.out_channels for layer in convolutions) == 7_280


def test_maps_are_those_of_the_papers_table() -> None:
    network, sides = GoogLeNet().eval(), []
    for layer in network.stages:
        layer.register_forward_hook(lambda _m, _i, output: sides.append(tuple(output.shape[1:3])))
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 224, 224)).shape == (1, 1000)
    assert sides[0] == (192, 28) and sides[1:3] == [(256, 28), (480, 28)]
    assert sides[4:9] == [(512, 14), (512, 14), (512, 14), (528, 14), (832, 14)] and sides[-1] == (1024, 7)


@pytest.mark.parametrize("size", [32, 64])
def test_small_images(size: int) -> None:
    with torch.no_grad():
        assert GoogLeNet(7, size).eval()(torch.rand(1, 3, size, size)).shape == (1, 7)
