"""Smallest perturbations against the closed form of a linear model, and against attacks of a fixed strength."""

import copy

import pytest
import torch
from torch import nn

from attack_cases import digits, digits_network, mixed_network, small_images
from spokeshave.errors import InvalidArgument
from spokeshave.threats.gradient_attack import pgd
from spokeshave.threats.minimum_perturbation import accuracies_at, minimum_perturbations
from spokeshave.threats.perturbation import Norm
from spokeshave.threats.robust_accuracy import robust_accuracy


@pytest.mark.parametrize("norm", Norm)
def test_on_a_linear_model_it_is_the_margin_over_the_dual_norm_of_the_weights(norm):
    """Class 0 while x.w > b: the nearest point of the other class is (x.w - b) / |w|_dual away."""
    weights, bias = torch.tensor([1.0, -0.5, 0.25, 0.5]), 0.2
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with torch.no_grad():
        model[1].weight.copy_(torch.stack([weights, -weights]))
        model[1].bias.copy_(torch.tensor([-bias, bias]))
    images = 0.5 + 0.1 * torch.rand(20, 1, 2, 2)  # in the middle of the range, so that it does not bind
    margins = images.flatten(1) @ weights - bias
    exact = margins / (weights.abs().sum() if norm is Norm.LINF else weights.norm())
    found = minimum_perturbations(model, images, torch.zeros(20, dtype=torch.int64), norm)
    assert float(exact.min()) > 0.05 and bool((found >= exact - 1e-5).all())
    torch.testing.assert_close(found, exact, rtol=0.01, atol=0)
    wrong = minimum_perturbations(model, images, torch.ones(20, dtype=torch.int64), norm)
    assert torch.equal(wrong, torch.zeros(20))


@pytest.mark.parametrize(("norm", "strengths"), [(Norm.LINF, [0.0, 0.03, 0.06, 0.1]), (Norm.L2, [0.0, 0.3, 0.6, 1.0])])
def test_one_run_tells_the_curve_that_pgd_measures_strength_by_strength(norm, strengths):
    found = accuracies_at(minimum_perturbations(digits_network(), *digits(), norm), strengths)
    measured = robust_accuracy(digits_network(), digits(), pgd(20, False, norm), strengths)
    assert found[0] == measured[0]
    assert found == pytest.approx(measured, abs=0.04)


@pytest.mark.parametrize("norm", Norm)
def test_halving_finds_what_too_few_steps_did_not_and_never_makes_a_size_larger(norm):
    few, halved = (minimum_perturbations(digits_network(), *digits(), norm, steps=3, halvings=n) for n in (0, 6))
    assert bool((halved <= few).all()) and float(halved.median()) < 0.8 * float(few.median())


class Deaf(nn.Module):
    """Always of class 0; gradients lead nowhere useful."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        slope = x.flatten(1).mean(1) * 1e-3
        return torch.stack([1 + slope, slope * 0.5], 1)


@pytest.mark.parametrize("norm", Norm)
def test_what_cannot_be_fooled_counts_as_infinitely_far(norm):
    images, labels = small_images()
    found = minimum_perturbations(Deaf(), images, labels.clamp_max(1), norm, steps=5)
    assert found.tolist() == [float("inf") if label == 0 else 0.0 for label in labels.tolist()]
    assert accuracies_at(found, [0.0, 1e9]) == [float((labels == 0).double().mean())] * 2


def test_the_model_and_torchs_random_state_end_as_they_were():
    model, (images, labels) = mixed_network(), small_images()
    before, state, held = copy.deepcopy(model), torch.get_rng_state(), model[5].weight.grad
    minimum_perturbations(model, images, labels, Norm.L2, steps=5, batch_size=4)
    assert torch.equal(torch.get_rng_state(), state) and model[5].weight.grad is held and bool((held == 3).all())
    assert model.training and not model[1].training and not model[0].weight.requires_grad
    pairs = zip(model.state_dict().values(), before.state_dict().values(), strict=True)
    assert all(torch.equal(now, then) for now, then in pairs)


def test_numbers_out_of_range_are_refused():
    with pytest.raises(InvalidArgument, match="expected at least 1 and at least 0, got 0 and 8"):
        minimum_perturbations(digits_network(), *digits(), steps=0)
    with pytest.raises(InvalidArgument, match="batch_size"):
        minimum_perturbations(digits_network(), *digits(), batch_size=0)
