"""The direct method: exact and finite differences agree, each round moves as the paper's, joint poisons climb."""

from dataclasses import replace

import pytest
import torch

from poison_cases import digits, pictures, smooth, trained
from spokeshave.errors import InvalidArgument
from spokeshave.threats.perturbation import Norm
from spokeshave.threats.poison_budget import Placement, PoisonBudget
from spokeshave.threats.poison_gradient import (
    PAPER_ASCENT,
    Ascent,
    PoisonMethod,
    Rehearsal,
    climb,
    rehearsal_of,
)
from spokeshave.threats.retraining import Labelled, Victim, order_of, retrained

JOINT = PoisonBudget(placement=Placement.TOGETHER, lr=0.3, steps=3, batch_size=4, momentum=0.5)


def scene(budget: PoisonBudget, model=None) -> tuple[Rehearsal, Labelled]:
    poison, normal, clean = (Labelled(*pictures(n, seed)) for seed, n in enumerate((4, 7, 9)))
    victim = Victim((model or smooth()).eval())
    return rehearsal_of(victim, normal, clean, budget, poison.images[:1], chunk=5), poison


def on_digits(budget: PoisonBudget, poisons: int) -> tuple[Rehearsal, Labelled]:
    (images, labels), _ = digits()
    bases = Labelled(images[:poisons], budget.labels_for(labels[:poisons], 10))
    normal = Labelled(images[100:200], labels[100:200])
    return rehearsal_of(Victim(trained()), normal, normal, budget, images[:1]), bases


@pytest.mark.parametrize("budget", [PoisonBudget(lr=0.3), PoisonBudget(lr=0.3, steps=2, batch_size=3), JOINT])
def test_differences_of_the_loss_go_to_the_gradient(budget):
    rehearsal, poison = scene(budget)
    assert (rehearsal.short_cut is not None) is (budget.steps == 1)
    order = rehearsal.order(len(poison), 0)
    exact, value = rehearsal.gradients(poison, order)
    differences, here = rehearsal.differences(poison, order, probe=1e-5)
    assert torch.allclose(differences / 1e-5, exact, atol=1e-5) and exact.abs().max() > 1e-3
    assert torch.allclose(value, here, atol=1e-12) and torch.allclose(
        value, rehearsal.losses(poison, order), atol=1e-12
    )


def test_a_poison_alone_has_the_same_gradient_in_any_company():
    rehearsal, poison = scene(PoisonBudget(lr=0.3, steps=2, batch_size=3))
    order = rehearsal.order(4, 0)
    together, _ = rehearsal.gradients(poison, order)
    for place in range(len(poison)):
        alone = Labelled(poison.images[place : place + 1], poison.labels[place : place + 1])
        assert torch.allclose(rehearsal.gradients(alone, order)[0][0], together[place], atol=1e-12)


def test_the_papers_rounds_by_a_loop_over_pixels():
    """The authors' script, line by line, on one poison: a retraining for each pixel."""
    model = smooth().eval()
    rehearsal, poison = scene(PoisonBudget(lr=0.3), model)
    one = Labelled(poison.images[:1], poison.labels[:1])
    none = Labelled(one.images[:0], one.labels[:0])

    def loss(image: torch.Tensor) -> float:
        order = order_of(rehearsal.budget, 0, 1, 0)
        weights = retrained(rehearsal.victim, Labelled(image, one.labels), none, order, rehearsal.budget)
        scores = rehearsal.victim.logits(weights, rehearsal.normal.images).softmax(1)
        right = scores[torch.arange(len(scores)), rehearsal.normal.labels]
        return float(-right.clamp_min(1e-10).log().sum())

    image = one.images.clone()
    for _ in range(2):
        signs = torch.zeros_like(image)
        for pixel in range(image.numel()):
            moved = image.clone()
            moved.view(-1)[pixel] += 0.01
            signs.view(-1)[pixel] = torch.tensor(loss(moved) - loss(image)).sign()
        image = (image + 0.2 * signs).clamp(0, 1)
    how = Ascent(rounds=2, step=0.2, decay=False)
    found, _ = climb(rehearsal, one, PoisonMethod.FINITE_DIFFERENCE, how, seed=0)
    assert torch.equal(found, image)
    assert (PAPER_ASCENT.rounds, PAPER_ASCENT.step, PAPER_ASCENT.probe, PAPER_ASCENT.decay) == (5, 0.2, 0.01, False)


def test_both_methods_make_the_same_poisons():
    rehearsal, bases = on_digits(PoisonBudget(), 3)
    how = replace(PAPER_ASCENT, rounds=2)
    exact, climbed = climb(rehearsal, bases, PoisonMethod.EXACT, how, 0)
    by_differences, also = climb(rehearsal, bases, PoisonMethod.FINITE_DIFFERENCE, how, 0)
    # Where a finite difference crosses a kink of a ReLU, or is lost in rounding, its sign is another.
    assert (exact == by_differences).float().mean() > 0.9
    assert torch.allclose(climbed[:, -1], also[:, -1], rtol=0.2) and bool((climbed[:, -1] > climbed[:, 0]).all())


@pytest.mark.parametrize("norm", Norm)
def test_poisons_keep_to_the_budget(norm):
    rehearsal, bases = on_digits(PoisonBudget(radius=0.2, norm=norm, flip=False), 5)
    made, history = climb(rehearsal, bases, PoisonMethod.EXACT, Ascent(rounds=10), 0)
    apart = (made - bases.images).flatten(1)
    size = apart.abs().amax(1) if norm is Norm.LINF else apart.norm(dim=1)
    assert 0.19 < size.max() <= 0.2 + 1e-6 and made.min() >= 0 and made.max() <= 1
    assert bool((history[:, -1] > history[:, 0]).all())


def test_joint_poisons_do_more_harm_after_many_steps_than_their_base_images():
    budget = PoisonBudget(placement=Placement.TOGETHER, steps=8, batch_size=20, batch_share=0.2)
    rehearsal, bases = on_digits(budget, 10)
    made, history = climb(rehearsal, bases, PoisonMethod.EXACT, Ascent(rounds=8, step=0.2, momentum=0.5, orders=1), 0)
    fresh = [rehearsal.order(10, seed) for seed in range(1000, 1005)]
    before = torch.stack([rehearsal.losses(bases, order)[0] for order in fresh]).mean()
    after = torch.stack([rehearsal.losses(Labelled(made, bases.labels), order)[0] for order in fresh]).mean()
    assert history.shape == (10, 9) and after > 1.5 * before, "in orders that the attack has not seen"


def test_the_best_round_is_kept_where_asked():
    rehearsal, bases = on_digits(PoisonBudget(), 4)
    how = Ascent(rounds=6, step=0.9, decay=False, keep_best=True)
    made, history = climb(rehearsal, bases, PoisonMethod.EXACT, how, 0)
    losses = rehearsal.losses(Labelled(made, bases.labels), rehearsal.order(1, 0))
    assert torch.allclose(losses, history.amax(1), rtol=1e-5)


def test_the_same_seed_gives_the_same_poisons():
    rehearsal, bases = on_digits(replace(JOINT, batch_share=0.5), 3)
    first, again, other = (
        climb(rehearsal, bases, PoisonMethod.EXACT, Ascent(3, orders=1), seed)[0] for seed in (1, 1, 2)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_settings_out_of_range_are_refused():
    for settings in (
        {"rounds": 0},
        {"step": 0.0},
        {"step": float("nan")},
        {"momentum": 1.0},
        {"orders": 0},
        {"probe": 0.0},
    ):
        with pytest.raises(InvalidArgument, match="Ascent: expected"):
            Ascent(**settings)
