"""ResNet-(6n+2): layers, parameters, shortcuts."""

import pytest
import torch
from torch import nn

from spokeshave.errors import InvalidArgument
from spokeshave.models import ResNetCifar


@pytest.mark.parametrize(("depth", "convolutions"), [(8, 7), (20, 19), (32, 31)])
def test_depth_counts_convolutions_beside_two_projections(depth, convolutions):
    net = ResNetCifar(depth)
    kernels = [m.kernel_size for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert kernels.count((3, 3)) == convolutions and kernels.count((1, 1)) == 2
    assert net.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


def test_parameters_of_resnet20_by_hand():
    convolutions = 3 * 16 * 9 + 16 + 6 * 16 * 16 * 9 + 16 * 32 * 9 + 5 * 32 * 32 * 9 + 32 * 64 * 9 + 5 * 64 * 64 * 9
    rest = 16 * 32 + 32 * 64 + 2 * (7 * 16 + 6 * 32 + 6 * 64) + 64 * 10 + 10
    assert sum(p.numel() for p in ResNetCifar(20).parameters()) == convolutions + rest


def test_a_zero_branch_leaves_the_shortcut():
    net = ResNetCifar(8).eval()
    block = net.group1[0]
    nn.init.zeros_(block.conv2.weight)
    x = torch.rand(1, 16, 4, 4)
    assert torch.allclose(block(x), x)


@pytest.mark.parametrize("depth", [2, 18, 21])
def test_other_depths_are_refused(depth):
    with pytest.raises(InvalidArgument, match="6n"):
        ResNetCifar(depth)
