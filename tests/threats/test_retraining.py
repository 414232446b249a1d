"""Retraining against torch's own SGD and autograd through an unrolled loop; orders of batches."""

import math

import pytest
import torch
from torch import nn
from torch.func import functional_call

from poison_cases import pictures, smooth
from spokeshave.errors import InvalidArgument
from spokeshave.threats.poison_budget import Placement, PoisonBudget
from spokeshave.threats.retraining import (
    Labelled,
    Victim,
    batch_of,
    floored_loss,
    hypergradient,
    order_of,
    retrained,
)

CASES = {
    "paper": PoisonBudget(lr=0.3),
    "alone_in_batches": PoisonBudget(lr=0.3, steps=3, batch_size=4, momentum=0.5),
    "together": PoisonBudget(placement=Placement.TOGETHER, lr=0.3, bias_lr=0.2, steps=6, batch_size=4, momentum=0.9),
    "share": PoisonBudget(placement=Placement.TOGETHER, lr=0.3, steps=4, batch_size=4, batch_share=0.5),
}


def scene(budget: PoisonBudget, poisons: int = 3) -> tuple:
    count = poisons if budget.placement is Placement.TOGETHER else 1
    poison, normal, clean = (Labelled(*pictures(n, seed)) for seed, n in enumerate((count, 7, 9)))
    return poison, normal, clean, order_of(budget, len(clean), count, seed=5)


def unrolled(model: nn.Module, poison: Labelled, normal: Labelled, clean: Labelled, order, budget) -> torch.Tensor:
    """Loss on normal images by plain autograd, with the graph of every step kept."""
    weights = {name: p.detach().clone().requires_grad_(p.requires_grad) for name, p in model.named_parameters()}
    trained = [name for name, weight in weights.items() if weight.requires_grad]
    buffers = dict(model.named_buffers())
    speed = {name: torch.zeros_like(weights[name]) for name in trained}
    for batch in order:
        images, labels = batch_of(batch, poison, clean)
        loss = nn.functional.cross_entropy(functional_call(model, {**weights, **buffers}, (images,)), labels)
        found = torch.autograd.grad(loss, [weights[name] for name in trained], create_graph=True)
        for name, gradient in zip(trained, found, strict=True):
            speed[name] = budget.momentum * speed[name] + gradient
            rate = budget.bias_rate if name.endswith("bias") else budget.lr
            weights[name] = weights[name] - rate * speed[name]
    scores = functional_call(model, {**weights, **buffers}, (normal.images,))
    return nn.functional.cross_entropy(scores, normal.labels)


@pytest.mark.parametrize("budget", CASES.values(), ids=CASES)
def test_the_hypergradient_is_that_of_autograd_through_all_steps(budget):
    model = smooth().eval()
    poison, normal, clean, order = scene(budget)
    images = poison.images.clone().requires_grad_(True)
    loss = unrolled(model, Labelled(images, poison.labels), normal, clean, order, budget)
    (wanted,) = torch.autograd.grad(loss, images)
    found, value = hypergradient(Victim(model), poison, normal, clean, order, budget)
    assert wanted.abs().max() > 1e-5 and torch.allclose(found, wanted, atol=1e-10)
    assert value.item() == pytest.approx(loss.item(), rel=1e-10)


@pytest.mark.parametrize("budget", CASES.values(), ids=CASES)
def test_weights_are_those_of_torchs_sgd(budget):
    model = smooth().eval()
    poison, _, clean, order = scene(budget)
    found = retrained(Victim(model), poison, clean, order, budget)
    biases = [p for name, p in model.named_parameters() if name.endswith("bias") and p.requires_grad]
    others = [p for name, p in model.named_parameters() if not name.endswith("bias") and p.requires_grad]
    groups = [{"params": others}, {"params": biases, "lr": budget.bias_rate}]
    optimizer = torch.optim.SGD(groups, lr=budget.lr, momentum=budget.momentum)
    for batch in order:
        optimizer.zero_grad()
        images, labels = batch_of(batch, poison, clean)
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    wanted = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert set(found) == set(wanted)
    assert all(torch.allclose(found[name], wanted[name], atol=1e-12) for name in wanted)


def test_a_poison_that_no_batch_holds_has_no_gradient():
    budget = PoisonBudget(placement=Placement.TOGETHER, steps=1, batch_size=2)
    poison, normal, clean, _ = scene(budget)
    order = next(
        order for seed in range(50) if not len((order := order_of(budget, len(clean), len(poison), seed))[0].poison)
    )
    found, _ = hypergradient(Victim(smooth().eval()), poison, normal, clean, order, budget)
    assert not found.any()


def test_the_loss_is_floored_as_in_the_papers_code():
    logits, labels = torch.randn(50, 10) * 20, torch.randint(10, (50,))
    wanted = -torch.log(logits.double().softmax(1)[torch.arange(50), labels].clamp_min(1e-10)).mean()
    assert (wanted < nn.functional.cross_entropy(logits, labels)) and math.isclose(
        floored_loss(logits, labels).item(), wanted.item(), rel_tol=1e-5
    )


def test_an_order_shows_every_image_once_before_any_again():
    budget = PoisonBudget(placement=Placement.TOGETHER, steps=4, batch_size=5)
    order = order_of(budget, clean=8, poisons=2, seed=0)
    for half in (order[:2], order[2:]):
        assert sorted(int(i) for batch in half for i in batch.clean) == list(range(8))
        assert sorted(int(i) for batch in half for i in batch.poison) == [0, 1]
    assert [len(batch.clean) + len(batch.poison) for batch in order] == [5] * 4
    again, other = order_of(budget, 8, 2, seed=0), order_of(budget, 8, 2, seed=1)
    assert all(torch.equal(a.clean, b.clean) for a, b in zip(order, again, strict=True))
    assert not all(torch.equal(a.clean, b.clean) for a, b in zip(order, other, strict=True))


def test_an_order_of_one_poison_fills_the_rest_with_clean_images():
    alone = order_of(PoisonBudget(steps=2, batch_size=4), clean=9, poisons=1, seed=0)
    assert [(len(batch.clean), batch.poison.tolist()) for batch in alone] == [(3, [0]), (3, [0])]
    full = order_of(PoisonBudget(batch_size=4, batch_share=1.0), clean=0, poisons=1, seed=0)
    assert full[0].poison.tolist() == [0] * 4
    with pytest.raises(InvalidArgument, match="batches of 4 with 1 poisons need clean training images"):
        order_of(PoisonBudget(batch_size=4), clean=0, poisons=1, seed=0)
