"""The budget: which settings are refused, labels, number of poisons, and a projection that keeps to ball and range."""

import pytest
import torch

from spokeshave.errors import InvalidArgument
from spokeshave.threats.perturbation import Norm
from spokeshave.threats.poison_budget import PoisonBudget

IMAGES = torch.rand(20, 3, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "settings",
    [
        {"count": 0},
        {"share": 0.0},
        {"share": 1.1},
        {"radius": 0.0},
        {"radius": float("inf")},
        {"radius": float("nan")},
        {"label": -1},
        {"label": 1, "flip": False},
        {"steps": 0},
        {"lr": 0.0},
        {"lr": float("nan")},
        {"bias_lr": -0.1},
        {"momentum": 1.0},
        {"batch_size": 0},
        {"batch_share": 0.0},
        {"batch_share": 1.5},
    ],
)
def test_settings_out_of_range_are_refused_by_name(settings):
    with pytest.raises(InvalidArgument, match=f"PoisonBudget: expected {next(iter(settings))}"):
        PoisonBudget(**settings)


def test_labels_of_poisons():
    labels = torch.tensor([0, 4, 9])
    assert PoisonBudget().labels_for(labels, 10).tolist() == [1, 5, 0]
    assert PoisonBudget(flip=False).labels_for(labels, 10).tolist() == [0, 4, 9]
    assert PoisonBudget(label=7).labels_for(labels, 10).tolist() == [7, 7, 7]
    with pytest.raises(InvalidArgument, match=r"a label of 0..6, got 7"):
        PoisonBudget(label=7).labels_for(labels, 7)


def test_the_tighter_limit_counts():
    assert PoisonBudget().most(100) is None
    assert PoisonBudget(count=5, share=0.03).most(100) == 3
    assert PoisonBudget(count=2, share=0.03).most(100) == 2
    assert PoisonBudget(share=0.001).most(100) == 1


def test_biases_have_a_rate_of_their_own():
    assert PoisonBudget(lr=0.1).rate_of("fc.bias") == 0.2 and PoisonBudget(lr=0.1).rate_of("bias") == 0.2
    assert PoisonBudget(lr=0.1, bias_lr=0.3).rate_of("fc.bias") == 0.3
    assert PoisonBudget(lr=0.1).rate_of("bias.weight") == 0.1 and PoisonBudget(lr=0.1).rate_of("unbiased") == 0.1


@pytest.mark.parametrize("norm", Norm)
def test_a_projection_is_in_ball_and_range_and_leaves_what_is_there_alone(norm):
    budget = PoisonBudget(radius=0.3, norm=norm)
    far = IMAGES + torch.randn(IMAGES.shape)
    apart = budget.project(far, IMAGES) - IMAGES
    size = apart.flatten(1).norm(dim=1) if norm is Norm.L2 else apart.abs().flatten(1).amax(1)
    assert size.max() <= 0.3 + 1e-6 and size.min() > 0.29
    made = budget.project(far, IMAGES)
    assert made.min() >= 0 and made.max() <= 1
    assert torch.allclose(budget.project(made, IMAGES), made, atol=1e-6)
    assert torch.equal(PoisonBudget().project(far, IMAGES), far.clamp(0, 1))
