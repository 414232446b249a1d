"""The first non-finite thing is named, in the order weights, gradients, outputs."""

import torch
from torch import nn

from spokeshave.divergence import first_non_finite


def test_each_place_is_found():
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    images = torch.ones(1, 2)
    assert first_non_finite(net, images * float("nan")) == "the images of the batch"
    assert "finite outputs" in first_non_finite(net, images)
    with torch.no_grad():
        net[2].weight.fill_(3e38)
        net[0].weight.fill_(3e38)
    assert first_non_finite(net, images) == "the output of layer 0 (Linear)"
    net[2].weight.grad = torch.full_like(net[2].weight, float("inf"))
    assert first_non_finite(net, images) == "the gradient of 2.weight"
    with torch.no_grad():
        net[0].bias[0] = float("nan")
    assert first_non_finite(net, images) == "the weight 0.bias"
