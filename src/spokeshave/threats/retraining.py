"""Retraining on poison, as a function of the poison, and the exact gradient of what it does: the hypergradient.

Yang, Wu, Li, Chen: Generative Poisoning Attack Method Against Neural Networks, arXiv:1703.01340, 2017:

    theta' = theta - lr dJ(theta; x_p, y_p)/dtheta,        L(x_p) = mean_i -log max(p_theta'(y_i | x_i), 1e-10)

Departs from the paper: any number of steps, with momentum and batches of clean images and poison. The gradient goes
back through all of them, exactly: the weights of every step are kept (steps x weights), and each step is run again on
the way back, so that only one step's activations are in memory. The mean over normal images stands for their sum.
Batch norm keeps its running statistics, dropout is off: the victim is fine-tuned in evaluation mode.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.func import functional_call, grad, grad_and_value, vjp
from torch.nn import functional

from spokeshave.errors import InvalidArgument
from spokeshave.threats.poison_budget import Placement, PoisonBudget

FLOOR = 1e-10
"""Least probability in the loss on normal images, as in the authors' code."""

Weights = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Labelled:
    """Images in 0..1 and their classes.

    Example:
        >>> len(Labelled(torch.zeros(3, 4), torch.tensor([0, 1, 2])))
        3
    """

    images: Float[Tensor, "n ..."]
    labels: Int64[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Batch:
    """Positions of the images of one step: among the clean training images, and among the poisons."""

    clean: Int64[Tensor, " c"]
    poison: Int64[Tensor, " p"]


class Victim:
    """A model as a pure function of the weights that it would be retrained in; the model is not written to.

    Args:
        model: gives logits; to be called while it is in evaluation mode.

    Example:
        >>> model = nn.Linear(1, 2)
        >>> sorted(Victim(model).weights)
        ['bias', 'weight']
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.weights: Weights = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
        self._fixed = {name: p.detach() for name, p in model.named_parameters() if not p.requires_grad}
        self._fixed |= {name: buffer.detach().clone() for name, buffer in model.named_buffers()}

    def logits(self, weights: Weights, images: Tensor) -> Tensor:
        """Scores of images under other weights."""
        return functional_call(self.model, {**self._fixed, **weights}, (images,))

    def training_loss(self, weights: Weights, images: Tensor, labels: Tensor) -> Tensor:
        """J: mean cross entropy."""
        return functional.cross_entropy(self.logits(weights, images), labels)

    def normal_loss(self, weights: Weights, normal: Labelled) -> Tensor:
        """L: mean cross entropy, each image's no more than -log 1e-10."""
        return floored_loss(self.logits(weights, normal.images), normal.labels)


def floored_loss(logits: Float[Tensor, "n classes"], labels: Int64[Tensor, " n"]) -> Float[Tensor, ""]:
    """Mean of -log max(p, 1e-10): what the attacker raises on normal images.

    Example:
        >>> floored_loss(torch.tensor([[0.0, 0.0], [1e3, 0.0]]), torch.tensor([0, 1])).item()  # (ln 2 + 10 ln 10) / 2
        11.859...
    """
    log_probabilities = logits.log_softmax(1).gather(1, labels[:, None])
    return -log_probabilities.clamp_min(math.log(FLOOR)).mean()


def order_of(budget: PoisonBudget, clean: int, poisons: int, seed: int) -> tuple[Batch, ...]:
    """Which images each step of a retraining sees; every image once before any comes again.

    Args:
        budget: steps, batch size and share of poison.
        clean: number of clean training images.
        poisons: number of poisons in this retraining: 1 where each is alone; 0 fills their places with clean images.
        seed: of the order.

    Raises:
        InvalidArgument: where batches need clean images and there are none.

    Example:
        >>> order = order_of(PoisonBudget(steps=2, batch_size=10, batch_share=0.2), clean=50, poisons=3, seed=0)
        >>> [(len(batch.clean), len(batch.poison)) for batch in order]
        [(8, 2), (8, 2)]
    """
    generator = torch.Generator().manual_seed(seed)
    size = budget.batch_size
    if budget.batch_share is None and budget.placement is Placement.TOGETHER:
        mixed = _stream(clean + poisons, size, budget.steps, generator)
        return tuple(Batch(drawn[drawn < clean], drawn[drawn >= clean] - clean) for drawn in mixed)
    share = 1 / size if budget.batch_share is None else budget.batch_share
    most = min(size, max(1, round(share * size))) if poisons else 0
    if most < size and not clean:
        raise InvalidArgument(
            f"budget: batches of {size} with {most} poisons need clean training images, but there are none; give "
            "`training`, or a batch_share of 1"
        )
    poison = _stream(poisons, most, budget.steps, generator)
    return tuple(
        Batch(*pair) for pair in zip(_stream(clean, size - most, budget.steps, generator), poison, strict=True)
    )


def batch_of(batch: Batch, poison: Labelled, clean: Labelled) -> tuple[Tensor, Tensor]:
    """Images and labels of a step."""
    if not len(batch.clean):
        return poison.images[batch.poison], poison.labels[batch.poison]
    if not len(batch.poison):
        return clean.images[batch.clean], clean.labels[batch.clean]
    images = torch.cat([clean.images[batch.clean], poison.images[batch.poison]])
    return images, torch.cat([clean.labels[batch.clean], poison.labels[batch.poison]])


def retrained(
    victim: Victim, poison: Labelled, clean: Labelled, order: Sequence[Batch], budget: PoisonBudget
) -> Weights:
    """Weights of the victim after its steps.

    Args:
        victim: at its trained weights.
        poison: poisons of this retraining.
        clean: training images beside them.
        order: from `order_of`.
        budget: learning rates and momentum.
    """
    return _trail(victim, poison, clean, order, budget)[-1]


def hypergradient(
    victim: Victim, poison: Labelled, normal: Labelled, clean: Labelled, order: Sequence[Batch], budget: PoisonBudget
) -> tuple[Float[Tensor, "p *image"], Float[Tensor, ""]]:
    """dL/dx_p through every step of the retraining, and L.

    Args:
        victim: at its trained weights.
        poison: poisons of this retraining.
        normal: images on which the attacker raises the loss.
        clean: training images beside the poisons.
        order: from `order_of`.
        budget: learning rates and momentum.

    Returns:
        (gradient, L).
    """
    trail = _trail(victim, poison, clean, order, budget)
    carried, value = grad_and_value(victim.normal_loss)(trail.pop(), normal)
    velocity = {name: torch.zeros_like(weight) for name, weight in carried.items()}
    total = torch.zeros_like(poison.images)
    first = next((place for place, batch in enumerate(order) if len(batch.poison)), len(order))
    for place in reversed(range(first, len(order))):
        batch, weights = order[place], trail.pop()
        # v' = momentum v + g and w' = w - lr v': what reaches g, of the adjoints of w' and v'.
        reaching = {name: velocity[name] - budget.rate_of(name) * carried[name] for name in carried}
        velocity = {name: budget.momentum * value for name, value in reaching.items()}

        def step_gradient(weights: Weights, images: Tensor, batch: Batch = batch) -> Weights:
            chosen = batch_of(batch, Labelled(images, poison.labels), clean)
            return grad(victim.training_loss)(weights, *chosen)

        if place > first:
            _, pull = vjp(step_gradient, weights, poison.images)[:2]
            through_weights, through_poison = pull(reaching)
            carried = {name: carried[name] + through_weights[name] for name in carried}
        else:
            _, pull = vjp(lambda images, weights=weights, of=step_gradient: of(weights, images), poison.images)[:2]
            (through_poison,) = pull(reaching)
        total = total + through_poison
    return total, value


def _trail(
    victim: Victim, poison: Labelled, clean: Labelled, order: Sequence[Batch], budget: PoisonBudget
) -> list[Weights]:
    weights, velocity = victim.weights, None
    trail = [weights]
    for batch in order:
        gradient = grad(victim.training_loss)(weights, *batch_of(batch, poison, clean))
        if velocity is None:
            velocity = gradient
        else:
            velocity = {name: budget.momentum * velocity[name] + value for name, value in gradient.items()}
        weights = {name: weight - budget.rate_of(name) * velocity[name] for name, weight in weights.items()}
        trail.append(weights)
    return trail


def _stream(count: int, size: int, steps: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """`steps` draws of `size` from `count`, reshuffled when they run out."""
    needed = size * steps
    rounds = math.ceil(needed / count) if count else 0
    drawn = [torch.randperm(count, generator=generator) for _ in range(rounds)] or [torch.zeros(0, dtype=torch.int64)]
    return torch.cat(drawn)[:needed].reshape(steps, -1).unbind(0)
