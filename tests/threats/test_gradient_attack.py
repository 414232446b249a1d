"""FGSM and PGD on models whose best attack is known: linear ones in closed form, one with two pixels by a grid."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional

from attack_cases import mixed_network, small_images
from spokeshave.errors import InvalidArgument
from spokeshave.threats.attackable import evaluating
from spokeshave.threats.gradient_attack import Attack, InnerAttack, fgsm, pgd, require_attackable
from spokeshave.threats.perturbation import Norm, sizes


def linear(weights: torch.Tensor) -> nn.Sequential:
    """Two classes, logits x.w and -x.w: the loss of class 0 rises along -w everywhere."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(weights.numel(), 2, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.stack([weights, -weights]))
    return model


def losses(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    with torch.no_grad(), evaluating(model):
        return functional.cross_entropy(model(images), labels, reduction="none")


@pytest.mark.parametrize("attack", [fgsm(), pgd(5, False), fgsm(True), pgd(40)])
def test_on_a_linear_model_the_largest_change_is_the_sign_of_the_weights(attack):
    weights = torch.tensor([0.5, -2.0, 1.0])
    images, labels = torch.full((2, 1, 1, 3), 0.5), torch.tensor([0, 1])
    found = attack(linear(weights), images, labels, torch.tensor([0.1, 0.2]), torch.Generator().manual_seed(0))
    expected = torch.stack([0.5 - 0.1 * weights.sign(), 0.5 + 0.2 * weights.sign()]).reshape(2, 1, 1, 3)
    if attack.steps > 1 or not attack.random_start:
        torch.testing.assert_close(found, expected)
    assert bool((sizes(found - images, Norm.LINF) <= torch.tensor([0.1, 0.2]) + 1e-6).all())


@pytest.mark.parametrize("attack", [fgsm(norm=Norm.L2), pgd(5, False, Norm.L2)])
def test_on_a_linear_model_the_euclidean_step_is_along_the_weights(attack):
    weights = torch.tensor([3.0, -4.0])
    found = attack(linear(weights), torch.full((1, 1, 1, 2), 0.5), torch.tensor([0]), 0.25)
    torch.testing.assert_close(found.flatten(), torch.tensor([0.5 - 0.25 * 0.6, 0.5 + 0.25 * 0.8]))


def test_the_gradient_of_the_logistic_model_is_the_analytic_one():
    """log((1 - p) / p) of class 0 is -2 x.w, its gradient -2 w, where cross entropy's is that times 1 - p."""
    weights, images = torch.randn(6), torch.rand(8, 1, 2, 3)
    model, labels = linear(weights), torch.zeros(8, dtype=torch.int64)
    found = Attack()._gradients(model, images, labels)
    torch.testing.assert_close(found.flatten(1), (-2 * weights).expand(8, 6))
    asking = images.clone().requires_grad_()
    entropy = torch.autograd.grad(functional.cross_entropy(model(asking), labels, reduction="sum"), asking)[0]
    other = torch.sigmoid(-2 * images.flatten(1) @ weights)  # 1 - p
    torch.testing.assert_close(found * other.view(8, 1, 1, 1), entropy)


def test_no_point_of_a_grid_in_the_ball_has_a_larger_loss_than_fgsm_on_a_linear_model():
    axis = [index / 10 for index in range(-10, 11)]
    grid = 0.3 * torch.tensor(list(itertools.product(axis, axis)))
    model, image = linear(torch.tensor([1.0, -0.3])), torch.tensor([0.9, 0.2])
    labels = torch.zeros(1, dtype=torch.int64)
    found = fgsm()(model, image.reshape(1, 1, 1, 2), labels, 0.3)
    tried = (image + grid).clamp(0, 1).reshape(-1, 1, 1, 2)
    assert float(losses(model, found, labels)) >= float(losses(model, tried, labels.expand(len(tried))).max()) - 1e-6


def test_pgd_comes_near_the_largest_loss_that_a_grid_finds_where_one_step_does_not():
    torch.manual_seed(4)
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2))
    with torch.no_grad():
        model[1].weight.mul_(8)
        model[3].weight.mul_(8)
    images = torch.rand(6, 1, 1, 2)
    with torch.no_grad():
        labels = model(images).argmax(1)
    axis = [0.3 * index / 60 for index in range(-60, 61)]
    grid = torch.tensor(list(itertools.product(axis, axis))).reshape(-1, 1, 1, 2)
    best = torch.stack(
        [
            losses(model, (image + grid).clamp(0, 1), label.expand(len(grid))).max()
            for image, label in zip(images, labels, strict=True)
        ]
    )
    single, many = (losses(model, attack(model, images, labels, 0.3), labels) for attack in (fgsm(), pgd(40, False)))
    assert float((best - many).max()) < 0.05 * float(best.max()) < float((best - single).max())


def test_a_step_of_bfloat16_gives_nearly_the_same_directions():
    model, (images, labels) = mixed_network(), small_images()
    exact, rough = (Attack(dtype=dtype)(model, images, labels, 0.1) for dtype in (torch.float32, torch.bfloat16))
    assert float((exact == rough).double().mean()) > 0.95 and rough.dtype == torch.float32


def test_the_loop_of_training_gets_the_same_images_without_the_checks():
    model, (images, labels) = mixed_network(), small_images()
    asked = [pgd(3), fgsm(True, Norm.L2)]
    for attack in asked:
        checked = attack(model, images, labels, 0.1, torch.Generator().manual_seed(1))
        strengths = torch.full((len(images),), 0.1)
        assert torch.equal(attack.perturb(model, images, labels, strengths, torch.Generator().manual_seed(1)), checked)
    assert len(asked[0].perturb(model, images[:0], labels[:0], torch.zeros(0))) == 0


def test_names_of_the_field_are_these_attacks_and_settings_are_json_values():
    assert [inner.attack().steps for inner in InnerAttack] == [1, 1, 4, 10]
    assert [inner.attack().random_start for inner in InnerAttack] == [False, True, True, True]
    assert InnerAttack.PGD_4.attack(Norm.L2).settings() == {
        "steps": 4, "step_share": 0.4, "norm": "l2", "random_start": True, "dtype": "float32"
    }  # fmt: skip


def test_numbers_out_of_range_are_refused():
    for wrong in ({"steps": 0}, {"step_share": 0.0}, {"step_share": float("nan")}, {"dtype": torch.float64}):
        with pytest.raises(InvalidArgument, match="expected"):
            Attack(**wrong)


def test_what_an_attack_needs_is_checked_once_and_the_classes_are_counted():
    model, (images, labels) = mixed_network(classes=5), small_images()
    assert require_attackable(model, images, labels) == 5
    with pytest.raises(InvalidArgument, match=r"labels: expected class numbers 0..4, got 0..5"):
        require_attackable(model, images, torch.arange(6))


class NotFinite(nn.Module):
    """Finite scores, whose gradient is not: the square root at nothing."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([(x.flatten(1).sum(1) * 0).sqrt() + x.flatten(1)[:, 0], x.flatten(1)[:, 1]], 1)


def test_gradients_that_are_not_finite_are_refused():
    with pytest.raises(InvalidArgument, match="NotFinite: the gradient at the images is not finite"):
        fgsm(norm=Norm.L2)(NotFinite(), torch.tensor([[0.3, 0.5]] * 3), torch.zeros(3, dtype=torch.int64), 0.1)


def test_a_network_that_is_sure_is_attacked_all_the_same() -> None:
    """Scores times a hundred change no decision; in float32 the gradient of cross entropy is then nothing."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
    images = torch.rand(200, 1, 4, 4)
    labels = network(images).argmax(1)

    class Sure(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return 1e4 * network(images)

    asking = images.clone().requires_grad_()
    loss = functional.cross_entropy(Sure()(asking), labels, reduction="sum")
    gone = torch.autograd.grad(loss, asking)[0].flatten(1).abs().amax(1) == 0
    assert int(gone.sum()) > 100
    for attack in (fgsm(), pgd(5, start=False), fgsm(norm=Norm.L2)):
        plain, sure = (attack(one, images, labels, 0.1) for one in (network, Sure()))
        # Up to where another class is near: the softmax over the wrong ones is sharper in the sure network.
        fooled = [float((network(one).argmax(1) != labels).float().mean()) for one in (plain, sure)]
        assert fooled[0] > 0.05 and fooled[1] >= fooled[0] - 0.02
