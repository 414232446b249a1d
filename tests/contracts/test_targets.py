"""What every target promises: it maps the networks that it is for, runs them, prices them with units in the names.

With nothing left to chance it is the network itself.

A target that maps a network is a class of `spokeshave` with a method `map`.
"""

import copy
import inspect

import pytest
import torch
from torch import nn

import spokeshave
from network_zoo import build
from spokeshave.targets.truenorth.tea_benches import mnist_bench_1, mnist_bench_3

TARGETS = {
    name: kind
    for name in spokeshave.__all__
    if inspect.isclass(kind := getattr(spokeshave, name)) and callable(getattr(kind, "map", None))
}
ANY = ("lenet", "resnet", "mobilenet", "unet")
BENCHES = {"bench-1": mnist_bench_1, "bench-3": mnist_bench_3}
CASES = [(target, name) for target in TARGETS for name in (BENCHES if target == "TrueNorth" else ANY)]
"""Networks that each target takes: neurosynaptic cores hold none but those that learned for them."""


def made(name: str) -> tuple[nn.Module, torch.Tensor]:
    """A network with nothing left to chance, and an example input."""
    if name not in BENCHES:
        return build(name, 1)
    network = BENCHES[name](20)
    for layer in network.tea_layers:
        layer.probability.data.round_()
    return network, (torch.rand(1, 1, 28, 28) < 0.3).float()


def test_the_sweep_is_not_empty():
    assert {"Crossbar", "TrueNorth"} <= set(TARGETS)


@pytest.mark.parametrize(("target", "name"), CASES)
def test_noise_off_equals_the_network(target, name):
    network, example = made(name)
    mapped = TARGETS[target]().map(network.eval())
    x = torch.randn(3, *example.shape[1:])
    x = (x > 0).float() if name in BENCHES else x
    with torch.no_grad():
        got, wanted = mapped(x), network(x)
    assert isinstance(mapped, nn.Module)
    assert (got - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@pytest.mark.parametrize(("target", "name"), CASES)
def test_prices_have_units_in_their_names(target, name):
    cost = TARGETS[target]().map(made(name)[0]).cost()
    numbers = cost.to_dict()
    assert cost.table().row_count > 0
    units = ("cells", "wires", "crossbars", "cores", "copies", "spikes", "_s", "bytes", "_area", "share", "_full")
    priced = [key for key, value in numbers.items() if isinstance(value, int | float)]
    assert priced
    assert not [key for key in priced if not key.endswith(units)]
    assert all(numbers[key] >= 0 for key in priced)


@pytest.mark.parametrize("target", TARGETS)
def test_leaves_the_network_and_the_random_numbers_alone(target):
    network, _ = made("bench-1" if target == "TrueNorth" else "resnet")
    network.train()
    state, random = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    mapped = TARGETS[target]().map(network)
    assert mapped.training and network.training and torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    pointers = {parameter.data_ptr() for parameter in network.parameters()}
    assert not pointers & {parameter.data_ptr() for parameter in mapped.parameters()}
