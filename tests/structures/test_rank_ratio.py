"""Rank ratios against spectra that were made, and against NumPy's SVD."""

import numpy as np
import pytest
import torch
from torch import nn

import spokeshave as ss
from spokeshave.errors import InvalidArgument


def test_ranks_are_those_of_a_spectrum_that_was_made():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(4, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Flatten(), nn.Linear(6, 4))
    left, right = torch.linalg.qr(torch.randn(8, 8))[0], torch.linalg.qr(torch.randn(36, 36))[0][:8]
    values = torch.tensor([10.0, 5.0, 2.0, 1.0, 0.5, 0.1, 0.1, 0.1])
    with torch.no_grad():
        net[0].weight.copy_((left * values @ right).reshape(8, 4, 3, 3))
        net[3].weight.copy_(torch.ones(4, 6))
    # Of 130.28, rank 1 leaves out 23.2 %, rank 2 4.05 %, rank 3 0.98 %.
    found = ss.rank_ratio(net, 0.05)
    assert found.ranks == {"0": 2, "3": 1} and found.full == {"0": 8, "3": 4}
    assert found.mean == pytest.approx((2 / 8 + 1 / 4) / 2) and found.ratios["0"] == 0.25
    assert ss.rank_ratio(net, 0.04, exclude=("3",)).ranks == {"0": 3}


@pytest.mark.parametrize("layer", [nn.Conv2d(8, 12, 3, groups=2), nn.Linear(9, 20), nn.ConvTranspose1d(6, 5, 4)])
def test_against_numpy(layer):
    weight = layer.weight.detach().double().numpy()
    if isinstance(layer, nn.ConvTranspose1d):
        weight = weight.swapaxes(0, 1)
    parts = np.split(weight.reshape(len(weight), -1), getattr(layer, "groups", 1))
    energies = sum(np.linalg.svd(part, compute_uv=False) ** 2 for part in parts)
    for limit in (0.02, 0.2, 0.6):
        left_out = 1 - energies.cumsum() / energies.sum()
        expected = int(np.argmax(left_out <= limit)) + 1
        assert ss.rank_ratio(nn.Sequential(layer), limit).ranks == {"0": expected}


def test_nothing_to_look_at_and_wrong_names_are_refused():
    with pytest.raises(InvalidArgument, match="no layer is named 'fc\\*'"):
        ss.rank_ratio(nn.Sequential(nn.Linear(2, 2)), exclude=("fc*",))
    with pytest.raises(InvalidArgument, match="no convolution or linear layer"):
        ss.rank_ratio(nn.Sequential(nn.Linear(2, 1), nn.ReLU()))
