"""What every target promises: it maps any network, runs it, prices it with units in the names, is plain when perfect.

A target that maps a network is a class of `spokeshave` with a method `map`.
"""

import copy
import inspect

import pytest
import torch
from torch import nn

import spokeshave
from network_zoo import build

TARGETS = {
    name: made
    for name in spokeshave.__all__
    if inspect.isclass(made := getattr(spokeshave, name)) and callable(getattr(made, "map", None))
}
NETWORKS = ("lenet", "resnet", "mobilenet", "unet")


def test_the_sweep_is_not_empty():
    assert "Crossbar" in TARGETS


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", NETWORKS)
def test_noise_off_equals_the_network(target, name):
    network, example = build(name, 1)
    mapped = TARGETS[target]().map(network.eval())
    x = torch.randn(3, *example.shape[1:])
    with torch.no_grad():
        got, wanted = mapped(x), network(x)
    assert isinstance(mapped, nn.Module)
    assert (got - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", NETWORKS)
def test_prices_have_units_in_their_names(target, name):
    cost = TARGETS[target]().map(build(name, 1)[0]).cost()
    numbers = cost.to_dict()
    assert cost.table().row_count > 0
    units = ("cells", "wires", "crossbars", "cores", "copies", "spikes", "_s", "bytes", "_area", "share", "_full")
    priced = [key for key, value in numbers.items() if isinstance(value, int | float)]
    assert priced
    assert not [key for key in priced if not key.endswith(units)]
    assert all(numbers[key] >= 0 for key in priced)


@pytest.mark.parametrize("target", TARGETS)
def test_leaves_the_network_and_the_random_numbers_alone(target):
    network, _ = build("resnet", 1)
    network.train()
    state, random = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    mapped = TARGETS[target]().map(network)
    assert mapped.training and network.training and torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    pointers = {parameter.data_ptr() for parameter in network.parameters()}
    assert not pointers & {parameter.data_ptr() for parameter in mapped.parameters()}
