"""Robust accuracy against counting by hand on a model whose margins are known, and against attacks that cheat."""

import numpy as np
import pytest
import torch
from torch import nn

from attack_cases import digits, digits_network
from spokeshave.data import Split
from spokeshave.errors import InvalidArgument
from spokeshave.threats.gradient_attack import fgsm, pgd
from spokeshave.threats.perturbation import Norm
from spokeshave.threats.robust_accuracy import (
    area_under_curve,
    batches_of,
    robust_accuracy,
    survivors,
    transfer_accuracies,
)


def brightness(threshold: float) -> nn.Sequential:
    """Class 0 where an image of one pixel is brighter than the threshold, else class 1."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[1.0], [-1.0]]))
        model[1].bias.copy_(torch.tensor([-threshold, threshold]))
    return model


GREYS = [0.1, 0.3, 0.45, 0.55, 0.7, 0.9]
DATA = torch.tensor(GREYS).reshape(6, 1, 1, 1), torch.tensor([1, 1, 0, 0, 0, 0])
"""The third has another class than its brightness says: wrong from the start."""


class Recorder:
    """Counts what it is given, and answers with images of its choice."""

    norm = Norm.LINF

    def __init__(self, answers=None):
        self.asked, self.seeds, self.answers = [], [], answers

    def __call__(self, model, images, labels, strengths, generator=None):
        self.asked.append((images.flatten().tolist(), strengths))
        self.seeds.append(generator.initial_seed())
        return images if self.answers is None else self.answers.pop(0)(images)


def test_an_image_stands_while_its_margin_is_larger_than_the_strength():
    strengths = [0.0, 0.1, 0.3, 0.45]
    found = survivors(brightness(0.5), DATA, fgsm(), strengths)
    for row, strength in zip(found.tolist(), strengths, strict=True):
        right = [abs(grey - 0.5) > strength and index != 2 for index, grey in enumerate(GREYS)]
        assert row == right
    assert robust_accuracy(brightness(0.5), DATA, fgsm(), strengths) == pytest.approx([5 / 6, 4 / 6, 2 / 6, 0])


def test_only_what_still_stands_is_attacked_again_and_at_strength_0_nothing():
    attack = Recorder([lambda x: torch.where(x > 0.8, 0.0, x), lambda x: x])
    found = survivors(brightness(0.5), DATA, attack, [0.0, 0.2], restarts=2)
    assert [images for images, _ in attack.asked] == [
        pytest.approx(GREYS[:2] + GREYS[3:]),
        pytest.approx([0.1, 0.3, 0.55, 0.7]),
    ]
    assert found.tolist() == [[True, True, False, True, True, True], [True, True, False, True, True, False]]


def test_every_batch_strength_and_restart_draws_from_a_generator_of_its_own():
    attack = Recorder()
    survivors(brightness(0.5), DATA, attack, [0.1, 0.2], seed=7, batch_size=2, restarts=3)
    assert len(attack.seeds) == len(set(attack.seeds)) == 3 * 2 * 3
    again = Recorder()
    survivors(brightness(0.5), DATA, again, [0.1, 0.2], seed=7, batch_size=2, restarts=3)
    assert again.seeds == attack.seeds


@pytest.mark.parametrize("batch_size", [33, 100])
def test_the_size_of_batches_changes_nothing(batch_size):
    expected = survivors(digits_network(), digits(), pgd(3, False), [0.03, 0.1], batch_size=500)
    assert torch.equal(
        survivors(digits_network(), digits(), pgd(3, False), [0.03, 0.1], batch_size=batch_size), expected
    )


def test_restarts_can_only_lower_accuracy():
    one, many = (survivors(digits_network(), digits(), fgsm(True), [0.06], restarts=n) for n in (1, 4))
    assert bool((many <= one).all())


def test_a_split_is_taken_as_grey_levels_over_255():
    split = Split(torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(3, 1, 1, 1), torch.tensor([1, 0, 2]))
    batches = list(batches_of(split, 2, torch.device("cpu")))
    assert [images.flatten().tolist() for images, _ in batches] == [pytest.approx([0, 0.2]), [1.0]]
    assert torch.cat([labels for _, labels in batches]).tolist() == [1, 0, 2]


def test_area_is_numpys_trapezoid_over_the_range():
    strengths, accuracies = [0.0, 0.05, 0.1, 0.3], [0.98, 0.9, 0.85, 0.2]
    assert area_under_curve(strengths, accuracies) == pytest.approx(np.trapezoid(accuracies, strengths) / 0.3)
    assert area_under_curve([0.1, 0.2], [1.0, 1.0]) == 1.0
    for wrong in (([0.1], [1.0]), ([0.2, 0.1], [1.0, 1.0]), ([0.1, 0.2], [1.0]), ([0.1, float("nan")], [1.0, 1.0])):
        with pytest.raises(InvalidArgument, match="expected"):
            area_under_curve(*wrong)


def test_transfer_counts_each_target_on_the_images_of_each_source():
    """An attack on threshold 0.5 moves bright images down by 0.2 and dark ones up; targets judge by their own."""
    members = [brightness(0.5), brightness(0.2)]
    found = transfer_accuracies(members, DATA, fgsm(), 0.2, batch_size=4)
    moved = [grey + (0.2 if label == 1 else -0.2) for grey, label in zip(GREYS, DATA[1].tolist(), strict=True)]
    expected = [
        sum((grey > threshold) == (label == 0) for grey, label in zip(moved, DATA[1].tolist(), strict=True)) / 6
        for threshold in (0.5, 0.2)
    ]
    assert found.tolist() == [pytest.approx(expected)] * 2  # the gradients of the two have the same signs


def test_what_cannot_be_measured_is_refused():
    images, labels = DATA
    wrong = {
        "strengths: expected finite": lambda: robust_accuracy(brightness(0.5), DATA, fgsm(), []),
        "got .0.1, -1": lambda: robust_accuracy(brightness(0.5), DATA, fgsm(), [0.1, -1.0]),
        "restarts": lambda: robust_accuracy(brightness(0.5), DATA, fgsm(), [0.1], restarts=0),
        "batch_size": lambda: robust_accuracy(brightness(0.5), DATA, fgsm(), [0.1], batch_size=0),
        r"got 25.5..229.5": lambda: robust_accuracy(brightness(0.5), (images * 255, labels), fgsm(), [0.1]),
        "labels": lambda: robust_accuracy(brightness(0.5), (images, labels[:3]), fgsm(), [0.1]),
        "at least one image": lambda: robust_accuracy(
            brightness(0.5), Split(torch.zeros(0, 1, 1, 1, dtype=torch.uint8), labels[:0]), fgsm(), [0.1]
        ),
        "members": lambda: transfer_accuracies([], DATA, fgsm(), 0.1),
        "got probabilities": lambda: robust_accuracy(
            nn.Sequential(brightness(0.5), nn.Softmax(1)), DATA, fgsm(), [0.0]
        ),
    }
    for message, call in wrong.items():
        with pytest.raises(InvalidArgument, match=message):
            call()
