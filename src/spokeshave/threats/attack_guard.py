"""Guard against catastrophic overfitting: a network that beats the fast attack it is trained on, and no other.

Wong, Rice, Kolter: Fast is better than free, ICLR 2020, section 5.4: trained on one gradient step, a network can learn
to bend its gradients instead of its decisions: accuracy under the one step stays high, under several it falls.
Departs from the paper: it stopped early where PGD on a training batch failed; here the attack gets more steps, and
training goes on.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from spokeshave.errors import InvalidArgument
from spokeshave.threats.gradient_attack import Attack, fgsm, pgd, untouched


@dataclass(frozen=True)
class Guard:
    """When, and against what, the attack of a training is checked.

    Attributes:
        every: steps between two checks, at least 1; about an epoch.
        gap: of accuracies, 0..1: FGSM's may be above PGD's by so much.
        steps: of the PGD that is compared with.
        images: of a batch that are looked at, at most.
        most: steps that the attack may be given, at most; 1 only looks.
    """

    every: int = 400
    gap: float = 0.1
    steps: int = 10
    images: int = 256
    most: int = 10

    def __post_init__(self) -> None:
        if min(self.every, self.images, self.most) < 1 or not 0 <= self.gap <= 1 or self.steps < 2:
            raise InvalidArgument(
                "a guard: expected every, images and most of at least 1, a gap of 0..1 and at least 2 steps, got "
                f"{self.every}, {self.images}, {self.most}, {self.gap}, {self.steps}"
            )

    def measure(self, model: nn.Module, images: Tensor, labels: Tensor, strength: float, attack: Attack) -> float:
        """How far accuracy under FGSM is above accuracy under PGD, on one batch.

        Args:
            model: gives logits.
            images: 0..1.
            labels: of the images.
            strength: that both attack with.
            attack: gives the norm.

        Returns:
            The gap, 0..1; below 0 where PGD is the weaker of the two.
        """
        images, labels = images[: self.images], labels[: self.images]
        strengths = images.new_full((len(images),), strength)
        # No random starts: what is measured then follows from the weights alone.
        fast = fgsm(norm=attack.norm).perturb(model, images, labels, strengths)
        slow = pgd(self.steps, False, attack.norm).perturb(model, images, labels, strengths)
        with torch.no_grad(), untouched(model):
            right = [float((model(one).argmax(1) == labels).float().mean()) for one in (fast, slow)]
        return right[0] - right[1]


def stronger(attack: Attack, most: int = 10) -> Attack:
    """The attack with a random start and twice as many steps, at least four and at most `most`; else as it is.

    Example:
        >>> stronger(fgsm()).steps, stronger(stronger(fgsm())).steps, stronger(pgd(8)).steps
        (4, 8, 10)
    """
    steps = min(most, max(4, 2 * attack.steps))
    if steps <= attack.steps:
        return attack
    return replace(attack, steps=steps, step_share=min(0.4, 2.5 / steps), random_start=True)
