"""The direct method: each pixel of a poison moves by the sign of its effect on the loss after retraining.

Yang, Wu, Li, Chen: Generative Poisoning Attack Method Against Neural Networks, arXiv:1703.01340, 2017, by their code:

    d_j = sign(L(x_p + h e_j) - L(x_p)),        x_p <- clip(x_p + step d)

Departs from the paper: the exact gradient, which has the same signs, is the default; momentum, shrinking steps, several
orders of the batches and joint optimisation are settings, all off in `PAPER_ASCENT`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import grad_and_value, vmap

from spokeshave.errors import InvalidArgument, UnsupportedLayer
from spokeshave.threats.one_image_step import OneImageStep
from spokeshave.threats.perturbation import ascent
from spokeshave.threats.poison_budget import Placement, PoisonBudget
from spokeshave.threats.retraining import Batch, Labelled, Victim, floored_loss, hypergradient, order_of, retrained

Found = TypeVar("Found")


class PoisonMethod(Enum):
    """How the effect of a pixel on the loss after retraining is found."""

    FINITE_DIFFERENCE = "finite_difference"
    """One retraining for each pixel, as in the paper."""
    EXACT = "exact"
    """One gradient through the retraining, for all pixels."""


@dataclass(frozen=True)
class Ascent:
    """How poisons climb.

    Attributes:
        rounds: directions taken, at least 1.
        step: change of a pixel a round; with a radius in L2, length of the step. Above 0.
        decay: shrink the step linearly over the rounds, to 1 / rounds of it in the last.
        momentum: share of the earlier directions in each, in [0, 1).
        orders: of the batches that a gradient is averaged over, new ones each round; where there is one batch of poison
            alone, one is enough, and one is taken.
        probe: h of the finite difference, above 0.
        keep_best: give each poison back from the round in which its loss was highest, by the orders seen.

    Example:
        >>> [round(Ascent(rounds=4, step=0.2, decay=True).step_at(n), 2) for n in range(4)]
        [0.2, 0.15, 0.1, 0.05]
    """

    rounds: int = 40
    step: float = 0.1
    decay: bool = True
    momentum: float = 0.0
    orders: int = 4
    probe: float = 0.01
    keep_best: bool = False

    def __post_init__(self) -> None:
        positive = self.rounds >= 1 and self.orders >= 1 and 0 < self.step < float("inf") and self.probe > 0
        if not positive or not 0 <= self.momentum < 1:
            raise InvalidArgument(
                "Ascent: expected rounds and orders of at least 1, step and probe above 0 and momentum in [0, 1), got "
                f"{self.rounds}, {self.orders}, {self.step}, {self.probe} and {self.momentum}"
            )

    def step_at(self, number: int) -> float:
        """Length of a step, counted from 0."""
        return self.step * (1 - number / self.rounds if self.decay else 1.0)


PAPER_ASCENT = Ascent(rounds=5, step=0.2, decay=False)
"""Of the authors' MNIST script."""


@dataclass(frozen=True, eq=False)
class Rehearsal:
    """The retraining as the attacker plays it.

    Attributes:
        victim: whose weights are known.
        normal: images on which the loss is to rise.
        clean: training images that batches are filled with.
        budget: the rules.
        chunk: poisons that are tried at once; 1 takes them one after the other.
        short_cut: the step on one image, where that is the whole retraining: see `rehearsal_of`.
    """

    victim: Victim
    normal: Labelled
    clean: Labelled
    budget: PoisonBudget
    chunk: int = 64
    short_cut: OneImageStep | None = None

    def order(self, poisons: int, seed: int) -> tuple[Batch, ...]:
        """The batches of one retraining."""
        return order_of(self.budget, len(self.clean), poisons if self.is_joint else 1, seed)

    @property
    def is_joint(self) -> bool:
        """Whether all poisons enter one retraining."""
        return self.budget.placement is Placement.TOGETHER

    def gradients(self, poison: Labelled, order: tuple[Batch, ...]) -> tuple[Tensor, Float[Tensor, " p"]]:
        """Hypergradient of every poison, and the loss after its retraining."""

        def of_retraining(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
            return hypergradient(self.victim, Labelled(images, labels), self.normal, self.clean, order, self.budget)

        if self.is_joint:
            found, value = differentiated(lambda: of_retraining(poison.images, poison.labels))
            return found, value.expand(len(poison))

        def of_one(image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
            if self.short_cut is not None:
                return grad_and_value(lambda image: self.loss(image, label, order))(image)
            found, value = of_retraining(image[None], label[None])
            return found[0], value

        return differentiated(lambda: each(of_one, (poison.images, poison.labels), self.chunk))

    def losses(self, poison: Labelled, order: tuple[Batch, ...]) -> Float[Tensor, " p"]:
        """Loss on normal images after the retraining of every poison."""
        if self.is_joint:
            return self._full(poison.images, poison.labels, order).expand(len(poison))
        return each(lambda image, label: self.loss(image, label, order), (poison.images, poison.labels), self.chunk)

    def loss(self, image: Tensor, label: Tensor, order: tuple[Batch, ...]) -> Tensor:
        """Loss on normal images after the retraining on one poison alone."""
        if self.short_cut is None:
            return self._full(image[None], label[None], order)
        return floored_loss(self.short_cut.logits(image, label, self.normal.images), self.normal.labels)

    def differences(self, poison: Labelled, order: tuple[Batch, ...], probe: float) -> tuple[Tensor, Tensor]:
        """L(x_p + h e_j) - L(x_p) for every pixel j of every poison, and L(x_p)."""
        groups = [slice(None)] if self.is_joint else [slice(place, place + 1) for place in range(len(poison))]
        found, values = torch.zeros_like(poison.images), poison.images.new_zeros(len(poison))
        for group in groups:
            images, labels = poison.images[group], poison.labels[group]
            size = images.numel()

            def at(images: Tensor, labels: Tensor = labels) -> Tensor:
                if self.is_joint:
                    return self._full(images, labels, order)
                return self.loss(images[0], labels[0], order)

            def moved(pixel: Tensor, images: Tensor = images, at: Callable[[Tensor], Tensor] = at) -> Tensor:
                bump = (torch.arange(images.numel(), device=images.device) == pixel) * probe
                return at(images + bump.reshape(images.shape).to(images))

            here = at(images)
            beside = each(moved, (torch.arange(size, device=images.device),), self.chunk)
            found[group], values[group] = (beside - here).reshape(images.shape), here
        return found, values

    def _full(self, images: Tensor, labels: Tensor, order: tuple[Batch, ...]) -> Tensor:
        weights = retrained(self.victim, Labelled(images, labels), self.clean, order, self.budget)
        return self.victim.normal_loss(weights, self.normal)


def rehearsal_of(
    victim: Victim, normal: Labelled, clean: Labelled, budget: PoisonBudget, example: Tensor, chunk: int = 64
) -> Rehearsal:
    """A rehearsal with the short cut wherever one step on one image is all of it.

    Args:
        victim: whose weights are known.
        normal: images on which the loss is to rise.
        clean: training images that batches are filled with.
        budget: the rules.
        example: one image, (1, ...).
        chunk: poisons that are tried at once.
    """
    slow = Rehearsal(victim, normal, clean, budget, chunk)
    only_poison = not slow.is_joint and (budget.batch_share == 1 or budget.batch_size == 1)
    if budget.steps == 1 and only_poison:
        return replace(slow, short_cut=OneImageStep(victim, example, budget))
    return slow


def climb(
    rehearsal: Rehearsal, bases: Labelled, method: PoisonMethod, how: Ascent, seed: int
) -> tuple[Tensor, Float[Tensor, "p rounds"]]:
    """Move poisons, which start as their base images, to where retraining on them does most harm.

    Args:
        rehearsal: the retraining.
        bases: base images with the labels of the poisons.
        method: of finding the direction.
        how: they climb.
        seed: of the orders of batches.

    Returns:
        (poisons, loss on normal images before each round and after the last).
    """
    images, budget = bases.images.clone(), rehearsal.budget
    orders = 1 if rehearsal.short_cut else how.orders
    direction, history = torch.zeros_like(images), []
    best, highest = images, images.new_full((len(images),), -torch.inf)
    for number in range(how.rounds + 1):
        total, values = torch.zeros_like(images), images.new_zeros(len(images))
        for place in range(orders):
            order = rehearsal.order(len(bases), hash((seed, number * orders + place)) % 2**31)
            poison = Labelled(images, bases.labels)
            if number == how.rounds:
                found, value = torch.zeros_like(images), rehearsal.losses(poison, order)
            elif method is PoisonMethod.EXACT:
                found, value = rehearsal.gradients(poison, order)
            else:
                found, value = rehearsal.differences(poison, order, how.probe)
            total, values = total + found, values + value / orders
        history.append(values)
        better = _beside(values > highest, images)
        best, highest = torch.where(better, images, best), torch.maximum(values, highest)
        if number < how.rounds:
            length = total.flatten(1).norm(dim=1).clamp_min(torch.finfo(total.dtype).tiny)
            direction = how.momentum * direction + total / _beside(length, total) if how.momentum else total
            moved = images + how.step_at(number) * ascent(direction, budget.norm)
            images = budget.project(moved, bases.images)
    return (best if how.keep_best else images), torch.stack(history, 1)


def each(function: Callable[..., Found], arguments: tuple[Tensor, ...], chunk: int) -> Found:
    """A function of one, for every one of many; `chunk` at once."""
    return vmap(function, chunk_size=chunk, randomness="different")(*arguments)


def differentiated(compute: Callable[[], Found]) -> Found:
    """Say what is the matter where a layer has no second derivative.

    Raises:
        UnsupportedLayer: instead of torch's error.
    """
    try:
        return compute()
    except RuntimeError as error:
        if "differentiat" in str(error) or "derivative" in str(error) or "functorch" in str(error):
            raise UnsupportedLayer(
                "poisoning differentiates a training step, and so every layer twice; one of this model's layers does "
                f"not allow it: {error}"
            ) from error
        raise


def _beside(numbers: Tensor, images: Tensor) -> Tensor:
    return numbers.reshape(-1, *[1] * (images.dim() - 1))
