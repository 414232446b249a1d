"""The L1 pull against closed forms: soft threshold, lasso of a quadratic, the released code's threshold by a loop."""

import math

import pytest
import torch
from torch import nn

from spokeshave.errors import InvalidArgument
from spokeshave.regularizers import GuidedL1, L1Solver
from spokeshave.regularizers.guided_l1 import paper_threshold, soft_threshold


def test_soft_threshold_is_the_minimum_that_brute_force_finds():
    torch.manual_seed(0)
    weight, metric = torch.randn(40), torch.rand(40) + 0.5
    grid = torch.linspace(-4, 4, 80001, dtype=torch.float64)
    got = soft_threshold(weight, 0.6, metric)
    for u, d, w in zip(weight.double(), metric.double(), got.double(), strict=True):
        best = grid[(d * (grid - u) ** 2 / 2 + 0.6 * grid.abs()).argmin()]
        assert w.item() == pytest.approx(best.item(), abs=2e-4)
    assert torch.equal(soft_threshold(weight, 0.0), weight)


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, 0.05),
        lambda p: torch.optim.SGD(p, 0.02, momentum=0.9),
        lambda p: torch.optim.Adam(p, 0.01),
    ],
)
def test_training_ends_at_the_lasso_of_a_quadratic(make):
    net = nn.Linear(4, 1, bias=False)
    centre = torch.tensor([[1.0, -0.6, 0.3, -0.1]])
    optimizer = make(net.parameters())
    GuidedL1(net, strength=0.5).attach(optimizer)
    for _ in range(3000):
        optimizer.zero_grad()
        (0.5 * (net.weight - centre).square().sum()).backward()
        optimizer.step()
    expected = torch.tensor([[0.5, -0.1, 0.0, 0.0]])  # each moved by 0.5 toward zero
    assert torch.allclose(net.weight, expected, atol=0.02)
    assert (net.weight[0, 2:] == 0).all()


def test_the_papers_rule_step_by_step():
    net = nn.Linear(3, 1, bias=False)
    start, gradients = [0.5, 0.0012, -0.0008], [0.1, -0.02, 0.3]
    with torch.no_grad():
        net.weight.copy_(torch.tensor([start]))
    optimizer = torch.optim.SGD(net.parameters(), 0.01, momentum=0.9)
    GuidedL1(net, strength=2e-2, solver=L1Solver.PAPER, threshold=1e-4, factor=10).attach(optimizer)
    weights, momenta = list(start), [0.0] * 3
    for _ in range(3):
        net.weight.grad = torch.tensor([gradients])
        optimizer.step()
        for i, g in enumerate(gradients):
            sign = (weights[i] > 0) - (weights[i] < 0)
            momenta[i] = 0.9 * momenta[i] + g + 2e-2 * sign
            update = 0.01 * momenta[i]
            weights[i] -= update
            if abs(weights[i]) < 1 / (abs(update) / 1e-4 + 1 / (10 * 1e-4)):
                weights[i] = 0.0
        assert net.weight[0].tolist() == pytest.approx(weights, abs=1e-7)


def test_the_threshold_falls_with_the_update_and_is_flat_for_a_small_factor():
    updates = torch.tensor([0.0, 0.1, 10.0])
    assert paper_threshold(updates).tolist() == pytest.approx([1e-3, 5e-4, 1e-4 / 10.1])
    assert paper_threshold(updates, 1e-4, 1.0).tolist() == pytest.approx([1e-4] * 3)


def test_multipliers_choose_and_weigh_layers():
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        for layer in net:
            layer.weight.fill_(-1.0)
    assert GuidedL1(net, strength=3.0, layers={"0": 0.5, "1": 2.0}).energy().item() == pytest.approx(3 * (2 + 4))
    optimizer = torch.optim.SGD(net.parameters(), 1.0)
    one = GuidedL1(net, strength=0.25, layers={"1": 1.0})
    one.attach(optimizer)
    for layer in net:
        layer.weight.grad = torch.zeros_like(layer.weight)
    optimizer.step()
    assert (net[0].weight == -1).all() and torch.allclose(net[1].weight, torch.full((1, 2), -0.75))
    assert one.statistics()["1"].elements == 0.0


@pytest.mark.parametrize("options", [{"strength": -1.0}, {"strength": math.nan}, {"threshold": -1.0}, {"factor": -1.0}])
def test_bad_numbers_are_refused(options):
    with pytest.raises(InvalidArgument, match="finite number"):
        GuidedL1(nn.Linear(2, 2), **options)


def test_other_optimizers_and_models_are_refused():
    with pytest.raises(InvalidArgument, match="holds none"):
        GuidedL1(nn.Linear(2, 2)).attach(torch.optim.SGD(nn.Linear(2, 2).parameters(), 0.1))
    net = nn.Linear(2, 2)
    net(torch.ones(1, 2)).sum().backward()
    optimizer = torch.optim.Adamax(net.parameters())
    optimizer.step()
    with pytest.raises(InvalidArgument, match="Adamax"):
        GuidedL1(net).attach(optimizer)
