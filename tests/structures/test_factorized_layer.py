"""Factorized layers against the layers that they replace."""

import numpy as np
import pytest
import torch
from torch import nn

from spokeshave.errors import InvalidArgument, UnsupportedLayer
from spokeshave.structures.factorization import Basis
from spokeshave.structures.factorized_layer import FactorizedLayer
from spokeshave.structures.layer_spectrum import split_matrices

LAYERS = {
    "linear": (lambda: nn.Linear(7, 5), (3, 7)),
    "linear without bias": (lambda: nn.Linear(7, 5, bias=False), (2, 4, 7)),
    "conv1d": (lambda: nn.Conv1d(3, 6, 3, padding=1), (2, 3, 9)),
    "conv2d": (lambda: nn.Conv2d(3, 8, (3, 5), stride=(2, 1), padding=(1, 2), dilation=(1, 2)), (2, 3, 12, 15)),
    "grouped": (lambda: nn.Conv2d(6, 9, 3, groups=3, bias=False), (2, 6, 7, 7)),
    "reflected": (lambda: nn.Conv2d(2, 4, 3, padding=1, padding_mode="reflect"), (2, 2, 6, 6)),
    "transposed": (lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2, output_padding=1), (2, 4, 5, 5)),
    "conv3d": (lambda: nn.Conv3d(2, 4, 2), (1, 2, 4, 4, 4)),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("basis", Basis)
def test_at_full_rank_it_is_the_layer_and_merges_back(name: str, basis: Basis) -> None:
    torch.manual_seed(0)
    make, shape = LAYERS[name]
    layer = make().double()
    groups = getattr(layer, "groups", 1)
    outputs = getattr(layer, "out_channels", layer.weight.shape[0])
    full = outputs // groups
    factorized = FactorizedLayer.of(name, layer, full, basis)
    inputs = torch.randn(shape, dtype=torch.float64)
    wanted = layer(inputs)
    assert factorized.rank == full and factorized.outputs == full and factorized.groups == groups
    assert torch.allclose(factorized(inputs), wanted, atol=1e-10)
    assert torch.allclose(factorized.product(), layer.weight, atol=1e-10)
    whole = factorized.merged()
    assert type(whole) is type(layer) and torch.allclose(whole(inputs), wanted, atol=1e-10)


def test_lower_ranks_give_the_truncated_layer() -> None:
    torch.manual_seed(1)
    layer = nn.Conv2d(4, 6, 3, groups=2)
    factorized = FactorizedLayer.of("conv", layer, 2)
    assert factorized.rank == 2 and factorized.basis.weight.shape == (4, 2, 3, 3)
    for part, kept in zip(layer.weight.detach().chunk(2), factorized.product().chunk(2), strict=True):
        u, s, v = torch.linalg.svd(part.flatten(1), full_matrices=False)
        assert torch.allclose(kept.flatten(1), u[:, :2] * s[:2] @ v[:2], atol=1e-5)


def test_new_factors_of_another_rank_become_new_parameters_of_the_same_form() -> None:
    layer = FactorizedLayer.of("conv", nn.Conv2d(3, 6, 3), 4).to(memory_format=torch.channels_last)
    layer.basis.weight.requires_grad_(False)
    before = layer.basis.weight
    basis, combination = layer.factors()
    layer.set_factors(2 * basis, combination)
    assert layer.basis.weight is before
    layer.set_factors(basis[:2], combination[:, :2])
    assert layer.rank == 2 and layer.basis.out_channels == 2 and layer.combination.in_channels == 2
    assert layer.basis.weight is not before and not layer.basis.weight.requires_grad
    assert layer.basis.weight.is_contiguous(memory_format=torch.channels_last)
    assert layer(torch.zeros(1, 3, 5, 5)).shape == (1, 6, 3, 3)
    with pytest.raises(InvalidArgument, match="factors of shapes"):
        layer.set_factors(basis[:2], combination[:, :1])


def test_modes_and_frozen_weights_are_kept() -> None:
    layer = nn.Linear(4, 3).eval()
    layer.weight.requires_grad_(False)
    factorized = FactorizedLayer.of("fc", layer, 2)
    assert not factorized.training and not factorized.basis.weight.requires_grad
    assert not factorized.combination.weight.requires_grad and factorized.combination.bias.requires_grad


def test_what_it_cannot_hold_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedLayer, match=r"norm \(LayerNorm\)"):
        FactorizedLayer.of("norm", nn.LayerNorm(4), 1)
    with pytest.raises(InvalidArgument, match=r"fc: rank: expected 1\.\.3"):
        FactorizedLayer.of("fc", nn.Linear(4, 3), 4)
    broken = nn.Linear(4, 3)
    nn.init.constant_(broken.weight, float("inf"))
    with pytest.raises(InvalidArgument, match="fc: .*finite"):
        FactorizedLayer.of("fc", broken, 2)


KINDS = {
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
    build, sizes = KINDS[name]
    return build().double(), torch.randn(2, *(sizes if name == "linear" else (4, *sizes))).double()


@pytest.mark.parametrize("name", KINDS)
def test_at_a_low_rank_it_is_the_best_of_its_rank(name):
    layer, x = made(name)
    split = FactorizedLayer.of(name, layer, 2)
    assert split.rank == 2 and split.outputs * split.groups == 6
    left_out = sum((np.linalg.svd(m.numpy(), compute_uv=False)[2:] ** 2).sum() for m in split_matrices(name, layer))
    assert float((split.product() - layer.weight.detach()).square().sum()) == pytest.approx(left_out)
    with torch.no_grad():
        layer.weight.copy_(split.product())
    torch.testing.assert_close(split(x), layer(x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", KINDS)
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


def test_no_random_number_is_drawn():
    random = torch.get_rng_state()
    layer = nn.utils.skip_init(nn.Conv2d, 2, 4, 3)
    layer.weight.data.fill_(1.0)
    FactorizedLayer.of("conv", layer, 2).merged()
    assert torch.equal(torch.get_rng_state(), random)


def test_a_frozen_layer_merges_to_a_frozen_one() -> None:
    layer = nn.Linear(4, 3)
    layer.weight.requires_grad_(False)
    whole = FactorizedLayer.of("fc", layer, 2).merged()
    assert not whole.weight.requires_grad and whole.bias.requires_grad
