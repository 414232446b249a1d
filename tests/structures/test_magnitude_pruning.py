"""The largest weights stay, as sorting finds them."""

import numpy as np
import pytest
import torch
from torch import nn

from spokeshave.errors import InvalidArgument, UnsupportedLayer
from spokeshave.structures.magnitude_pruning import keep_largest, prune_by_magnitude


@pytest.mark.parametrize("density", [0.0, 0.01, 0.3, 0.99, 1.0])
def test_what_is_kept_is_at_least_as_large_as_what_is_not(density):
    weight = np.random.default_rng(0).standard_normal((7, 5, 3, 3)).astype(np.float32)
    kept = keep_largest(weight, density)
    assert np.count_nonzero(kept) == round(density * weight.size) and kept.dtype == np.float32
    assert np.array_equal(kept[kept != 0], weight[kept != 0])
    if 0 < density < 1:
        assert np.abs(kept[kept != 0]).min() >= np.abs(weight[kept == 0]).max()


def test_ties_keep_the_share():
    assert np.count_nonzero(keep_largest(np.ones(10), 0.3)) == 3


def test_layers_are_pruned_each_on_its_own_and_the_rest_is_left():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(100, 3))
    with torch.no_grad():
        network[0].weight.mul_(1e-3)
    bias = network[0].bias.clone()
    prune_by_magnitude(network, 0.25)
    assert [int(network[place].weight.count_nonzero()) for place in (0, 1, 3)] == [18, 4, 75]
    assert torch.equal(network[0].bias, bias)


@pytest.mark.parametrize("density", [-0.1, 1.5, float("nan")])
def test_a_share_outside_0_to_1_is_refused(density):
    with pytest.raises(InvalidArgument, match="of 0 to 1, got"):
        prune_by_magnitude(nn.Linear(2, 2), density)


def test_what_cannot_be_pruned_is_said():
    with pytest.raises(InvalidArgument, match="found none"):
        prune_by_magnitude(nn.Sequential(nn.ReLU()), 0.5)
    with pytest.raises(UnsupportedLayer, match=r"0 \(.*weight is computed by a parametrization"):
        prune_by_magnitude(nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))), 0.5)
