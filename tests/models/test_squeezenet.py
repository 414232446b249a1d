"""SqueezeNet 1.1: its number of parameters, with and without normalization, every size of image."""

import pytest
import torch
from torch import nn

from spokeshave.models import SqueezeNet


def test_parameters_are_those_of_its_repository() -> None:
    assert sum(parameter.numel() for parameter in SqueezeNet().parameters()) == 1_235_496
    normed = SqueezeNet(batch_norm=True)
    convolutions = [layer for layer in normed.modules() if isinstance(layer, nn.Conv2d)]
    assert len(convolutions) == 26 and sum(layer.bias is not None for layer in convolutions) == 1
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in normed.modules()) == 25


@pytest.mark.parametrize("size", [32, 64, 224])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_every_size_of_image(size: int, batch_norm: bool) -> None:
    with torch.no_grad():
        assert SqueezeNet(7, size, batch_norm=batch_norm).eval()(torch.rand(1, 3, size, size)).shape == (1, 7)
