"""The public verbs: damage against a plain retraining, what is refused, and a model that is left as it was."""

import copy

import pytest
import torch
from torch import nn

from poison_cases import digits, pictures, smooth, trained
from spokeshave.errors import InvalidArgument, UnsupportedLayer
from spokeshave.threats.poison_budget import Placement, PoisonBudget
from spokeshave.threats.poison_gradient import Ascent, PoisonMethod
from spokeshave.threats.poisoning import damage, poison

TOGETHER = PoisonBudget(placement=Placement.TOGETHER, steps=10, batch_size=20, batch_share=0.2)


def state(model: nn.Module) -> tuple:
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    return tensors, [module.training for module in model.modules()], torch.get_rng_state()


def test_accuracy_after_one_poison_is_that_of_a_plain_step():
    (images, labels), test = digits()
    wrong = (labels[:6] + 1) % 10
    found = damage(trained(), images[:6], wrong, test, PoisonBudget(lr=0.2, bias_lr=0.1), chunk=4)
    wanted = []
    for image, label in zip(images[:6], wrong, strict=True):
        model = copy.deepcopy(trained())
        nn.functional.cross_entropy(model(image[None]), label[None]).backward()
        for name, p in model.named_parameters():
            p.data -= (0.1 if name.endswith("bias") else 0.2) * p.grad
        wanted.append((model(test[0]).argmax(1) == test[1]).float().mean())
    assert torch.allclose(found.accuracies, torch.stack(wanted))
    before = (trained()(test[0]).argmax(1) == test[1]).float().mean().item()
    assert found.before == pytest.approx(before) and found.clean is None
    assert found.drop == pytest.approx(before - float(sum(wanted)) / 6)


def test_poisons_harm_more_than_flipped_labels_alone_and_together():
    (images, labels), test = digits()
    normal = images[200:400], labels[200:400]
    alone = PoisonBudget()
    made = poison(trained(), images[:10], labels[:10], *normal, alone, how=Ascent(20))
    assert made.labels.tolist() == ((labels[:10] + 1) % 10).tolist() and len(made.objective) == 21
    assert damage(trained(), made.images, made.labels, test, alone).mean < (
        damage(trained(), images[:10], made.labels, test, alone).mean - 0.15
    )
    rest = images[400:], labels[400:]
    made = poison(
        trained(), images[:10], labels[:10], *normal, TOGETHER, how=Ascent(8, step=0.2, orders=1), training=rest
    )
    flipped = damage(trained(), images[:10], made.labels, test, TOGETHER, training=rest, seeds=range(3))
    poisoned = damage(trained(), made.images, made.labels, test, TOGETHER, training=rest, seeds=range(3))
    assert flipped.accuracies.shape == (3,) and flipped.clean == poisoned.clean
    assert poisoned.mean < flipped.mean - 0.03 and flipped.clean > flipped.mean
    assert damage(trained(1), made.images, made.labels, test, TOGETHER, training=rest).drop > 0, "they transfer"


def test_the_retraining_without_poison_is_one_on_as_many_clean_images():
    (images, labels), test = digits()
    few, rest = (images[:3], labels[:3]), (images[200:240], labels[200:240])
    for placement in Placement:
        # The clean images are one batch, whatever its order: half of it would give other weights.
        budget = PoisonBudget(placement=placement, batch_size=40, batch_share=0.5, lr=0.5, bias_lr=0.25)
        model = copy.deepcopy(trained(1))
        nn.functional.cross_entropy(model(rest[0]), rest[1]).backward()
        for name, p in model.named_parameters():
            p.data -= (0.25 if name.endswith("bias") else 0.5) * p.grad
        wanted = (model(test[0]).argmax(1) == test[1]).double().mean().item()
        assert damage(trained(1), *few, test, budget, training=rest).clean == pytest.approx(wanted)
    for budget in (PoisonBudget(), PoisonBudget(batch_size=4, batch_share=1.0)):
        found = damage(trained(1), *few, test, budget, training=rest)
        assert found.clean is None and found.drop == pytest.approx(found.before - found.mean)


@pytest.mark.parametrize("method", PoisonMethod)
@pytest.mark.parametrize("budget", [PoisonBudget(), PoisonBudget(placement=Placement.TOGETHER, steps=2, batch_size=4)])
def test_the_model_is_left_as_it_was(method, budget):
    model = smooth().train()
    model[1].eval()
    before = state(model)
    bases, normal = pictures(3), pictures(6, 1)
    made = poison(model, *bases, *normal, budget, method, Ascent(rounds=2))
    damage(model, made.images, made.labels, normal, budget, training=normal)
    after = state(model)
    assert all(torch.equal(before[0][name], after[0][name]) for name in before[0])
    assert before[1] == after[1] and torch.equal(before[2], after[2])
    assert all(p.grad is None for p in model.parameters()) and not model[7].weight.requires_grad
    assert not made.images.requires_grad and made.seconds > 0 and made.images.dtype == torch.float64


def test_what_cannot_be_poisoned_is_refused():
    bases, normal = pictures(3), pictures(6, 1)
    with pytest.raises(InvalidArgument, match=r"base_images: expected values in 0..1, got .*\.\.2"):
        poison(smooth(), bases[0] * 0 + 2, bases[1], *normal)
    with pytest.raises(InvalidArgument, match="base_labels|base_images: expected class numbers 0..2"):
        poison(smooth(), bases[0], bases[1] + 3, *normal)
    with pytest.raises(
        InvalidArgument, match=r"test: expected images of shape \(1, 4, 4\) as the poisons', got \(1, 3, 3"
    ):
        damage(smooth(), *bases, (normal[0][:, :, :3, :3], normal[1]))
    with pytest.raises(InvalidArgument, match="expected logits, got probabilities"):
        poison(nn.Sequential(smooth(), nn.Softmax(1)), *bases, *normal)
    with pytest.raises(UnsupportedLayer, match="none of its parameters is trainable"):
        poison(smooth().requires_grad_(False), *bases, *normal)
    with pytest.raises(InvalidArgument, match="the budget allows 2 poisons, got 3"):
        poison(smooth(), *bases, *normal, PoisonBudget(count=2))
    with pytest.raises(InvalidArgument, match="expected torch.float64"):
        poison(smooth(), bases[0].float(), bases[1], *normal)
    with pytest.raises(InvalidArgument, match="seeds: expected at least one"):
        damage(smooth(), *bases, normal, seeds=())
    with pytest.raises(InvalidArgument, match="need clean training images"):
        damage(smooth(), *bases, normal, PoisonBudget(batch_size=4))


def test_a_layer_without_a_second_derivative_is_refused():
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, gradient):
            return gradient

    class Layer(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return Once.apply(x)

    with pytest.raises(UnsupportedLayer, match="differentiates a training step"):
        poison(nn.Sequential(Layer(), smooth()), *pictures(3), *pictures(6, 1))


def test_a_rounding_layer_is_named():
    class Rounded(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x * 255).round() / 255

    with pytest.raises(UnsupportedLayer, match=r"layer 0 \(Rounded\)"):
        poison(nn.Sequential(Rounded(), smooth()), *pictures(3), *pictures(6, 1))
