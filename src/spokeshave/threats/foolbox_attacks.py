"""FGSM and PGD as Foolbox writes them, with the interface of our own: the judge that our attacks are checked by.

Rauber, Zimmermann, Bethge, Brendel: Foolbox Native: Fast adversarial attacks to benchmark the robustness of machine
learning models in PyTorch, TensorFlow, and JAX, Journal of Open Source Software 2020. Steps are always given: its
default of 1/30 of the strength is for 40 steps, and with ten of them reaches only a third of the ball.
Departs from the paper: nothing known.
"""

import os
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from spokeshave.errors import InvalidArgument
from spokeshave.optional import require
from spokeshave.threats.gradient_attack import Attack, fgsm, pgd, require_attackable
from spokeshave.threats.outside_attacks import by_strength, contained, frozen, require_batch_size
from spokeshave.threats.perturbation import Norm, strengths_of


@dataclass(frozen=True)
class FoolboxAttack:
    """An attack of Foolbox; needs the extra `attacks`.

    Attributes:
        attack: steps, their length, norm and start; Foolbox computes in float32.
        batch_size: images a forward pass.
    """

    attack: Attack
    batch_size: int = 500

    def __post_init__(self) -> None:
        require_batch_size(self.batch_size)
        if self.attack.dtype is not torch.float32:
            raise InvalidArgument(f"attack: Foolbox computes in float32, got {self.attack.dtype}")

    @property
    def norm(self) -> Norm:
        """Of the perturbation."""
        return self.attack.norm

    def __call__(
        self,
        model: nn.Module,
        images: Float[Tensor, "b *image"],
        labels: Int64[Tensor, " b"],
        strengths: float | Float[Tensor, " b"],
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "b *image"]:
        """Attack images.

        Args:
            model: gives logits; it runs in evaluation mode and ends as it was.
            images: 0..1, on the model's device.
            labels: the true classes.
            strengths: largest size of the perturbation, of all images or of each.
            generator: gives the seed of the random start; None for torch's own, which a random start then moves on.

        Returns:
            Images in 0..1, none further from its original than its strength.

        Raises:
            MissingExtra: where Foolbox is not installed.
            InvalidArgument: for images, labels, scores or strengths that are none.
            UnsupportedLayer: where no gradient passes through the model.
        """
        foolbox = load_foolbox()
        require_attackable(model, images, labels)
        found = strengths_of(strengths, images)
        kind = {
            Norm.LINF: foolbox.attacks.LinfProjectedGradientDescentAttack,
            Norm.L2: foolbox.attacks.L2ProjectedGradientDescentAttack,
        }[self.norm]
        form = self.attack
        attack = kind(rel_stepsize=form.step_share, steps=form.steps, random_start=form.random_start)
        seed = draw_seed(generator) if form.random_start else 0

        def attack_group(places: Tensor, strength: float) -> Tensor:
            parts = [
                attack.run(seen, images[some], labels[some], epsilon=strength) for some in places.split(self.batch_size)
            ]
            return torch.cat(parts)

        with frozen(model):
            torch.manual_seed(seed)
            seen = foolbox.PyTorchModel(model, bounds=(0, 1), device=images.device)
            attacked = by_strength(images, found, attack_group)
        return contained(attacked, images, found, self.norm)


def foolbox_fgsm(norm: Norm = Norm.LINF) -> FoolboxAttack:
    """The fast gradient sign method of Foolbox: one step of the whole strength, from the image.

    Example:
        >>> foolbox_fgsm().attack.step_share
        1.0
    """
    return FoolboxAttack(fgsm(norm=norm))


def foolbox_pgd(steps: int = 20, start: bool = True, norm: Norm = Norm.LINF) -> FoolboxAttack:
    """Projected gradient descent of Foolbox, with steps of 2.5 / steps strengths.

    Example:
        >>> foolbox_pgd(10).attack.step_share
        0.25
    """
    return FoolboxAttack(pgd(steps, start, norm))


def load_foolbox() -> Any:
    """Import Foolbox, in silence about a SciPy name that it imports by its old place, and also where git is missing.

    Raises:
        MissingExtra: where it is not installed.
    """
    # GitPython, which Foolbox fetches models of others by, raises where there is no git, unless it is told not to.
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Please import `gaussian_filter`", DeprecationWarning)
        return require("foolbox", "attacking with Foolbox")


def draw_seed(generator: torch.Generator | None) -> int:
    """A seed for a library that takes one instead of a generator, drawn from the generator, or from torch's own state.

    Example:
        >>> draw_seed(torch.Generator().manual_seed(0)) == draw_seed(torch.Generator().manual_seed(0))
        True
    """
    place = "cpu" if generator is None else generator.device
    return int(torch.randint(2**31 - 1, (1,), generator=generator, device=place))
