"""Which layers are clipped, and the numbers that each gets."""

import pytest
import torch
from torch import nn

from spokeshave.errors import InvalidArgument, UnsupportedLayer
from spokeshave.rewrites.clipped_layers import clipped_layers, errors_of, full_rank, known_layers, least_of
from spokeshave.structures.factorized_layer import FactorizedLayer


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        FactorizedLayer.of("1", nn.Conv2d(4, 4, 3), 2),
        nn.Flatten(),
        nn.Linear(16, 3),
        nn.Linear(3, 2),
    )


def test_every_layer_but_the_classifier_and_no_factor_of_a_product() -> None:
    assert list(known_layers(network())) == ["0", "1", "3", "4"]
    assert list(clipped_layers(network(), None, ())) == ["0", "1", "3"]
    assert list(clipped_layers(network(), ["4", "0"], ())) == ["0", "4"]
    assert list(clipped_layers(network(), None, ["3"])) == ["0", "1"]
    for layers, exclude in ((["no"], ()), (None, ["no"]), (["0"], ["0"])):
        with pytest.raises(InvalidArgument):
            clipped_layers(network(), layers, exclude)


def test_a_product_of_full_rank_is_the_layer_with_its_own_bias() -> None:
    layer = nn.Conv2d(1, 16, 3)
    product = full_rank("conv", layer)
    probe = torch.randn(2, 1, 5, 5)
    assert product.rank == 9 and product.combination.bias is layer.bias  # nine taps hold sixteen filters
    assert torch.allclose(product(probe), layer(probe), atol=1e-6)


def test_the_last_pattern_that_matches_counts() -> None:
    assert errors_of({"*": 0.1, "conv*": 0.2}, ["conv1", "fc"], ["conv1", "conv2", "fc"]) == {"conv1": 0.2, "fc": 0.1}
    assert least_of({"conv2": 4}, ["conv1"], ["conv1", "conv2"]) == {"conv1": 1}
    with pytest.raises(InvalidArgument, match="max_error of fc"):
        errors_of({"conv*": 0.2}, ["conv1", "fc"], ["conv1", "fc"])


def test_parametrized_layers_are_refused_by_name() -> None:
    net = network()
    nn.utils.parametrizations.orthogonal(net[3])
    with pytest.raises((InvalidArgument, UnsupportedLayer)):
        clipped_layers(net, ["3"], ())
