"""Elementwise chains and response normalization against torch."""

import pytest
import torch
from torch import Tensor, nn

from sparse_cases import LAYOUTS, SETS, error, in_double, through


class Chain(nn.Module):
    def __init__(self, exponent: float) -> None:
        super().__init__()
        self.exponent, self.norm = exponent, nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(x) + x) * x * 2 + (x * x + 0.5) ** self.exponent


@pytest.mark.parametrize("vectors", SETS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("exponent", [-0.75, 0.5, 3.0, 0.3])
def test_chains_match_torch(layout, vectors, exponent):
    torch.manual_seed(0)
    network = Chain(exponent).eval()
    network.norm.running_mean.normal_()
    network.norm.running_var.uniform_(0.5, 2)
    x = torch.randn(3, 4, 6, 19)
    assert error(through(layout, network, x, vectors), in_double(network, x)) < 1e-5


@pytest.mark.parametrize("vectors", SETS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("size", "beta"), [(5, 0.75), (4, 0.75), (3, 0.6), (1, 1.0)])
def test_response_normalization_matches_torch(layout, vectors, size, beta):
    network, x = nn.Sequential(nn.LocalResponseNorm(size, 0.1, beta, 2.0)), torch.randn(2, 9, 5, 18) * 5
    assert error(through(layout, network, x, vectors), network(x)) < 1e-5


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rectification_keeps_nan(layout):
    x = torch.tensor([torch.nan, -1.0, 2.0, -torch.inf, torch.inf]).repeat(2, 1, 1, 4)
    got = through(layout, nn.Sequential(nn.ReLU()), x, SETS[0])
    torch.testing.assert_close(got, x.relu(), equal_nan=True)


@pytest.mark.parametrize("vectors", SETS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("features", [1, 15, 37])
def test_each_flat_feature_has_its_own_scale(layout, vectors, features):
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(features)
    for values in (norm.weight.data, norm.bias.data, norm.running_mean):
        values.normal_()
    network, x = nn.Sequential(nn.ReLU(), norm).eval(), torch.randn(3, features)
    assert error(through(layout, network, x, vectors), in_double(network, x)) < 1e-5
