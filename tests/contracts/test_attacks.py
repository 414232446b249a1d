"""What every attack promises, ours and those of other libraries, run over all that `spokeshave.threats` defines."""

import copy
import importlib
import inspect
import pkgutil

import numpy as np
import pytest
import torch
from torch.nn import functional

from attack_cases import digits, digits_network, mixed_network, small_images
from spokeshave import threats
from spokeshave.data import DatasetName, load
from spokeshave.errors import InvalidArgument, UnsupportedLayer
from spokeshave.models.small_cnn import SmallCNN
from spokeshave.threats.attackable import evaluating
from spokeshave.threats.autoattack import AutoAttack, Part
from spokeshave.threats.foolbox_attacks import FoolboxAttack, foolbox_fgsm, foolbox_pgd
from spokeshave.threats.gradient_attack import Attack, fgsm, pgd
from spokeshave.threats.outside_attacks import MakesExamples
from spokeshave.threats.perturbation import Norm, sizes
from spokeshave.threats.robust_accuracy import robust_accuracy

STEADY = {
    f"{name}-{norm.value}": make(norm)
    for norm in Norm
    for name, make in {
        "fgsm": lambda norm: fgsm(norm=norm),
        "pgd": lambda norm: pgd(4, False, norm),
        "foolbox-fgsm": lambda norm: foolbox_fgsm(norm),
        "foolbox-pgd": lambda norm: foolbox_pgd(4, False, norm),
    }.items()
}
"""Attacks that draw nothing."""
DRAWING = {
    f"{name}-{norm.value}": make(norm)
    for norm in Norm
    for name, make in {
        "fgsm-rs": lambda norm: fgsm(True, norm),
        "pgd-rs": lambda norm: pgd(4, True, norm),
        "foolbox-pgd-rs": lambda norm: foolbox_pgd(4, True, norm),
        "apgd": lambda norm: AutoAttack(norm, (Part.APGD_CE,)),
        "square": lambda norm: AutoAttack(norm, (Part.SQUARE,), queries=20),
    }.items()
}
ALL = STEADY | DRAWING
SLOW = {"fab-t": AutoAttack(parts=(Part.FAB_T,))}
"""Tried only on what a gradient by `backward` could break."""
STRENGTHS = torch.tensor([0.0, 0.1, 0.3, 0.1, 2.0, 0.0])


def classes_that_attack() -> set[type]:
    modules = [
        importlib.import_module(f"{threats.__name__}.{found.name}") for found in pkgutil.iter_modules(threats.__path__)
    ]
    return {
        kind
        for module in modules
        for kind in vars(module).values()
        if inspect.isclass(kind) and kind.__module__ == module.__name__ and kind is not MakesExamples
        if callable(call := vars(kind).get("__call__")) and "strengths" in inspect.signature(call).parameters
    }


def attacked(attack, model, images, labels, strengths, seed=0):
    return attack(model, images, labels, strengths, torch.Generator().manual_seed(seed))


def test_the_sweep_is_not_empty_and_knows_every_attack():
    assert classes_that_attack() == {type(attack) for attack in ALL.values()} == {Attack, FoolboxAttack, AutoAttack}
    assert all(isinstance(attack, MakesExamples) for attack in ALL.values())


@pytest.mark.parametrize("name", ALL)
def test_strength_0_gives_the_images_back_bit_for_bit(name):
    images, labels = small_images()
    assert torch.equal(attacked(ALL[name], mixed_network(), images, labels, 0.0), images)


@pytest.mark.parametrize("name", ALL)
def test_images_stay_in_their_balls_and_in_range_and_are_no_part_of_a_graph(name):
    images, labels = small_images()
    kept = images.clone()
    found = attacked(ALL[name], mixed_network(), images, labels, STRENGTHS)
    assert bool((sizes(found - images, ALL[name].norm) <= STRENGTHS + 1e-6).all())
    assert float(found.min()) >= 0 and float(found.max()) <= 1 and not found.requires_grad
    assert torch.equal(found[STRENGTHS == 0], images[STRENGTHS == 0]) and torch.equal(images, kept)


@pytest.mark.parametrize("name", ALL | SLOW)
def test_the_model_and_every_random_state_end_as_they_were(name):
    model, (images, labels) = mixed_network(), small_images()
    before, gradients = copy.deepcopy(model), [parameter.grad for parameter in model.parameters()]
    modes = [module.training for module in model.modules()]
    # Python's own state is not looked at: the check of annotations in the tests draws from it.
    states = np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    attacked((ALL | SLOW)[name], model, images, labels, 0.1 if name in SLOW else STRENGTHS)
    assert np.random.get_state()[1].tolist() == states[0]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[1])
    assert [module.training for module in model.modules()] == modes and len(set(modes)) == 2
    assert all(torch.equal(now, then) for now, then in zip(model.buffers(), before.buffers(), strict=True))
    for now, then, gradient in zip(model.parameters(), before.parameters(), gradients, strict=True):
        assert torch.equal(now, then) and now.requires_grad == then.requires_grad and now.grad is gradient
        assert gradient is None or bool((gradient == 3).all())


@pytest.mark.parametrize("name", ALL)
def test_the_seed_decides_what_is_drawn(name):
    model, (images, labels) = mixed_network(), small_images()
    first, again, other = (attacked(ALL[name], model, images, labels, 0.1, seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    if name in STEADY:
        assert torch.equal(first, other)


@pytest.mark.parametrize("name", ["fgsm-rs-linf", "pgd-rs-l2", "foolbox-pgd-rs-linf", "apgd-linf", "square-linf"])
def test_another_seed_draws_something_else(name):
    model, (images, labels) = mixed_network(), small_images()
    with evaluating(model), torch.no_grad():
        labels = model(images).argmax(1)
    first, other = (attacked(ALL[name], model, images, labels, 0.3, seed) for seed in (0, 1))
    assert not torch.equal(first, other)


@pytest.mark.parametrize("name", STEADY)
def test_strengths_an_image_and_any_split_into_batches_equal_separate_runs(name):
    model, (images, labels) = mixed_network(), small_images()
    together = attacked(STEADY[name], model, images, labels, STRENGTHS)
    for index, strength in enumerate(STRENGTHS.tolist()):
        alone = attacked(STEADY[name], model, images[index : index + 1], labels[index : index + 1], strength)
        torch.testing.assert_close(together[index : index + 1], alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_a_trained_network_loses_accuracy(name):
    images, labels = (part[:12] for part in digits())
    strength = 0.2 if ALL[name].norm is Norm.LINF else 2.0
    clean, under_attack = robust_accuracy(digits_network(), (images, labels), ALL[name], [0.0, strength])
    assert under_attack <= clean - 0.25


@pytest.mark.parametrize(
    ("norm", "strengths"), [(Norm.LINF, [0.0, 0.03, 0.06, 0.1, 0.3]), (Norm.L2, [0.0, 0.3, 0.6, 1])]
)
@pytest.mark.parametrize("steps", [1, 10])
def test_our_accuracies_are_foolboxs(norm, strengths, steps):
    form = Attack(steps, min(1.0, 2.5 / steps), norm)
    ours, theirs = (
        robust_accuracy(digits_network(), digits(), attack, strengths) for attack in (form, FoolboxAttack(form))
    )
    assert ours == pytest.approx(theirs, abs=1e-3)
    assert ours[0] > 0.85 and ours[0] - ours[-1] > 0.5 and len(set(ours)) == len(ours)


def test_autoattack_is_no_weaker_than_our_pgd():
    data = tuple(part[:30] for part in digits())
    suite = AutoAttack(parts=(Part.APGD_CE, Part.APGD_T))
    assert robust_accuracy(digits_network(), data, suite, [0.06]) <= robust_accuracy(
        digits_network(), data, pgd(20, False), [0.06]
    )


@pytest.mark.parametrize("name", ["fgsm-linf", "foolbox-fgsm-linf", "apgd-linf", "square-linf"])
def test_what_is_no_input_is_refused_by_name(name):
    attack, model, (images, labels) = ALL[name], mixed_network(), small_images()
    wrong = {
        r"images: .*got 0..255": (model, (images * 255).round(), labels, 0.1),
        "images: .*NaN": (model, images * torch.nan, labels, 0.1),
        "labels: .*0..4, got 1..5": (model, images, labels + 1, 0.1),
        r"labels: .*got torch.int64 of shape \(5,\)": (model, images, labels[:5], 0.1),
        "strengths: .*at least 0, got -1": (model, images, labels, -1.0),
        "strengths: .*finite": (model, images, labels, float("nan")),
        "images: expected torch.float32": (model, images.double(), labels, 0.1),
        "Sequential: expected logits, got probabilities": (
            torch.nn.Sequential(*model, torch.nn.Softmax(1)), images, labels, 0.1
        ),
    }  # fmt: skip
    # Past the check of annotations, which sees some of it before the attack does.
    unchecked = getattr(type(attack).__call__, "__wrapped__", type(attack).__call__)
    for message, arguments in wrong.items():
        with pytest.raises(InvalidArgument, match=message):
            unchecked(attack, *arguments)


class Rounding(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.round()


@pytest.mark.parametrize("name", ["fgsm-linf", "foolbox-fgsm-linf", "apgd-linf"])
def test_a_layer_without_a_gradient_is_refused_by_name_unless_none_is_needed(name):
    model, (images, labels) = torch.nn.Sequential(Rounding(), *mixed_network()), small_images()
    with pytest.raises(UnsupportedLayer, match="layer 0 .Rounding"):
        attacked(ALL[name], model, images, labels, 0.1)
    assert attacked(ALL["square-linf"], model, images, labels, 0.1).shape == images.shape


@pytest.mark.real_data
def test_our_accuracies_are_foolboxs_on_mnist(real_data_dir):
    splits = load(DatasetName.MNIST)
    model, data = SmallCNN(width=4, hidden=32), splits.test.subset(range(500))
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    for chosen in torch.randperm(25600).split(128):
        optimizer.zero_grad()
        functional.cross_entropy(
            model(splits.train.images[chosen].float() / 255), splits.train.labels[chosen]
        ).backward()
        optimizer.step()
    for norm, strengths in ((Norm.LINF, [0.0, 0.05, 0.1, 0.2]), (Norm.L2, [0.5, 1.0, 2.0])):
        for steps in (1, 10):
            form = Attack(steps, min(1.0, 2.5 / steps), norm)
            ours, theirs = (robust_accuracy(model, data, attack, strengths) for attack in (form, FoolboxAttack(form)))
            assert ours == pytest.approx(theirs, abs=1e-3) and ours[0] > 0.7
