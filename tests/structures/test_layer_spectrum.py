"""Matrices of a layer against loops over its weights; energies against NumPy's SVD."""

import numpy as np
import pytest
import torch
from torch import nn

from spokeshave.errors import InvalidArgument, UnsupportedLayer
from spokeshave.structures.layer_spectrum import (
    Split,
    filters_of,
    full_rank,
    kernel_area,
    layer_energies,
    separable,
    split_matrices,
)

LAYERS = {
    "linear": nn.Linear(7, 5),
    "conv1d": nn.Conv1d(4, 6, 3, groups=2),
    "conv2d": nn.Conv2d(4, 6, (3, 5), groups=2),
    "conv3d": nn.Conv3d(2, 4, 2),
    "transposed": nn.ConvTranspose2d(6, 4, 3, groups=2),
}


@pytest.mark.parametrize("name", LAYERS)
def test_one_row_is_what_one_output_of_a_group_multiplies(name):
    layer = LAYERS[name]
    matrices = split_matrices(name, layer)
    weight, groups = layer.weight.detach().numpy(), getattr(layer, "groups", 1)
    for g in range(groups):
        for n in range(matrices.shape[1]):
            if name == "transposed":
                inputs = weight.shape[0] // groups
                row = weight[g * inputs : (g + 1) * inputs, n]
            else:
                row = weight[g * matrices.shape[1] + n]
            assert np.array_equal(matrices[g, n].numpy(), row.reshape(-1))


def test_separable_matrix_entry_by_entry():
    layer = LAYERS["conv2d"]
    matrices = split_matrices("conv", layer, Split.SEPARABLE)
    assert matrices.shape == (2, 2 * 3, 5 * 3)
    for g, n, c, i, j in np.ndindex(2, 3, 2, 3, 5):
        assert matrices[g, c * 3 + i, j * 3 + n] == layer.weight[g * 3 + n, c, i, j]


@pytest.mark.parametrize("split", Split)
@pytest.mark.parametrize("name", LAYERS)
def test_energies_are_the_squared_singular_values_of_all_groups_together(name, split):
    layer = LAYERS[name]
    if split is Split.SEPARABLE and not separable(layer):
        with pytest.raises(UnsupportedLayer, match="separable"):
            split_matrices(name, layer, split)
        return
    expected = sum(np.linalg.svd(m.double().numpy(), compute_uv=False) ** 2 for m in split_matrices(name, layer, split))
    found = layer_energies(name, layer, split)
    assert len(found) == full_rank(layer, split)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-12)


def test_sizes():
    assert filters_of(LAYERS["transposed"]) == (2, 27) and kernel_area(LAYERS["transposed"]) == 9
    assert filters_of(LAYERS["linear"]) == (5, 7) and kernel_area(LAYERS["linear"]) == 1
    assert not separable(nn.Conv2d(3, 3, (1, 3))) and not separable(nn.Conv3d(1, 1, 3))


def test_what_is_no_layer_or_not_finite_is_refused_by_name():
    with pytest.raises(UnsupportedLayer, match="act"):
        split_matrices("act", nn.ReLU())
    broken = nn.Linear(2, 2)
    with torch.no_grad():
        broken.weight[0, 0] = float("nan")
    with pytest.raises(InvalidArgument, match="head: .*finite"):
        layer_energies("head", broken)
