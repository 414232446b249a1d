"""The frame of other libraries' attacks: what is returned is brought back, models are frozen and let go."""

import pytest
import torch
from torch import nn

from attack_cases import mixed_network, small_images
from spokeshave.errors import InvalidArgument
from spokeshave.threats.outside_attacks import by_strength, contained, frozen, require_batch_size
from spokeshave.threats.perturbation import Norm, sizes


@pytest.mark.parametrize("norm", Norm)
def test_what_leaves_ball_or_range_is_brought_back_and_what_is_inside_stays(norm):
    images, _ = small_images()
    strengths = torch.tensor([0.0, 0.1, 0.3, 0.1, 2.0, float("inf")])
    found = contained(images + 5 * torch.randn(images.shape), images, strengths, norm)
    assert bool((sizes(found - images, norm) <= strengths + 1e-6).all())
    assert float(found.min()) >= 0 and float(found.max()) <= 1 and torch.equal(found[0], images[0])
    inside = (images + 0.001).clamp(0, 1)
    torch.testing.assert_close(contained(inside, images, torch.ones(6), norm), inside, rtol=0, atol=1e-7)


def test_images_that_came_back_broken_count_as_not_attacked():
    images = torch.full((3, 2), 0.5)
    broken = torch.tensor([[0.6, torch.nan], [0.6, torch.inf], [0.6, 0.6]])
    found = contained(broken, images, torch.ones(3), Norm.LINF)
    assert torch.equal(found[:2], images[:2]) and torch.equal(found[2], broken[2])


def test_a_frozen_model_gathers_no_gradients_and_is_let_go_after_an_error():
    model, (images, _) = mixed_network(), small_images()
    asked = [parameter.requires_grad for parameter in model.parameters()]
    held = [parameter.grad for parameter in model.parameters()]
    with frozen(model):
        assert not any(module.training for module in model.modules())
        model(images.clone().requires_grad_()).sum().backward()
    with pytest.raises(ZeroDivisionError), frozen(model):
        1 / 0  # noqa: B018
    assert [parameter.requires_grad for parameter in model.parameters()] == asked
    assert all(now.grad is then for now, then in zip(model.parameters(), held, strict=True))
    assert model.training and not model[1].training


def test_groups_of_one_strength_are_attacked_together_and_strength_0_not_at_all():
    seen = []

    def attack_group(places: torch.Tensor, strength: float) -> torch.Tensor:
        seen.append((places.tolist(), strength))
        return images[places] + strength

    images = torch.zeros(5, 1)
    found = by_strength(images, torch.tensor([0.5, 0.0, 0.25, 0.5, 0.0]), attack_group)
    assert seen == [([2], 0.25), ([0, 3], 0.5)] and found.flatten().tolist() == [0.5, 0, 0.25, 0.5, 0]


def test_a_batch_of_none_is_refused():
    require_batch_size(1)
    with pytest.raises(InvalidArgument, match="batch_size: expected at least 1 image, got 0"):
        require_batch_size(0)


def test_a_model_without_weights_can_be_frozen():
    model = nn.Flatten()
    with frozen(model):
        assert not model.training
    assert model.training
