"""What every rewrite promises, run over all functions (model, example, ...) that `spokeshave.rewrites` exports."""

import inspect

import pytest
import torch
from torch import nn

from network_zoo import build
from spokeshave import rewrites
from spokeshave.errors import RewriteError
from spokeshave.structures.groups import TRANSPOSED

EXPORTED = {
    name: function
    for name, function in vars(rewrites).items()
    if inspect.isfunction(function) and list(inspect.signature(function).parameters)[:2] == ["model", "example"]
}
EXPORTED["prune"] = lambda model, example: rewrites.prune(model, 0.5, example)
EXPORTED["delete_connections"] = lambda model, example: rewrites.delete_connections(
    model, example, keep=0.5, size=(6, 4), exclude=[n for n, m in model.named_modules() if isinstance(m, TRANSPOSED)]
)
EXPORTED["low_rank"] = lambda model, example: rewrites.low_rank(model, example, energy=0.9, only_where_it_pays=False)
NETWORKS = ("lenet", "resnet", "mobilenet", "unet")


def prepared(name: str) -> tuple[nn.Module, torch.Tensor]:
    network, example = build(name, 7)
    for module in list(network.modules()):
        if isinstance(module, nn.Conv2d) and module.groups == 1:
            with torch.no_grad():
                module.weight[::3] = 0
    return network, example


def test_the_sweep_is_not_empty():
    assert len(EXPORTED) >= 1 and "shrink" in EXPORTED


@pytest.mark.parametrize("rewrite", EXPORTED)
@pytest.mark.parametrize("name", NETWORKS)
def test_returns_a_new_model_and_a_report_and_leaves_the_input_alone(rewrite, name):
    network, example = prepared(name)
    network.train()
    state = {key: value.clone() for key, value in network.state_dict().items()}
    random = torch.get_rng_state()
    new, report = EXPORTED[rewrite](network, example)
    assert isinstance(new, nn.Module) and new is not network and new.training
    assert isinstance(report.to_dict(), dict) and report.table().row_count > 0
    assert network.training and torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    pointers = {p.data_ptr() for p in network.parameters()}
    assert not pointers & {p.data_ptr() for p in new.parameters()}


@pytest.mark.parametrize("rewrite", EXPORTED)
@pytest.mark.parametrize("name", NETWORKS)
def test_the_new_model_matches_within_the_error_that_the_report_states(rewrite, name):
    network, example = prepared(name)
    new, report = EXPORTED[rewrite](network, example)
    x = torch.randn(3, *example.shape[1:])
    difference = (new.eval()(x) - network(x)).abs().max() / network(x).abs().max()
    assert difference <= max(1e-5, 10 * report.max_relative_error)


@pytest.mark.parametrize("rewrite", EXPORTED)
def test_changing_nothing_raises_and_says_why(rewrite):
    network, example = build("lenet", 0)
    if rewrite in ("to_sparse", "prune", "low_rank", "one_level"):  # they change any layer that they know
        network, example = nn.Sequential(nn.Softplus()), torch.zeros(1, 3)
    elif rewrite == "delete_connections":
        network, example = nn.Sequential(nn.Linear(3, 3)), torch.zeros(1, 3)
    with pytest.raises(RewriteError, match=r"nothing|no layer"):
        EXPORTED[rewrite](network, example)


@pytest.mark.parametrize("rewrite", EXPORTED)
def test_twice_in_a_row_gives_the_same(rewrite):
    network, example = prepared("resnet")
    first, one = EXPORTED[rewrite](network, example)
    second, two = EXPORTED[rewrite](network, example)
    assert one == two
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
