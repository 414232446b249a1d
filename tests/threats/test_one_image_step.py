"""The step by factors equals the step by weights, whatever the layers are; and it is chosen where it holds only."""

import pytest
import torch
from torch import nn
from torch.func import grad, vmap

from poison_cases import pictures, smooth
from spokeshave.threats.one_image_step import OneImageStep
from spokeshave.threats.poison_budget import PoisonBudget
from spokeshave.threats.retraining import Labelled, Victim, floored_loss, hypergradient, order_of, retrained


class Twice(nn.Module):
    """Uses one layer twice, one on every row, and ties two weights."""

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.again, self.last = nn.Linear(4, 4), nn.Linear(16, 16), nn.Linear(16, 3)
        self.bare, self.first, self.second = nn.Linear(16, 16, bias=False), nn.Linear(16, 16), nn.Linear(16, 16)
        self.second.weight = self.first.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.rows(x).flatten(1))
        x = torch.tanh(self.again(torch.tanh(self.again(x))))
        return self.last(torch.tanh(self.bare(self.second(torch.tanh(self.first(x))))))


@pytest.mark.parametrize(("make", "factored"), [(smooth, ("5", "9")), (lambda: Twice().double(), ("last",))])
def test_scores_and_gradients_are_those_of_the_full_step(make, factored):
    model, budget = make().eval(), PoisonBudget(lr=0.3)
    poison, normal, none = (Labelled(*pictures(n, seed)) for seed, n in enumerate((4, 7, 0)))
    victim, order = Victim(model), order_of(budget, 0, 1, 0)
    step = OneImageStep(victim, poison.images[:1], budget)
    assert step.factored == factored
    for image, label in zip(poison.images, poison.labels, strict=True):
        alone = Labelled(image[None], label[None])
        wanted = victim.logits(retrained(victim, alone, none, order, budget), normal.images)
        assert torch.allclose(step.logits(image, label, normal.images), wanted, atol=1e-12)

    def loss(image: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return floored_loss(step.logits(image, label, normal.images), normal.labels)

    found = vmap(grad(loss))(poison.images, poison.labels)
    for place in range(len(poison)):
        alone = Labelled(poison.images[place : place + 1], poison.labels[place : place + 1])
        wanted, _ = hypergradient(victim, alone, normal, none, order, budget)
        assert torch.allclose(found[place], wanted[0], atol=1e-12) and wanted.abs().max() > 1e-6


def test_a_step_leaves_no_hooks_behind():
    model = smooth().eval()
    image, label = pictures(1)
    OneImageStep(Victim(model), image, PoisonBudget()).logits(image[0], label[0], image)
    assert not any(module._forward_hooks for module in model.modules())
