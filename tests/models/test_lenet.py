"""LeNet has Caffe's shapes, and computes what a hand-written chain of functions computes."""

import torch
from torch.nn import functional

from spokeshave.models import LeNet


def test_shapes_of_the_lowered_matrices_and_parameters():
    net = LeNet()
    shapes = {n: tuple(p.flatten(1).shape) for n, p in net.named_parameters() if p.dim() > 1}
    assert shapes == {
        "conv1.weight": (20, 25),
        "conv2.weight": (50, 500),
        "ip1.weight": (500, 800),
        "ip2.weight": (10, 500),
    }
    assert sum(p.numel() for p in net.parameters()) == 431_080


def test_forward_has_no_relu_after_convolutions():
    torch.manual_seed(0)
    net, x = LeNet(), torch.randn(3, 1, 28, 28)
    y = functional.max_pool2d(functional.conv2d(x, net.conv1.weight, net.conv1.bias), 2)
    y = functional.max_pool2d(functional.conv2d(y, net.conv2.weight, net.conv2.bias), 2).flatten(1)
    y = functional.relu(y @ net.ip1.weight.T + net.ip1.bias) @ net.ip2.weight.T + net.ip2.bias
    assert torch.allclose(net(x), y, atol=1e-5)
