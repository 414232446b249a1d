"""AlexNet: Caffe's geometry, parameters and order of pooling and normalization."""

import pytest
import torch
from torch import nn

from spokeshave.errors import InvalidArgument
from spokeshave.models import AlexNet


def test_parameters_and_maps_are_caffes():
    net = AlexNet().eval()
    counts = [net.get_submodule(f"conv{i}").weight.numel() for i in range(1, 6)]
    assert counts == [34_848, 307_200, 884_736, 663_552, 442_368]
    assert sum(p.numel() for p in net.parameters()) == 60_965_224
    sides = []
    for i in range(1, 6):
        net.get_submodule(f"conv{i}").register_forward_hook(lambda m, x, y: sides.append(y.shape[-1]))
    with torch.no_grad():
        assert net(torch.zeros(1, 3, 227, 227)).shape == (1, 1000)
    assert sides == [55, 27, 13, 13, 13]


def test_order_of_pooling_and_normalization():
    order = {}
    for before in (False, True):
        net = AlexNet(10, norm_before_pool=before).eval()
        seen: list[str] = []
        for name, module in net.named_modules():
            if isinstance(module, (nn.MaxPool2d, nn.LocalResponseNorm)):
                module.register_forward_hook(lambda m, x, y, name=name, seen=seen: seen.append(name))
        with torch.no_grad():
            net(torch.zeros(1, 3, 227, 227))
        order[before] = seen
    assert order == {
        False: ["pool", "norm1", "pool", "norm2", "pool"],
        True: ["norm1", "pool", "norm2", "pool", "pool"],
    }


def test_small_images_have_a_form_of_their_own() -> None:
    net, sides = AlexNet(7, size=64).eval(), []
    for i in range(1, 6):
        net.get_submodule(f"conv{i}").register_forward_hook(lambda m, x, y: sides.append(y.shape[-1]))
    with torch.no_grad():
        assert net(torch.zeros(1, 3, 64, 64)).shape == (1, 7)
    assert sides == [16, 8, 4, 4, 4]
    with pytest.raises(InvalidArgument, match="64 or 227 pixels, got 100"):
        AlexNet(size=100)
