"""The generator: unseen images become poisons within the budget; the paper's surrogate by hand; models untouched."""

import copy

import pytest
import torch
from torch import nn

from poison_cases import digits, pictures, smooth, trained
from spokeshave.errors import InvalidArgument
from spokeshave.threats.image_autoencoder import DenseAutoencoder
from spokeshave.threats.perturbation import Norm
from spokeshave.threats.poison_budget import Placement, PoisonBudget
from spokeshave.threats.poison_generator import (
    PAPER_TRAINING,
    GeneratorMethod,
    GeneratorTraining,
    PoisonGenerator,
    normal_slopes,
    within,
)
from spokeshave.threats.poison_gradient import rehearsal_of
from spokeshave.threats.poisoning import damage
from spokeshave.threats.retraining import Labelled, Victim

SHORT = GeneratorTraining(rounds=80, batch_size=32, normal_batch=64, lr=3e-3)


def test_unseen_images_become_poisons_that_harm():
    (images, labels), test = digits()
    budget = PoisonBudget()
    generator = PoisonGenerator(DenseAutoencoder((64,), 32), budget)
    record = generator.fit(trained(), images[100:600], labels[100:600], images[600:900], labels[600:900], SHORT)
    made = generator(images[:50]).detach()
    wrong = budget.labels_for(labels[:50], 10)
    flipped, poisoned = (damage(trained(), x, wrong, test, budget).mean for x in (images[:50], made))
    assert poisoned < flipped - 0.08 and len(record.objective) == 80 and record.seconds > 0


@pytest.mark.parametrize("norm", Norm)
def test_poisons_are_within_the_budget_whatever_the_network_says(norm):
    budget = PoisonBudget(radius=0.3, norm=norm)
    bases = torch.rand(30, 2, 5)
    bases[0] = 0.0
    for scale in (0.0, 1.0, 100.0):
        logits = (scale * torch.randn(30, 2, 5)).requires_grad_(True)
        made = within(logits, bases, budget)
        size = (made - bases).flatten(1)
        size = size.abs().amax(1) if norm is Norm.LINF else size.norm(dim=1)
        assert size.max() <= 0.3 + 1e-6 and made.min() >= 0 and made.max() <= 1
        made.sum().backward()
        assert bool(logits.grad.isfinite().all()) and (scale == 100 or bool(logits.grad.any()))


def test_a_poison_equal_to_its_base_image_has_a_finite_gradient():
    logits = torch.zeros(1, 4, requires_grad=True)
    within(logits, torch.full((1, 4), 0.5), PoisonBudget(radius=0.1, norm=Norm.L2)).sum().backward()
    assert bool(logits.grad.isfinite().all())


def test_slopes_of_the_papers_surrogate_by_autograd():
    model = smooth().eval()
    poison, normal, none = (Labelled(*pictures(n, seed)) for seed, n in enumerate((2, 7, 0)))
    budget = PoisonBudget(lr=0.3, bias_lr=0.3)
    rehearsal = rehearsal_of(Victim(model), normal, none, budget, poison.images[:1])
    slopes, values = normal_slopes(rehearsal, poison, rehearsal.order(1, 0))
    for place in range(2):
        stepped = copy.deepcopy(model)
        loss = nn.functional.cross_entropy(stepped(poison.images[place : place + 1]), poison.labels[place : place + 1])
        loss.backward()
        for p in stepped.parameters():
            if p.requires_grad:
                p.data -= 0.3 * p.grad
        images = normal.images.clone().requires_grad_(True)
        total = nn.functional.cross_entropy(stepped(images), normal.labels, reduction="sum")
        (wanted,) = torch.autograd.grad(total, images)
        assert torch.allclose(slopes[place], wanted.sum(0), atol=1e-12) and slopes.abs().max() > 1e-4
        assert values[place].item() == pytest.approx(total.item() / 7)


def test_the_papers_rounds_by_hand():
    """One base image: the sign of s, turned by the sign of the change of the loss, goes back through the generator."""
    model = smooth().eval()
    base, normal = pictures(1), pictures(10, 1)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 16), nn.Unflatten(1, (1, 4, 4))).double()
    by_hand, budget = copy.deepcopy(network), PoisonBudget()
    how = GeneratorTraining(GeneratorMethod.SIGN_SURROGATE, rounds=4, batch_size=1, normal_batch=10, lr=0.5)
    PoisonGenerator(network, budget).fit(model, *base, *normal, how)
    labels, earlier = budget.labels_for(base[1], 3), torch.zeros(1, dtype=torch.float64)
    rehearsal = rehearsal_of(Victim(model), Labelled(*normal), Labelled(*normal), budget, base[0])
    for _ in range(4):
        made = by_hand(base[0]).sigmoid()
        slopes, values = normal_slopes(rehearsal, Labelled(made.detach(), labels), rehearsal.order(1, 0))
        gradients = torch.autograd.grad(made, list(by_hand.parameters()), -slopes.sign() * (values - earlier).sign())
        earlier = values
        for p, gradient in zip(by_hand.parameters(), gradients, strict=True):
            p.data -= 0.5 * gradient
    assert all(torch.allclose(a, b) for a, b in zip(network.parameters(), by_hand.parameters(), strict=True))
    assert (PAPER_TRAINING.rounds, PAPER_TRAINING.lr, PAPER_TRAINING.normal_batch) == (10, 0.005, 10)


@pytest.mark.parametrize("method", GeneratorMethod)
@pytest.mark.parametrize("budget", [PoisonBudget(), PoisonBudget(placement=Placement.TOGETHER, steps=2, batch_size=4)])
def test_models_are_left_as_they_were_and_the_seed_decides(method, budget):
    models = [smooth(0).train(), smooth(1).eval()]
    before = [{name: value.clone() for name, value in model.state_dict().items()} for model in models]
    random = torch.get_rng_state()
    start = nn.Sequential(nn.Flatten(), nn.Linear(16, 16), nn.Unflatten(1, (1, 4, 4))).double()
    torch.set_rng_state(random)
    made = []
    for seed in (1, 1, 2):
        generator = PoisonGenerator(copy.deepcopy(start), budget)
        how = GeneratorTraining(method, rounds=3, batch_size=2, normal_batch=4, lr=0.1, seed=seed)
        generator.fit(models, *pictures(6), *pictures(8, 1), how)
        made.append(generator(pictures(3)[0]))
        assert all(p.grad is None for p in generator.parameters())
    assert torch.equal(made[0], made[1]) and not torch.equal(made[0], made[2])
    for model, earlier in zip(models, before, strict=True):
        assert all(torch.equal(value, earlier[name]) for name, value in model.state_dict().items())
        assert all(p.grad is None for p in model.parameters())
    assert models[0].training and not models[1].training and torch.equal(torch.get_rng_state(), random)


def test_what_is_wrong_is_refused():
    generator = PoisonGenerator(DenseAutoencoder((64,), 8))
    with pytest.raises(InvalidArgument, match="models: expected at least one"):
        generator.fit([], *digits()[1], *digits()[1])
    with pytest.raises(InvalidArgument, match="images: expected values in 0..1"):
        generator.fit(trained(), digits()[1][0] * 2, digits()[1][1], *digits()[1])
    with pytest.raises(InvalidArgument, match="batch_size: the budget allows 5 poisons"):
        PoisonGenerator(DenseAutoencoder((64,), 8), PoisonBudget(count=5, placement=Placement.TOGETHER)).fit(
            trained(), *digits()[1], *digits()[1]
        )
    for settings in ({"rounds": 0}, {"batch_size": 0}, {"normal_batch": 0}, {"lr": 0.0}, {"chunk": 0}):
        with pytest.raises(InvalidArgument, match="GeneratorTraining: expected"):
            GeneratorTraining(**settings)
