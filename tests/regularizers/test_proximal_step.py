"""The proximal step against a general optimizer, and its fixed points against the optimum of loss + penalty."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import nn

from spokeshave.errors import InvalidArgument
from spokeshave.regularizers.group_lasso import GroupLasso
from spokeshave.regularizers.proximal_step import shrink_groups, step_metric
from spokeshave.structures.groups import Grouping, GroupKind


def test_weighted_step_minimises_what_it_says():
    generator = torch.Generator().manual_seed(0)
    moved = torch.randn(5, 7, generator=generator, dtype=torch.float64)
    metric = torch.rand(5, 7, generator=generator, dtype=torch.float64) ** 4 * 3 + 1e-3
    thresholds = torch.tensor([0.0, 0.1, 0.5, 2.0, 50.0], dtype=torch.float64)
    found = shrink_groups(moved, Grouping((5, 7), GroupKind.FILTER), thresholds, metric)
    for row in range(5):
        d, u, t = metric[row].numpy(), moved[row].numpy(), thresholds[row].item()

        def objective(w, d=d, u=u, t=t):
            return float((d * (w - u) ** 2).sum() / 2 + t * np.linalg.norm(w))

        reference = minimize(objective, u * 0.5 + 1e-3, method="BFGS", tol=1e-12)
        assert objective(found[row].numpy()) <= reference.fun + 1e-9
    assert not found[4].any() and torch.equal(found[0], moved[0])


def test_unit_metric_is_the_block_soft_threshold():
    weight = torch.tensor([[3.0, 4.0], [0.3, 0.4]])
    grouping = Grouping((2, 2), GroupKind.FILTER)
    with_metric = shrink_groups(weight, grouping, torch.tensor([1.0, 1.0]), torch.ones(2, 2))
    assert with_metric.tolist() == [pytest.approx([2.4, 3.2]), [0.0, 0.0]]
    assert torch.allclose(shrink_groups(weight, grouping, torch.tensor([1.0, 1.0])), with_metric)


def test_nothing_becomes_nan_at_zero_strength_or_zero_weights():
    grouping = Grouping((2, 3), GroupKind.FILTER)
    for metric in (None, torch.full((2, 3), 1e-8)):
        for threshold in (0.0, 1.0):
            zero = shrink_groups(torch.zeros(2, 3), grouping, torch.full((2,), threshold), metric)
            assert torch.equal(zero, torch.zeros(2, 3))


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9),
    "dampening": lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9, dampening=0.5),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.003),
    "amsgrad": lambda p: torch.optim.Adam(p, lr=0.003, amsgrad=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.001, momentum=0.5),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_reaches_the_optimum_of_loss_plus_penalty(name):
    # Quadratic loss ||w - a||^2 / 2 by row: the optimum is the block soft threshold of a, whatever the optimizer.
    target = torch.tensor([[2.0, -1.0, 0.5], [0.2, 0.1, -0.3], [1.0, 1.0, 1.0]])
    layer = nn.Linear(3, 3, bias=False)
    torch.manual_seed(0)
    nn.init.normal_(layer.weight)
    optimizer = OPTIMIZERS[name](layer.parameters())
    GroupLasso(layer_model := nn.Sequential(layer), rows=0.5).attach(optimizer)
    optimum = target * (1 - 0.5 / target.norm(dim=1, keepdim=True)).clamp_min(0)
    reached_at = None
    for step in range(6000):
        optimizer.zero_grad()
        ((layer.weight - target) ** 2).sum().div(2).backward()
        optimizer.step()
        if reached_at is None and torch.allclose(layer_model[0].weight, optimum, atol=0.01):
            reached_at = step
        if reached_at is not None and step >= reached_at + 200:  # it does not only pass by
            break
    assert torch.allclose(layer_model[0].weight, optimum, atol=0.02)
    assert not layer.weight[1].any()  # exactly zero, by the definition of the method


def test_unknown_optimizer_is_refused_with_the_way_out():
    weight = nn.Parameter(torch.ones(2, 2))
    optimizer = torch.optim.Rprop([weight])
    weight.grad = torch.ones(2, 2)
    optimizer.step()
    with pytest.raises(InvalidArgument, match=r"Rprop.*SUBGRADIENT"):
        step_metric(optimizer, weight)
    with pytest.raises(InvalidArgument, match="does not hold"):
        step_metric(optimizer, torch.ones(2, 2))
