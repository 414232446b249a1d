"""Poison that is made against a detector: damage is weighed against what the detector would see.

The countermeasure is that of Yang, Wu, Li, Chen, arXiv:1703.01340, 2017; that a defence is only measured by an attack
which knows it is Carlini et al.: On Evaluating Adversarial Robustness, arXiv:1902.06705, 2019. The poison climbs

    L(x_p) - lambda max(0, s(x_p, y_p) - tau)

where s is the detector's score under the trained network and tau its threshold. Departs from the papers: neither has
this attack. With lambda of 0 it is the direct method.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from spokeshave.errors import InvalidArgument
from spokeshave.threats.poison_budget import PoisonBudget
from spokeshave.threats.poison_generator import GeneratorMethod, GeneratorTraining, PoisonGenerator
from spokeshave.threats.poison_gradient import Ascent, PoisonMethod, Rehearsal
from spokeshave.threats.poisoning import Poisons, poison
from spokeshave.threats.retraining import Batch, Labelled

Doubt = Callable[[Tensor, Tensor], Tensor]
"""From images and labels to what a detector holds against each beyond its threshold, at least 0, differentiable."""

HIDING_ASCENT = Ascent(rounds=40, step=0.05, decay=True, keep_best=True)
"""Steps shrink and the best round counts: steps of one length jump over the threshold and back, half end beyond it."""


def loss_doubt(model: nn.Module, threshold: float) -> Doubt:
    """max(0, J(x, y) - tau), against a detector that looks at losses under a network the attacker knows.

    Args:
        model: gives logits; to be called in evaluation mode.
        threshold: tau, in nats.

    Example:
        >>> doubt = loss_doubt(nn.Identity(), threshold=0.5)
        >>> doubt(torch.zeros(1, 2), torch.tensor([0])).item()  # ln 2 - 0.5
        0.193...
    """

    def beyond(images: Tensor, labels: Tensor) -> Tensor:
        return (functional.cross_entropy(model(images), labels, reduction="none") - threshold).relu()

    return beyond


def distance_doubt(
    known: Float[Tensor, "m *image"], labels: Int64[Tensor, " m"], threshold: float, neighbours: int = 5
) -> Doubt:
    """max(0, d - tau), d the mean distance to the nearest images that the attacker knows with the same label.

    Args:
        known: clean images: those of the detector where the attacker has them, else the attacker's own.
        labels: theirs.
        threshold: tau, in the images' units.
        neighbours: that distances are averaged over.

    Example:
        >>> doubt = distance_doubt(torch.zeros(3, 2), torch.tensor([0, 0, 1]), threshold=1.0, neighbours=2)
        >>> doubt(torch.tensor([[3.0, 4.0]]), torch.tensor([0])).item()
        4.0
    """
    flat = known.flatten(1)

    def beyond(images: Tensor, given: Tensor) -> Tensor:
        apart = torch.cdist(images.flatten(1), flat).masked_fill(given[:, None] != labels, torch.inf)
        return (apart.topk(neighbours, largest=False).values.mean(1) - threshold).relu()

    return beyond


def both(*doubts: Doubt) -> Doubt:
    """The sum of several, against detectors that are asked together.

    Example:
        >>> half = loss_doubt(nn.Identity(), threshold=0.5)
        >>> both(half, half)(torch.zeros(1, 2), torch.tensor([0])).item()  # 2 (ln 2 - 0.5)
        0.386...
    """
    return lambda images, labels: torch.stack([doubt(images, labels) for doubt in doubts]).sum(0)


@dataclass(frozen=True, eq=False)
class WatchedRehearsal(Rehearsal):
    """A retraining as the attacker plays it who is watched; its losses are less what a detector would see.

    Attributes:
        doubt: of the detector.
        strength: lambda, at least 0.
    """

    doubt: Doubt = lambda images, labels: images.new_zeros(len(images))
    strength: float = 0.0

    def gradients(self, poison: Labelled, order: tuple[Batch, ...]) -> tuple[Tensor, Float[Tensor, " p"]]:
        """Of the weighed loss."""
        found, value = super().gradients(poison, order)
        if not self.strength:
            return found, value
        with torch.enable_grad():
            images = poison.images.detach().requires_grad_(True)
            doubt = self.doubt(images, poison.labels)
            (slope,) = torch.autograd.grad(doubt.sum(), images)
        return found - self.strength * slope, value - self.strength * doubt.detach()

    def losses(self, poison: Labelled, order: tuple[Batch, ...]) -> Float[Tensor, " p"]:
        """The weighed loss."""
        value = super().losses(poison, order)
        return value - self.strength * self.doubt(poison.images, poison.labels) if self.strength else value


def watched(rehearsal: Rehearsal, doubt: Doubt, strength: float) -> WatchedRehearsal:
    """The same retraining for an attacker who is watched.

    Raises:
        InvalidArgument: for a strength that is not finite and at least 0.
    """
    if not 0 <= strength < float("inf"):
        raise InvalidArgument(f"strength: expected finite and at least 0, got {strength}")
    plain = {one.name: getattr(rehearsal, one.name) for one in fields(Rehearsal)}
    return WatchedRehearsal(**plain, doubt=doubt, strength=strength)


class WatchedGenerator(PoisonGenerator):
    """A generator of poisons that a detector shall miss; trained as `PoisonGenerator` is, by the exact gradient.

    Args:
        network: gives logits of pixels for images.
        doubt: of the detector.
        strength: lambda, at least 0.
        budget: what the attacker may do; None for the paper's.

    Raises:
        InvalidArgument: by `fit`, for the paper's surrogate, which does not see the doubt, and a strength below 0.
    """

    def __init__(self, network: nn.Module, doubt: Doubt, strength: float, budget: PoisonBudget | None = None) -> None:
        super().__init__(network, budget)
        self._doubt, self._strength = doubt, strength

    def _train(self, rehearsals: list[Rehearsal], bases: Labelled, how: GeneratorTraining) -> tuple[float, ...]:
        if how.method is not GeneratorMethod.EXACT:
            raise InvalidArgument(
                f"how: expected GeneratorMethod.EXACT, got {how.method}, which follows the loss of normal images "
                "and never looks at the detector; train a plain PoisonGenerator by it"
            )
        return super()._train([watched(one, self._doubt, self._strength) for one in rehearsals], bases, how)


def evade(
    model: nn.Module,
    base_images: Float[Tensor, "p *image"],
    base_labels: Int64[Tensor, " p"],
    normal_images: Float[Tensor, "n *image"],
    normal_labels: Int64[Tensor, " n"],
    doubt: Doubt,
    strength: float,
    budget: PoisonBudget | None = None,
    how: Ascent | None = None,
    *,
    training: tuple[Tensor, Tensor] | None = None,
    seed: int = 0,
    chunk: int = 64,
) -> Poisons:
    """Turn base images into poisons that a detector shall miss; the model is left as it was.

    Args:
        model: trained; gives logits for images in 0..1.
        base_images: that the poisons start from.
        base_labels: their true classes.
        normal_images: on which the loss is to rise.
        normal_labels: their classes.
        doubt: of the detector, such as `loss_doubt(model, 0.95 * detector.limit)` for a fitted `LossDetector`: what
            aims at the limit itself ends close to it on either side.
        strength: lambda, at least 0: 0 does not care, 10 and more hide first.
        budget: what the attacker may do; None for the paper's.
        how: poisons climb; None for `HIDING_ASCENT`.
        training: clean images and labels that batches are filled with; None for the normal images.
        seed: of the orders of batches.
        chunk: poisons that are tried at once.

    Raises:
        InvalidArgument: as `poisoning.poison`, and for a strength below 0.
        UnsupportedLayer: as `poisoning.poison`.
    """
    return poison(
        model, base_images, base_labels, normal_images, normal_labels, budget, PoisonMethod.EXACT, how or HIDING_ASCENT,
        training=training, seed=seed, chunk=chunk, plays=partial(watched, doubt=doubt, strength=strength),
    )  # fmt: skip
