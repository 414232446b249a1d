"""Factorized layers against the layer that they stand for, of every kind, with every setting."""

import numpy as np
import pytest
import torch
from torch import nn

from spokeshave.errors import InvalidArgument, UnsupportedLayer
from spokeshave.structures.factorization import Basis
from spokeshave.structures.factorized_layer import FactorizedLayer
from spokeshave.structures.layer_spectrum import full_rank, split_matrices

LAYERS = {
    "linear": (lambda: nn.Linear(4, 6), (4,)),
    "conv1d": (lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=2), (9,)),
    "conv2d": (lambda: nn.Conv2d(4, 6, (3, 5), dilation=2, padding="same", padding_mode="reflect"), (9, 11)),
    "conv3d": (lambda: nn.Conv3d(4, 6, 2, bias=False), (4, 5, 3)),
    "up1d": (lambda: nn.ConvTranspose1d(4, 6, 3, stride=2, padding=1, output_padding=1), (7,)),
    "up2d": (lambda: nn.ConvTranspose2d(4, 6, (2, 3), stride=2, dilation=2, groups=2), (5, 4)),
    "up3d": (lambda: nn.ConvTranspose3d(4, 6, 2, stride=2, bias=False), (3, 2, 4)),
}


def made(name: str) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    build, sizes = LAYERS[name]
    return build().double(), torch.randn(2, *(sizes if name == "linear" else (4, *sizes))).double()


@pytest.mark.parametrize("basis", [Basis.PCA, Basis.SVD])
@pytest.mark.parametrize("name", LAYERS)
def test_at_full_rank_it_is_the_layer(name, basis):
    layer, x = made(name)
    split = FactorizedLayer.of(name, layer, full_rank(layer), basis)
    torch.testing.assert_close(split(x), layer(x), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(split.product(), layer.weight.detach(), rtol=1e-10, atol=1e-10)
    assert split.product().shape == layer.weight.shape
    merged = split.merged()
    assert type(merged) is type(layer)
    torch.testing.assert_close(merged(x), layer(x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", LAYERS)
def test_at_a_low_rank_it_is_the_best_of_its_rank(name):
    layer, x = made(name)
    split = FactorizedLayer.of(name, layer, 2)
    assert split.rank == 2 and split.outputs * split.groups == 6
    left_out = sum((np.linalg.svd(m.numpy(), compute_uv=False)[2:] ** 2).sum() for m in split_matrices(name, layer))
    assert float((split.product() - layer.weight.detach()).square().sum()) == pytest.approx(left_out)
    with torch.no_grad():
        layer.weight.copy_(split.product())
    torch.testing.assert_close(split(x), layer(x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", LAYERS)
def test_factors_are_read_and_written_back(name):
    layer, x = made(name)
    split = FactorizedLayer.of(name, layer, 2)
    before, (basis, combination) = split(x), split.factors()
    turn = torch.tensor([[0.0, 2.0], [-1.0, 1.0]]).double()
    turned = torch.cat([turn @ part for part in basis.chunk(split.groups)])
    split.set_factors(turned, combination @ torch.linalg.inv(turn))
    torch.testing.assert_close(split(x), before, rtol=1e-10, atol=1e-10)
    first = torch.cat([part[:1] for part in split.factors()[0].chunk(split.groups)])
    split.set_factors(first, split.factors()[1][:, :1])
    assert split.rank == 1 and split(x).shape == before.shape
    with pytest.raises(InvalidArgument, match="shapes"):
        split.set_factors(first[:, :1], split.factors()[1])


def test_kmeans_makes_every_filter_its_centroid():
    layer = nn.Linear(3, 4, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 0, 0], [1.2, 0, 0], [0, 5, 0], [0, 5.2, 0]]))
    product = FactorizedLayer.of("fc", layer, 2, Basis.KMEANS).product()
    expected = torch.tensor([[1.1, 0, 0], [1.1, 0, 0], [0, 5.1, 0], [0, 5.1, 0]])
    torch.testing.assert_close(product, expected)


def test_refusals_and_no_random_number_drawn():
    random = torch.get_rng_state()
    layer = nn.utils.skip_init(nn.Conv2d, 2, 4, 3)
    layer.weight.data.fill_(1.0)
    FactorizedLayer.of("conv", layer, 2)
    assert torch.equal(torch.get_rng_state(), random)
    with pytest.raises(InvalidArgument, match="conv: rank"):
        FactorizedLayer.of("conv", layer, 5)
    with pytest.raises(UnsupportedLayer, match="act"):
        FactorizedLayer.of("act", nn.ReLU(), 1)
