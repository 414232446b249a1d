"""Sparsity of layers whose zeros were placed by hand."""

import pytest
import torch
from torch import nn

from spokeshave.structures.sparsity import LayerSparsity, layer_sparsity, sparsity


def test_shares_of_a_convolution_with_known_zeros():
    conv = nn.Conv2d(4, 8, 3)
    with torch.no_grad():
        conv.weight.fill_(1)
        conv.weight[:2] = 0  # 2 of 8 filters
        conv.weight[:, 3] = 0  # 1 of 4 channels, 9 of 36 columns
        conv.weight[:, 0, 1, 1] = 0  # 1 more column
    found = layer_sparsity(conv)
    assert found.elements == pytest.approx(1 - 6 * 26 / (8 * 36))
    assert found == LayerSparsity(found.elements, filters=0.25, channels=0.25, shapes=10 / 36)


def test_every_convolution_and_linear_layer_is_listed():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2))
    assert list(sparsity(model)) == ["0", "3"]
