"""Separable layers against the convolution that they stand for, over every setting that torch's convolutions have."""

import numpy as np
import pytest
import torch
from torch import nn

from spokeshave.errors import InvalidArgument, UnsupportedLayer
from spokeshave.structures.layer_spectrum import Split, full_rank, split_matrices
from spokeshave.structures.separable_layer import SeparableLayer

SETTINGS = [
    {"kernel_size": 3},
    {"kernel_size": (3, 5), "stride": (2, 3), "padding": (1, 4), "dilation": (2, 1)},
    {"kernel_size": (4, 2), "padding": "same", "dilation": (1, 2)},
    {"kernel_size": 3, "padding": "valid", "bias": False},
    {"kernel_size": 5, "stride": 2, "padding": 2, "groups": 2},
    *({"kernel_size": 3, "padding": (2, 1), "padding_mode": mode} for mode in ("reflect", "replicate", "circular")),
]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_at_full_rank_it_is_the_convolution(settings):
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 6, **settings).double()
    made = SeparableLayer.of("conv", layer, full_rank(layer, Split.SEPARABLE))
    x = torch.randn(2, 4, 9, 11).double()
    torch.testing.assert_close(made(x), layer(x), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(made.product(), layer.weight.detach(), rtol=1e-10, atol=1e-10)
    assert made.vertical.kernel_size[1] == made.horizontal.kernel_size[0] == 1


@pytest.mark.parametrize("groups", [1, 2])
def test_the_product_is_the_best_of_its_rank_and_the_scale_is_shared(groups):
    torch.manual_seed(1)
    layer = nn.Conv2d(4, 6, 3, groups=groups).double()
    made = SeparableLayer.of("conv", layer, 2)
    left_out = sum(
        (np.linalg.svd(m.numpy(), compute_uv=False)[2:] ** 2).sum()
        for m in split_matrices("conv", layer, Split.SEPARABLE)
    )
    assert float((made.product() - layer.weight.detach()).square().sum()) == pytest.approx(left_out)
    assert made.rank == 2
    vertical, horizontal = made.vertical.weight, made.horizontal.weight
    # v = U sqrt(S) and h = sqrt(S) V^T: the k-th of both has the square root of the k-th singular value as its norm
    norms = vertical.flatten(1).norm(dim=1)
    others = horizontal.unflatten(0, (groups, -1)).transpose(1, 2).flatten(2).norm(dim=2).flatten()
    torch.testing.assert_close(norms, others)


def test_frozen_weights_and_modes_are_kept_and_bad_ranks_refused():
    layer = nn.Conv2d(2, 4, 3).eval()
    layer.weight.requires_grad_(False)
    random = torch.get_rng_state()
    made = SeparableLayer.of("conv", layer, 3)
    assert torch.equal(torch.get_rng_state(), random)
    assert [p.requires_grad for p in made.parameters()] == [False, False, True] and not made.training
    for rank in (0, 7):
        with pytest.raises(InvalidArgument, match=r"conv: rank: expected 1\.\.6"):
            SeparableLayer.of("conv", layer, rank)
    with pytest.raises(UnsupportedLayer):
        SeparableLayer.of("row", nn.Conv2d(2, 4, (1, 3)), 1)
