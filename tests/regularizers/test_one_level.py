"""Quantization regularization: its force by autograd, where weights end, searches of g, resuming."""

import pytest
import torch
from torch import nn

from spokeshave.errors import CheckpointError, InvalidArgument, UnsupportedLayer
from spokeshave.regularizers import LevelSolver, OneLevel
from spokeshave.structures.levels import best_scale, nearest_level
from spokeshave.structures.magnitude_mask import Scope


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 5))


def weights(net: nn.Sequential) -> list[torch.Tensor]:
    return [net[0].weight, net[3].weight]


def test_energy_and_force_by_autograd_and_by_hand():
    net = network()
    pull = OneLevel(net, 0.5, levels=2)
    wanted = sum(
        (w.detach() - nearest_level(w.detach(), best_scale(w, (1.0, 2.0)), (1.0, 2.0))).abs().sum()
        for w in weights(net)
    )
    assert pull.energy().item() == pytest.approx(0.5 * float(wanted), rel=1e-6)
    pull.energy().backward()
    by_autograd = [w.grad.clone() for w in weights(net)]
    net.zero_grad()
    pull.pull()
    assert all(torch.equal(w.grad, g) for w, g in zip(weights(net), by_autograd, strict=True))
    assert net[0].bias.grad is None


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.Adam])
def test_without_a_loss_the_proximal_solver_ends_at_the_levels_exactly(make):
    net = network()
    start = [w.detach().clone() for w in weights(net)]
    pull = OneLevel(net, 0.2, solver=LevelSolver.PROXIMAL, refresh=0)
    optimizer = make(net.parameters(), lr=0.01)
    pull.attach(optimizer)
    for _ in range(60):
        optimizer.zero_grad()
        sum((w * 0).sum() for w in weights(net)).backward()
        optimizer.step()
    for w, first, g in zip(weights(net), start, pull.scales.values(), strict=True):
        assert torch.equal(w, nearest_level(first, g)), "each at the level that was nearest at the start, to the bit"
    assert pull.energy().item() == 0 and set(pull.distances().values()) == {0.0}


def test_the_papers_solver_ends_within_a_step_of_the_levels():
    net = network()
    pull = OneLevel(net, 0.1, refresh=0)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.02)
    pull.attach(optimizer)
    for _ in range(400):
        optimizer.zero_grad(set_to_none=True)
        optimizer.step()
    for w, g in zip(weights(net), pull.scales.values(), strict=True):
        assert (w - nearest_level(w, g)).abs().max() <= 0.1 * 0.02 * 1.001


def test_the_force_holds_against_a_gradient_that_is_weaker_and_yields_to_one_that_is_stronger():
    """At a level, |w - Q| has the sub-gradient [-lambda, lambda], as L1 has at zero."""
    for gradient, stays in ((0.05, True), (0.5, False)):
        layer = nn.Linear(2, 1, bias=False)
        layer.weight.data = torch.tensor([[1.0, -1.0]])
        net = nn.Sequential(layer)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        OneLevel(net, 0.1, solver=LevelSolver.PROXIMAL, refresh=0).attach(optimizer)
        for _ in range(3):
            layer.weight.grad = torch.full_like(layer.weight, gradient)
            optimizer.step()
        assert torch.equal(layer.weight.data, torch.tensor([[1.0, -1.0]])) is stays


def test_g_is_searched_at_every_refresh_only():
    net = network()
    pull = OneLevel(net, 0.0, refresh=3)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0)
    pull.attach(optimizer)
    seen = []
    for _ in range(5):
        net[3].weight.data.mul_(2.0)
        optimizer.step()
        seen.append(pull.scales["3"] / best_scale(net[3].weight))
    assert seen == pytest.approx([1.0, 0.5, 0.25, 1.0, 0.5])


def test_one_g_for_all_layers_or_one_for_each():
    net = network()
    net[0].weight.data.mul_(10)
    each, shared = OneLevel(net), OneLevel(net, scope=Scope.GLOBAL)
    together = best_scale(torch.cat([w.detach().flatten() for w in weights(net)]))
    assert shared.scales == {"0": together, "3": together}
    assert each.scales == {"0": best_scale(weights(net)[0]), "3": best_scale(weights(net)[1])}


def test_a_relative_strength_is_in_units_of_g():
    net = network()
    pull = OneLevel(net, 2.0, relative=True)
    parts = [
        g * (w.detach() - nearest_level(w.detach(), g)).abs().sum()
        for w, g in zip(weights(net), pull.scales.values(), strict=True)
    ]
    assert pull.energy().item() == pytest.approx(2.0 * float(sum(parts)), rel=1e-6)
    pull.pull()
    for w, g in zip(weights(net), pull.scales.values(), strict=True):
        assert torch.allclose(w.grad.abs(), torch.full_like(w, 2.0 * g))


def test_layers_that_are_left_out_are_left_alone():
    net = network()
    assert set(OneLevel(net, exclude=("3",)).scales) == {"0"}
    with pytest.raises(InvalidArgument, match="no layer is named 'fc'"):
        OneLevel(net, exclude=("fc",))
    with pytest.raises(InvalidArgument):
        OneLevel(net, exclude=("*",))


def test_the_strength_rises_by_the_same_factor_each_step():
    net = network()
    pull, full = OneLevel(net, 1.0, ramp=3), OneLevel(net, 1.0)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0)
    pull.attach(optimizer)
    shares = []
    for _ in range(6):
        shares.append((pull.energy() / full.energy()).item())
        optimizer.step()
    assert shares == pytest.approx([0.001, 0.01, 0.1, 1.0, 1.0, 1.0])


@pytest.mark.parametrize("solver", LevelSolver)
def test_a_resumed_training_ends_with_the_same_bits(solver):
    def run(net, pull, optimizer, steps):
        for _ in range(steps):
            optimizer.zero_grad()
            net(torch.ones(2, 1, 4, 4)).square().sum().backward()
            optimizer.step()

    def make():
        net = network()
        pull = OneLevel(net, 0.05, solver=solver, refresh=4, ramp=8)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
        pull.attach(optimizer)
        return net, pull, optimizer

    whole, half, rest = make(), make(), make()
    run(*whole, 10)
    run(*half, 5)
    rest[1].load_state_dict(half[1].state_dict())
    rest[0].load_state_dict(half[0].state_dict())
    run(*rest, 5)
    assert all(torch.equal(a, b) for a, b in zip(whole[0].parameters(), rest[0].parameters(), strict=True))


def test_what_is_wrong_is_refused():
    net = network()
    for options in ({"strength": -1.0}, {"strength": float("nan")}, {"refresh": -1}, {"ramp": -1}, {"levels": 0}):
        with pytest.raises(InvalidArgument):
            OneLevel(net, **options)
    with pytest.raises(InvalidArgument, match="holds none"):
        OneLevel(net).attach(torch.optim.SGD(network().parameters(), lr=0.1))
    with pytest.raises(CheckpointError, match="another model"):
        OneLevel(net).load_state_dict(OneLevel(net, exclude=("3",)).state_dict())
    with pytest.raises(UnsupportedLayer):
        OneLevel(nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))))


@pytest.mark.parametrize("solver", LevelSolver)
def test_frozen_weights_stay_where_they_are(solver):
    net = network()
    net[0].weight.requires_grad_(False)
    before = net[0].weight.clone()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    pull = OneLevel(net, 0.5, solver=solver)
    pull.attach(optimizer)
    pull.pull()
    net(torch.ones(1, 1, 4, 4)).sum().backward()
    optimizer.step()
    assert torch.equal(net[0].weight, before) and net[0].weight.grad is None and net[3].weight.grad is not None


def test_steps_of_two_optimizers_count_once_and_a_new_one_goes_on():
    net = network()
    pull = OneLevel(net, 0.0)
    optimizers = [torch.optim.SGD(net[place].parameters(), lr=0.0) for place in (0, 3)]
    handles = [pull.attach(optimizer) for optimizer in optimizers]
    for optimizer in optimizers * 4:
        optimizer.step()
    assert pull.step == 4
    for handle in handles:
        handle.remove()
    new = torch.optim.SGD(net.parameters(), lr=0.0)
    pull.attach(new)
    new.step()
    assert pull.step == 5


@pytest.mark.parametrize("scope", Scope)
def test_a_layer_that_diverged_is_named(scope):
    net = network()
    net[3].weight.data[0, 0] = torch.nan
    with pytest.raises(InvalidArgument, match="3: its weights must be finite"):
        OneLevel(net, scope=scope)
