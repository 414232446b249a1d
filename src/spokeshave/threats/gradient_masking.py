"""Gradient masking: signs that an attack fails for want of good gradients, and not because a network is robust.

Athalye, Carlini, Wagner: Obfuscated Gradients Give a False Sense of Security, ICML 2018, section 3.1; Carlini et al.:
On Evaluating Adversarial Robustness, arXiv:1902.06705, 2019, section 4. Each sign compares two accuracies of which one
is at least the other where attacks do what they should. Departs from the papers: "unbounded attacks do not reach 100 %"
is made exact: at half the range of a pixel all images can become the same grey, on which any network has only the most
frequent class right.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise

from torch import nn

from spokeshave.errors import InvalidArgument
from spokeshave.threats.gradient_attack import fgsm, pgd
from spokeshave.threats.labelled_images import device_of
from spokeshave.threats.outside_attacks import MakesExamples
from spokeshave.threats.perturbation import Norm
from spokeshave.threats.robust_accuracy import Labelled, batches_of, robust_accuracy


class Sign(Enum):
    """Signs of masking, by what was seen."""

    NOT_MONOTONE = "accuracy rises with strength"
    ONE_STEP_STRONGER = "one step does more than many"
    MORE_STEPS_WEAKER = "more steps do less"
    STANDS_ON_GREY = "stands where all images can be grey"
    BLACK_BOX_STRONGER = "an attack without gradients does more"


@dataclass(frozen=True)
class Finding:
    """One comparison that came out the wrong way.

    Attributes:
        sign: what was seen.
        strength: of the attack.
        accuracy: under the attack that should have been the stronger one.
        limit: that it should not exceed.
    """

    sign: Sign
    strength: float
    accuracy: float
    limit: float

    def __str__(self) -> str:
        return (
            f"{self.sign.value}: accuracy {self.accuracy:.1%} at strength {self.strength:g}, where at most "
            f"{self.limit:.1%} is possible"
        )


@dataclass(frozen=True)
class AttackCurves:
    """Accuracies of one network under attacks of rising strength, from which signs of masking are read.

    Attributes:
        strengths: rising.
        one_step: under FGSM; one for each strength, 0..1, as all that follow.
        steps: under PGD.
        more_steps: under PGD with more of them.
        black_box: under an attack that sees no gradients of the network; empty where none was run.
        grey_strength: from which on an image can become plain grey: 1/2 for the largest change.
        grey_accuracy: share of the most frequent class.
    """

    strengths: tuple[float, ...]
    one_step: tuple[float, ...]
    steps: tuple[float, ...]
    more_steps: tuple[float, ...]
    black_box: tuple[float, ...] = ()
    grey_strength: float = 0.5
    grey_accuracy: float = 1.0

    def __post_init__(self) -> None:
        curves = (self.one_step, self.steps, self.more_steps, self.black_box or self.steps)
        if not self.strengths or any(len(curve) != len(self.strengths) for curve in curves):
            raise InvalidArgument(
                f"curves: expected {len(self.strengths)} accuracies each, got {[len(curve) for curve in curves]}"
            )
        if any(low >= high for low, high in pairwise(self.strengths)):
            raise InvalidArgument(f"strengths: expected rising ones, got {list(self.strengths)}")

    def findings(self, tolerance: float = 0.01) -> list[Finding]:
        """Signs of masking, each at the strength where it is plainest.

        Args:
            tolerance: by how much an accuracy may exceed its limit by chance, 0..1.

        Example:
            >>> curves = AttackCurves((0.1, 0.3), one_step=(0.5, 0.64), steps=(0.09, 0.0), more_steps=(0.09, 0.0))
            >>> [str(finding) for finding in curves.findings()]  # trained on one step: only that one rises
            ['accuracy rises with strength: accuracy 64.0% at strength 0.3, where at most 50.0% is possible']
        """
        seen: list[Finding] = []
        for curve in (self.one_step, self.steps, self.more_steps):
            pairs = zip(self.strengths[1:], pairwise(curve), strict=True)
            seen += [Finding(Sign.NOT_MONOTONE, strength, high, low) for strength, (low, high) in pairs]
        for sign, curve, limits in (
            (Sign.ONE_STEP_STRONGER, self.steps, self.one_step),
            (Sign.MORE_STEPS_WEAKER, self.more_steps, self.steps),
            (Sign.BLACK_BOX_STRONGER, self.more_steps, self.black_box or self.more_steps),
        ):
            seen += [Finding(sign, *numbers) for numbers in zip(self.strengths, curve, limits, strict=True)]
        for strength, accuracy in zip(self.strengths, self.more_steps, strict=True):
            if strength >= self.grey_strength:
                seen.append(Finding(Sign.STANDS_ON_GREY, strength, accuracy, self.grey_accuracy))
        plainest = [
            max((found for found in seen if found.sign is sign), key=lambda found: found.accuracy - found.limit)
            for sign in Sign
            if any(found.sign is sign for found in seen)
        ]
        # With room for rounding, so that a difference of just the tolerance is none.
        return [found for found in plainest if found.accuracy - found.limit > tolerance + 1e-9]


def attack_curves(
    model: nn.Module,
    data: Labelled,
    strengths: Sequence[float],
    norm: Norm = Norm.LINF,
    steps: tuple[int, int] = (10, 50),
    black_box: MakesExamples | None = None,
    seed: int = 0,
    batch_size: int = 500,
) -> AttackCurves:
    """Attack a network as its `findings` need it; the strength at which an image can become grey is added.

    Args:
        model: gives logits.
        data: images and their true classes; a thousand are enough.
        strengths: rising, each 0 or more.
        norm: of the perturbations.
        steps: of PGD, few and more.
        black_box: an attack that follows no gradients of the network, such as `AutoAttack(parts=(Part.SQUARE,))`;
            None for none.
        seed: of random starts.
        batch_size: images attacked together.

    Raises:
        InvalidArgument: for images, labels, scores, strengths or numbers that are none.
        UnsupportedLayer: where no gradient passes through the model.
    """
    if not 1 <= steps[0] < steps[1]:
        raise InvalidArgument(f"steps: expected few and more, got {steps}")
    labels = [label for _, batch in batches_of(data, batch_size, device_of(model)) for label in batch.tolist()]
    values = next(batches_of(data, 1, device_of(model)))[0].numel()
    grey = 0.5 if norm is Norm.LINF else 0.5 * values**0.5
    tested = tuple(sorted({*strengths, grey}))

    def curve(attack: MakesExamples | None) -> tuple[float, ...]:
        return () if attack is None else tuple(robust_accuracy(model, data, attack, tested, seed, batch_size))

    return AttackCurves(
        strengths=tested,
        one_step=curve(fgsm(norm=norm)),
        steps=curve(pgd(steps[0], norm=norm)),
        more_steps=curve(pgd(steps[1], norm=norm)),
        black_box=curve(black_box),
        grey_strength=grey,
        grey_accuracy=max(labels.count(label) for label in set(labels)) / len(labels),
    )
