"""The generative method: a network learns to turn images into poisons, so that a new poison costs one forward pass.

Yang, Wu, Li, Chen: Generative Poisoning Attack Method Against Neural Networks, arXiv:1703.01340, 2017:

    max over g of L(g(x)),        dL/dx_p := sign(s) sign(L - L_prev),        s = sum_i dJ(theta'; x_i, y_i)/dx_i

with the middle one by the authors' code: the gradient of the loss of *normal images* by themselves stands for that of
the poison, and the sign of the change of L tells whether to follow it (L_prev = 0 at first).
Departs from the paper: the default is the exact gradient through the retraining; one generator is trained on many base
images, for images that it has not seen; it keeps to the budget by its last layer.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.func import grad_and_value
from torch.nn import functional

from spokeshave.errors import InvalidArgument
from spokeshave.threats.attackable import require_differentiable
from spokeshave.threats.perturbation import Norm
from spokeshave.threats.poison_budget import PoisonBudget
from spokeshave.threats.poison_gradient import Rehearsal, each, rehearsal_of
from spokeshave.threats.poisoning import require_victim
from spokeshave.threats.retraining import Batch, Labelled, Victim, retrained
from spokeshave.timing import evaluating


class GeneratorMethod(Enum):
    """What is propagated back through the generator."""

    SIGN_SURROGATE = "sign_surrogate"
    """The paper's: sign(s) sign(L - L_prev), by plain SGD."""
    EXACT = "exact"
    """dL/dx_p through the retraining, by Adam."""


@dataclass(frozen=True)
class GeneratorTraining:
    """How a generator is trained.

    Attributes:
        method: what is propagated back.
        rounds: steps of the optimizer, at least 1.
        batch_size: base images a round, at least 1; all poisons of the budget where they are together.
        normal_batch: normal images a round, at least 1.
        lr: learning rate, above 0; for `EXACT` it rises over the first eighth of the rounds, since pixels that an early
            step drives to 0 or 1 hardly come back, and then falls to 0 by a cosine.
        seed: of what is drawn.
        chunk: poisons that are tried at once.

    Example:
        >>> GeneratorTraining(rounds=10).rounds
        10
    """

    method: GeneratorMethod = GeneratorMethod.EXACT
    rounds: int = 400
    batch_size: int = 64
    normal_batch: int = 256
    lr: float = 2e-3
    seed: int = 0
    chunk: int = 64

    def __post_init__(self) -> None:
        counts = (self.rounds, self.batch_size, self.normal_batch, self.chunk)
        if min(counts) < 1 or not 0 < self.lr < float("inf"):
            raise InvalidArgument(
                "GeneratorTraining: expected rounds, batch_size, normal_batch and chunk of at least 1 and lr above 0, "
                f"got {counts} and {self.lr}"
            )

    def share_of_lr(self, number: int) -> float:
        """Share of the learning rate in a round, counted from 0.

        Example:
            >>> how = GeneratorTraining(rounds=16)
            >>> [round(how.share_of_lr(n), 2) for n in (0, 1, 8, 16)]
            [0.5, 0.99, 0.5, 0.0]
        """
        if self.method is GeneratorMethod.SIGN_SURROGATE:
            return 1.0
        warm = min(1.0, (number + 1) / max(1, self.rounds // 8))
        return warm * (1 + math.cos(math.pi * number / self.rounds)) / 2


PAPER_TRAINING = GeneratorTraining(GeneratorMethod.SIGN_SURROGATE, rounds=10, batch_size=1, normal_batch=10, lr=0.005)
"""Of the authors' MNIST script, which trains on one base image."""


@dataclass(frozen=True)
class GeneratorRecord:
    """What the training of a generator gave.

    Attributes:
        objective: mean loss on normal images after retraining, each round.
        seconds: that it took.
    """

    objective: tuple[float, ...]
    seconds: float


class PoisonGenerator(nn.Module):
    """Turns base images into poisons within a budget.

    Args:
        network: gives logits of pixels for images, such as a pre-trained `DenseAutoencoder`.
        budget: what the attacker may do, and the retraining that it expects; None for the paper's.

    Example:
        >>> generator = PoisonGenerator(nn.Identity(), PoisonBudget(radius=0.5))
        >>> generator(torch.tensor([[0.0, 1.0]])).tolist()  # 0..0.5 and 0.5..1 at sigmoid(0) and sigmoid(1)
        [[0.25, 0.86...]]
    """

    def __init__(self, network: nn.Module, budget: PoisonBudget | None = None) -> None:
        super().__init__()
        self.network, self.budget = network, budget or PoisonBudget()

    def forward(self, images: Float[Tensor, "p *image"]) -> Float[Tensor, "p *image"]:
        """Poisons in 0..1, within the radius around their base images; differentiable everywhere."""
        return within(self.network(images), images, self.budget)

    def fit(
        self,
        models: nn.Module | Sequence[nn.Module],
        images: Float[Tensor, "m *image"],
        labels: Int64[Tensor, " m"],
        normal_images: Float[Tensor, "n *image"],
        normal_labels: Int64[Tensor, " n"],
        how: GeneratorTraining | None = None,
        *,
        training: tuple[Tensor, Tensor] | None = None,
    ) -> GeneratorRecord:
        """Learn to harm these models; they are left as they were.

        Args:
            models: trained; give logits for images in 0..1. With several, rounds take turns.
            images: base images to learn from.
            labels: their true classes.
            normal_images: on which the loss after retraining is to rise.
            normal_labels: their classes.
            how: the generator is trained; None for the exact gradient.
            training: clean images and labels that batches are filled with; None for the normal images.

        Raises:
            InvalidArgument: for images outside 0..1, scores that are no logits, or wrong labels.
            UnsupportedLayer: for a model that poisoning cannot be followed through.
        """
        started, how = time.perf_counter(), how or GeneratorTraining()
        victims = [models] if isinstance(models, nn.Module) else list(models)
        if not victims:
            raise InvalidArgument("models: expected at least one, got none")
        clean = training or (normal_images, normal_labels)
        rehearsals, classes = [], 0
        for model in victims:
            with evaluating(model), torch.no_grad(), torch.random.fork_rng(devices=[]):
                classes = require_victim(model, images, labels, "images")
                require_victim(model, normal_images, normal_labels, "normal_images", classes, images.shape[1:])
                require_victim(model, *clean, "training", classes, images.shape[1:])
                require_differentiable(model, images)
                normal = Labelled(normal_images, normal_labels)
                rehearsal = rehearsal_of(Victim(model), normal, Labelled(*clean), self.budget, images[:1], how.chunk)
                rehearsals.append(rehearsal)
        most = self.budget.most(len(clean[0]))
        if rehearsals[0].is_joint and most is not None and min(how.batch_size, len(images)) > most:
            raise InvalidArgument(
                f"batch_size: the budget allows {most} poisons together, got rounds of {how.batch_size} base images"
            )
        bases = Labelled(images, self.budget.labels_for(labels, classes))
        objective = self._train(rehearsals, bases, how)
        return GeneratorRecord(objective, time.perf_counter() - started)

    def _train(self, rehearsals: list[Rehearsal], bases: Labelled, how: GeneratorTraining) -> tuple[float, ...]:
        exact = how.method is GeneratorMethod.EXACT
        optimizer = (torch.optim.Adam if exact else torch.optim.SGD)(self.parameters(), lr=how.lr)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, how.share_of_lr)
        drawn = torch.Generator().manual_seed(how.seed)
        earlier = bases.images.new_zeros(len(bases))
        objective = []
        for number in range(how.rounds):
            rehearsal = rehearsals[number % len(rehearsals)]
            chosen = _draw(len(bases), how.batch_size, drawn)
            normal = _draw(len(rehearsal.normal), how.normal_batch, drawn)
            normal = Labelled(rehearsal.normal.images[normal], rehearsal.normal.labels[normal])
            rehearsal = replace(rehearsal, normal=normal)
            made = self(bases.images[chosen])
            poison = Labelled(made.detach(), bases.labels[chosen])
            with evaluating(rehearsal.victim.model), torch.no_grad(), torch.random.fork_rng(devices=[]):
                order = rehearsal.order(len(poison), how.seed * how.rounds + number)
                if exact:
                    upward, values = rehearsal.gradients(poison, order)
                    upward = upward / len(poison)
                else:
                    slopes, values = normal_slopes(rehearsal, poison, order)
                    upward = slopes.sign() * (values - earlier[chosen]).sign().reshape(-1, *[1] * (slopes.dim() - 1))
                    earlier[chosen] = values
            optimizer.zero_grad()
            made.backward(-upward)
            optimizer.step()
            schedule.step()
            objective.append(values.mean())
        optimizer.zero_grad()
        return tuple(torch.stack(objective).tolist())


def within(
    logits: Float[Tensor, "p *image"], bases: Float[Tensor, "p *image"], budget: PoisonBudget
) -> Float[Tensor, "p *image"]:
    """Poisons from logits of their pixels: in 0..1 and in the budget's ball, with a gradient everywhere.

    Example:
        >>> within(torch.zeros(1, 2), torch.tensor([[0.0, 0.5]]), PoisonBudget(radius=0.25)).tolist()
        [[0.125, 0.5]]
    """
    shares = logits.sigmoid()
    if budget.radius is None:
        return shares
    if budget.norm is Norm.LINF:
        low, high = (bases - budget.radius).clamp_min(0), (bases + budget.radius).clamp_max(1)
        return low + (high - low) * shares
    apart = shares - bases
    # The root of nothing has no derivative.
    lengths = (apart.flatten(1).square().sum(1) + torch.finfo(apart.dtype).eps ** 2).sqrt()
    lengths = lengths.reshape(-1, *[1] * (apart.dim() - 1))
    return bases + apart * (budget.radius / lengths).clamp_max(1)


def normal_slopes(
    rehearsal: Rehearsal, poison: Labelled, order: tuple[Batch, ...]
) -> tuple[Float[Tensor, "p *image"], Float[Tensor, " p"]]:
    """s of every poison: the gradient of normal images' losses by those images, summed over them; and L.

    Args:
        rehearsal: with the normal images of this round.
        poison: the poisons.
        order: of the batches.
    """
    normal = rehearsal.normal

    def of_retraining(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if rehearsal.short_cut is not None:
            scores = partial(rehearsal.short_cut.logits, images[0], labels[0])
        else:
            poison = Labelled(images, labels)
            weights = retrained(rehearsal.victim, poison, rehearsal.clean, order, rehearsal.budget)
            scores = partial(rehearsal.victim.logits, weights)

        def total(images: Tensor) -> Tensor:
            return functional.cross_entropy(scores(images), normal.labels, reduction="sum")

        slopes, value = grad_and_value(total)(normal.images)
        return slopes.sum(0), value / len(normal)

    if rehearsal.is_joint:
        slopes, value = of_retraining(poison.images, poison.labels)
        return slopes.expand_as(poison.images), value.expand(len(poison))
    return each(
        lambda image, label: of_retraining(image[None], label[None]), (poison.images, poison.labels), rehearsal.chunk
    )


def _draw(count: int, size: int, generator: torch.Generator) -> Tensor:
    return torch.randperm(count, generator=generator)[:size]
