"""Group lasso: energy and force by hand and by autograd; both solvers in a training loop."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from spokeshave.errors import InvalidArgument, UnsupportedLayer
from spokeshave.models import LeNet
from spokeshave.regularizers import Freeze, GroupLasso, Solver
from spokeshave.structures.sparsity import sparsity


def small_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 2), nn.ReLU(), nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(4, 2))


def test_energy_by_hand_for_every_kind():
    net = small_net()
    w = net[0].weight.detach()
    expected = {
        "filters": sum(w[n].norm() for n in range(3)),
        "channels": sum(w[:, c].norm() for c in range(2)),
        "shapes": sum(w[:, c, m, k].norm() for c in range(2) for m in range(2) for k in range(2)),
        "kernels": sum(w[n, c].norm() for n in range(3) for c in range(2)),
        "depth": w.norm(),
    }
    for argument, energy in expected.items():
        pull = GroupLasso(net, **{argument: {"0": 0.5}}, weighting=False)
        assert pull.energy().item() == pytest.approx(0.5 * energy.item(), rel=1e-6), argument
    linear = net[4].weight.detach()
    rows = GroupLasso(net, rows=1.0, weighting=False).energy().item()
    columns = GroupLasso(net, columns=1.0, weighting=False).energy().item()
    assert rows == pytest.approx(linear.norm(dim=1).sum().item())
    assert columns == pytest.approx(linear.norm(dim=0).sum().item())


def test_weighting_is_the_root_of_the_group_size_over_the_smallest():
    # The authors' AlexNet multipliers for columns: sqrt(384/128), sqrt(192/128), 1 (their prototxt: 1.7321, 1.2247, 1).
    net = nn.Sequential(nn.Conv2d(1, 384, 1), nn.Conv2d(384, 384, 1, groups=2), nn.Conv2d(384, 256, 1, groups=2))
    expected = sum(
        math.sqrt(size / 128) * GroupLasso(net, shapes={name: 1.0}, weighting=False).energy().item()
        for name, size in (("0", 384), ("1", 192), ("2", 128))
    )
    assert GroupLasso(net, shapes=1.0).energy().item() == pytest.approx(expected)


def test_pull_is_the_gradient_of_energy_also_beside_zero_groups():
    net = small_net()
    with torch.no_grad():
        net[0].weight[1] = 0
    pull = GroupLasso(net, filters=0.3, shapes=0.2, channels=0.1, kernels=0.1, depth=0.05, rows=0.1, columns=0.2)
    pull.energy().backward()
    expected = [p.grad.clone() if p.grad is not None else None for p in net.parameters()]
    net.zero_grad(set_to_none=True)
    pull.pull()
    for parameter, wanted in zip(net.parameters(), expected, strict=True):
        if wanted is None:
            assert parameter.grad is None
        else:
            assert torch.allclose(parameter.grad, wanted, atol=1e-7)
            assert torch.isfinite(parameter.grad).all()


def test_pull_adds_to_an_existing_gradient():
    net = small_net()
    net[0].weight.grad = torch.ones_like(net[0].weight)
    GroupLasso(net, depth={"0": 1.0}).pull()
    assert torch.allclose(net[0].weight.grad, 1 + net[0].weight.detach() / net[0].weight.norm())


def train_steps(solver: Solver, strength: float, steps: int = 150) -> dict[str, float]:
    torch.manual_seed(0)
    net = LeNet()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    pull = GroupLasso(net, filters=0.02, shapes=0.02, columns=0.01, solver=solver, strength=strength)
    pull.attach(optimizer)
    images, labels = torch.randn(32, 1, 28, 28), torch.arange(32) % 10
    for _ in range(steps):
        optimizer.zero_grad()
        functional.cross_entropy(net(images), labels).backward()
        optimizer.step()
    return {name: layer.shapes for name, layer in sparsity(net).items()}


def test_proximal_solver_makes_groups_exactly_zero_and_strength_zero_none():
    assert train_steps(Solver.PROXIMAL, 5.0)["conv2"] > 0.5
    assert set(train_steps(Solver.PROXIMAL, 0.0, steps=3).values()) == {0.0}


def test_subgradient_solver_follows_the_authors_rule_step_by_step():
    net = nn.Sequential(nn.Linear(3, 2, bias=False))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.0, 0.00105]]))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    GroupLasso(net, rows=0.01, solver=Solver.SUBGRADIENT, weighting=False).attach(optimizer)
    net[0].weight.grad = torch.zeros(2, 3)
    optimizer.step()
    # Row 1: 3 - .1*.01*.6, 4 - .1*.01*.8; row 2: .00105 - .001 = 5e-5, under the threshold of 1e-4, so 0.
    assert torch.allclose(net[0].weight, torch.tensor([[2.9994, 3.9992, 0.0], [0.0, 0.0, 0.0]]))
    assert net[0].weight[1, 2] == 0


def test_a_tied_weight_is_pulled_once():
    first, second = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
    second.weight = first.weight
    single = GroupLasso(nn.Sequential(first), rows=1.0).energy()
    assert torch.equal(GroupLasso(nn.Sequential(first, second), rows=1.0).energy(), single)


def test_gradient_scaling_leaves_the_pull_unscaled():
    weight_of = {}
    for scale in (1.0, 1024.0):
        net = nn.Sequential(nn.Linear(2, 2, bias=False))
        nn.init.ones_(net[0].weight)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        GroupLasso(net, rows=0.5, solver=Solver.SUBGRADIENT).attach(optimizer)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        scaler.scale(net(torch.ones(1, 2)).sum()).backward()
        scaler.step(optimizer)
        weight_of[scale] = net[0].weight.detach().clone()
    assert torch.allclose(weight_of[1.0], weight_of[1024.0])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"filters": -1.0}, "at least 0"),
        ({"filters": float("nan")}, "finite"),
        ({"strength": float("inf"), "filters": 1.0}, "strength"),
        ({"filters": {"nosuch*": 1.0}}, "no layer is named 'nosuch"),
        ({"filters": 1.0, "exclude": ("zzz",)}, "no layer is named 'zzz'"),
        ({}, "nothing to pull"),
        ({"tiles": 1.0}, "tile="),
        ({"rows": 1.0, "exclude": ("4",)}, "nothing to pull"),
    ],
)
def test_bad_arguments_are_refused(arguments, says):
    with pytest.raises(InvalidArgument, match=says):
        GroupLasso(small_net(), **arguments)


def test_an_optimizer_of_another_model_is_refused():
    with pytest.raises(InvalidArgument, match="none of the watched"):
        GroupLasso(small_net(), filters=1.0).attach(torch.optim.SGD(small_net().parameters(), lr=0.1))


def test_state_holds_a_changed_strength():
    pull, other = GroupLasso(small_net(), filters=1.0), GroupLasso(small_net(), filters=1.0)
    pull.strength = 0.125
    other.load_state_dict(pull.state_dict())
    assert other.strength == 0.125


def test_a_parametrized_weight_is_refused_by_name_and_can_be_left_out():
    net = small_net()
    torch.nn.utils.parametrizations.weight_norm(net[2])
    with pytest.raises(UnsupportedLayer, match=r"2 \(ParametrizedConv2d\).*exclude=\('2',\)"):
        GroupLasso(net, filters=1.0)
    pull = GroupLasso(net, filters=1.0, exclude=("2",))
    pull.pull()
    assert net[0].weight.grad is not None and set(pull.statistics()) == {"0"}
    Freeze(net).attach(torch.optim.SGD(net.parameters(), lr=0.1))
