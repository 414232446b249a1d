"""What every regularizer promises, run over all that `spokeshave.regularizers` exports."""

import inspect
import json

import pytest
import torch
from torch import nn

from spokeshave import regularizers
from spokeshave.regularizers.optimizer_hooks import settings_of

MAKE = {
    "Force": lambda net, **k: regularizers.Force(net, **k),
    "GroupLasso": lambda net, **k: regularizers.GroupLasso(
        net, filters=0.1, rows=0.1, shapes=0.1, depth=0.1, tile_rows=0.1, tile_columns=0.1, crossbar=(2, 2), **k
    ),
    "Freeze": lambda net, **k: regularizers.Freeze(net, **k),
    "GuidedL1": lambda net, **k: regularizers.GuidedL1(net, **k),
    "MagnitudeSchedule": lambda net, **k: regularizers.MagnitudeSchedule(net, 0.5, steps=2, every=1, **k),
    "NetworkSurgery": lambda net, **k: regularizers.NetworkSurgery(net, threshold=0.1, **k),
    "OneLevel": lambda net, **k: regularizers.OneLevel(net, **k),
    "ProbabilityBias": lambda net, **k: regularizers.ProbabilityBias(net, names=["2.weight"], **k),
    "StraightThrough": lambda net, **k: regularizers.StraightThrough(net, **k),
}
EXPORTED = [
    name
    for name in regularizers.__all__
    if inspect.isclass(c := getattr(regularizers, name)) and hasattr(c, "attach") and c is not regularizers.Regularizer
]


def network(zero: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Flatten(), nn.Linear(4, 2))
    nn.init.uniform_(net[2].weight, 0.05, 0.95)  # probabilities, for who takes them as such
    if zero:
        for parameter in net.parameters():
            nn.init.zeros_(parameter)
    return net


def test_the_sweep_is_not_empty_and_knows_how_to_make_each():
    assert len(EXPORTED) == 9
    assert set(EXPORTED) == set(MAKE), "add the new regularizer to MAKE"


@pytest.mark.parametrize("name", EXPORTED)
@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_finite_on_zero_weights_strength_zero_and_single_groups(name, zero, strength):
    net = network(zero)
    regularizer = MAKE[name](net, strength=strength)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    regularizer.attach(optimizer)
    for _ in range(3):
        optimizer.zero_grad()
        net(torch.ones(2, 1, 2, 2)).square().sum().backward()
        optimizer.step()
    assert all(torch.isfinite(p).all() for p in net.parameters())
    assert regularizer.energy().item() >= 0


@pytest.mark.parametrize("name", EXPORTED)
def test_pull_at_strength_zero_changes_no_gradient(name):
    net = network()
    net(torch.ones(2, 1, 2, 2)).sum().backward()
    before = [p.grad.clone() for p in net.parameters()]
    MAKE[name](net, strength=0.0).pull()
    assert all(torch.equal(p.grad, b) for p, b in zip(net.parameters(), before, strict=True))


NOT_A_GRADIENT = {"Force"}
"""Whose docstrings say that the update is another one than minus the gradient of the energy; tested where they are."""


@pytest.mark.parametrize("name", [name for name in EXPORTED if name not in NOT_A_GRADIENT])
def test_force_is_minus_the_gradient_of_a_finite_energy(name):
    net = network()
    regularizer = MAKE[name](net)
    energy = regularizer.energy()
    if energy.requires_grad:
        energy.backward()
    wanted = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in net.parameters()]
    net.zero_grad(set_to_none=True)
    regularizer.pull()
    got = [torch.zeros_like(p) if p.grad is None else p.grad for p in net.parameters()]
    assert all(torch.allclose(g, w, atol=1e-6) for g, w in zip(got, wanted, strict=True))


@pytest.mark.parametrize("name", EXPORTED)
def test_removing_the_handle_leaves_no_trace(name):
    trained = []
    for attach in (False, True):
        net = network()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        before = len(optimizer._optimizer_step_pre_hooks), len(optimizer._optimizer_step_post_hooks)
        if attach:
            MAKE[name](net).attach(optimizer).remove()
        assert (len(optimizer._optimizer_step_pre_hooks), len(optimizer._optimizer_step_post_hooks)) == before
        net(torch.ones(2, 1, 2, 2)).square().sum().backward()
        optimizer.step()
        trained.append([p.detach().clone() for p in net.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*trained, strict=True))


@pytest.mark.parametrize("name", EXPORTED)
def test_state_survives_a_round_trip(name):
    net = network()
    state = MAKE[name](net).state_dict()
    other = MAKE[name](net)
    other.load_state_dict(state)
    assert all(torch.equal(torch.as_tensor(other.state_dict()[k]), torch.as_tensor(v)) for k, v in state.items())


@pytest.mark.parametrize("name", EXPORTED)
def test_settings_are_json_and_tell_other_arguments(name):
    made = [settings_of(MAKE[name](network(), strength=strength)) for strength in (0.0, 0.0, 1.0)]
    assert made[0] == made[1] != made[2]
    assert made[0]["class"] == name and json.loads(json.dumps(made[0])) == made[0]
