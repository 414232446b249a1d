"""Which layers are chosen, and what is refused."""

import pytest
import torch
from torch import nn

from spokeshave.errors import InvalidArgument, UnsupportedLayer
from spokeshave.structures.pruned_layers import held_by, pruned_layers


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1), nn.Flatten(), nn.Linear(8, 2))


def test_patterns_choose_and_the_last_counts():
    chosen = pruned_layers(network(), {"*": 1.0, "4": 0.0, "2": 0.25})
    assert [(layer.name, layer.multiplier) for layer in chosen] == [("0", 1.0), ("2", 0.25)]
    assert [layer.name for layer in pruned_layers(network(), 0.5)] == ["0", "2", "4"]


def test_a_tied_weight_is_taken_once():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    assert [layer.name for layer in pruned_layers(net, 1.0)] == ["0"]


@pytest.mark.parametrize("bad", [{"9": 1.0}, {"0": -1.0}, {"0": float("nan")}, {"0": float("inf")}, 0.0, {"0": 2.0}])
def test_bad_multipliers_are_refused(bad):
    with pytest.raises(InvalidArgument):
        pruned_layers(network(), bad, most=1.0)


def test_a_computed_weight_is_refused_and_a_model_without_layers():
    net = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)))
    with pytest.raises(UnsupportedLayer, match="parametrization"):
        pruned_layers(net, 1.0)
    with pytest.raises(InvalidArgument, match="nothing to prune"):
        pruned_layers(nn.ReLU(), 1.0)


def test_layers_that_an_optimizer_holds():
    net = network()
    layers = pruned_layers(net, 1.0)
    assert [layer.name for layer in held_by(torch.optim.SGD(net[2].parameters(), 0.1), layers)] == ["2"]
    net[2].weight.requires_grad_(False)
    assert [layer.name for layer in held_by(torch.optim.SGD(net.parameters(), 0.1), layers)] == ["0", "4"]
    with pytest.raises(InvalidArgument, match="holds none"):
        held_by(torch.optim.SGD(network().parameters(), 0.1), layers)
