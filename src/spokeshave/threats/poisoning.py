"""Poisoning: make training images that ruin a network when it is retrained on them, and measure what they do.

Yang, Wu, Li, Chen: Generative Poisoning Attack Method Against Neural Networks, arXiv:1703.01340, 2017:

    max over x_p of L(x_p),        L: loss on normal images of the network after retraining on (x_p, y_p)

Departs from the paper: as said in poison_budget.py (threat model), retraining.py (gradient) and poison_gradient.py
(direct method); the generative method is poison_generator.py.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from spokeshave.errors import InvalidArgument
from spokeshave.threats.attackable import (
    require_differentiable,
    require_images,
    require_labels,
    require_logits,
    require_place,
    require_trainable,
)
from spokeshave.threats.poison_budget import Placement, PoisonBudget
from spokeshave.threats.poison_gradient import Ascent, PoisonMethod, Rehearsal, climb, each, rehearsal_of
from spokeshave.threats.retraining import Batch, Labelled, Victim, order_of, retrained
from spokeshave.timing import evaluating

TEST_CHUNK = 1000
"""Test images that are classified at once."""


@dataclass(frozen=True, eq=False)
class Poisons:
    """What an attack made.

    Attributes:
        images: in 0..1, one a base image.
        labels: with which they enter the training set.
        objective: mean loss on the attacker's normal images after retraining: before each round, and after the last.
        seconds: that the attack took.
    """

    images: Float[Tensor, "p ..."]
    labels: Int64[Tensor, " p"]
    objective: tuple[float, ...]
    seconds: float


@dataclass(frozen=True, eq=False)
class Damage:
    """Accuracy of a network before and after retraining on poison.

    Attributes:
        before: accuracy of the trained network, 0..1.
        clean: accuracy after as many steps on batches of the same size, of clean images only, mean over the seeds; None
            where there were no clean images, or batches are poison alone.
        accuracies: after retraining: of each poison (`ALONE`), or of each seed (`TOGETHER`).
    """

    before: float
    clean: float | None
    accuracies: Float[Tensor, " retrainings"]

    @property
    def mean(self) -> float:
        """Mean accuracy after retraining."""
        return float(self.accuracies.mean())

    @property
    def drop(self) -> float:
        """How far the mean is below `clean`, or below `before` where that is None."""
        return (self.before if self.clean is None else self.clean) - self.mean


def poison(
    model: nn.Module,
    base_images: Float[Tensor, "p *image"],
    base_labels: Int64[Tensor, " p"],
    normal_images: Float[Tensor, "n *image"],
    normal_labels: Int64[Tensor, " n"],
    budget: PoisonBudget | None = None,
    method: PoisonMethod = PoisonMethod.EXACT,
    how: Ascent | None = None,
    *,
    training: tuple[Tensor, Tensor] | None = None,
    seed: int = 0,
    chunk: int = 64,
    plays: Callable[[Rehearsal], Rehearsal] | None = None,
) -> Poisons:
    """Turn base images into poisons by the direct method; the model is left as it was.

    Args:
        model: trained; gives logits for images in 0..1 (a normalization is its first layer). It is retrained, in
            rehearsal, in evaluation mode: batch norm keeps its running statistics.
        base_images: that the poisons start from.
        base_labels: their true classes.
        normal_images: on which the loss is to rise; more of them make poisons that harm unseen images as well.
        normal_labels: their classes.
        budget: what the attacker may do, and the retraining that it expects; None for the paper's.
        method: exact, or by the paper's finite differences.
        how: poisons climb; `PAPER_ASCENT` for the paper's five rounds.
        training: clean images and labels that batches are filled with; None for the normal images.
        seed: of the orders of batches that are rehearsed.
        chunk: poisons, or pixels of the finite difference, that are tried at once.
        plays: turns the retraining that is rehearsed into one with another objective, as `evade` does; None for the
            loss on normal images.

    Raises:
        InvalidArgument: for images outside 0..1, scores that are no logits, wrong labels, or more poisons than allowed.
        UnsupportedLayer: for a model that nothing trains, that no gradient passes, or that cannot be differentiated
            twice.

    Example:
        >>> model = nn.Linear(2, 2, bias=False)
        >>> model.weight.data = torch.tensor([[4.0, 0.0], [0.0, 4.0]])
        >>> eye, labels = torch.eye(2), torch.tensor([0, 1])
        >>> made = poison(model, eye[:1] / 2, labels[:1], eye, labels, PoisonBudget(lr=1.0))
        >>> made.labels.tolist(), made.objective[-1] > made.objective[0]
        ([1], True)
    """
    started = time.perf_counter()
    budget, how = budget or PoisonBudget(), how or Ascent()
    clean = training or (normal_images, normal_labels)
    with evaluating(model), torch.random.fork_rng(_cuda_devices(base_images)), torch.no_grad():
        classes = require_victim(model, base_images, base_labels, "base_images")
        shape = base_images.shape[1:]
        require_victim(model, normal_images, normal_labels, "normal_images", classes, shape)
        require_victim(model, *clean, "training", classes, shape)
        require_differentiable(model, base_images)
        most = budget.most(len(clean[0]))
        if most is not None and len(base_images) > most:
            raise InvalidArgument(f"base_images: the budget allows {most} poisons, got {len(base_images)} base images")
        bases = Labelled(base_images, budget.labels_for(base_labels, classes))
        normal = Labelled(normal_images, normal_labels)
        rehearsal = rehearsal_of(Victim(model), normal, Labelled(*clean), budget, base_images[:1], chunk)
        images, history = climb(plays(rehearsal) if plays else rehearsal, bases, method, how, seed)
    return Poisons(images, bases.labels, tuple(history.mean(0).tolist()), time.perf_counter() - started)


def damage(
    model: nn.Module,
    poison_images: Float[Tensor, "p *image"],
    poison_labels: Int64[Tensor, " p"],
    test: tuple[Tensor, Tensor],
    budget: PoisonBudget | None = None,
    *,
    training: tuple[Tensor, Tensor] | None = None,
    seeds: Sequence[int] = (0,),
    chunk: int = 64,
) -> Damage:
    """Retrain a network on poison and measure its accuracy; the model is left as it was.

    The network may be another than the one that the poisons were made for: that is their transfer.

    Args:
        model: trained; gives logits for images in 0..1. Retrained in evaluation mode, with plain SGD.
        poison_images: of which each is retrained on alone, or all together: the budget says.
        poison_labels: with which they are trained.
        test: images and labels that accuracy is measured on.
        budget: the retraining; None for the paper's.
        training: clean images and labels that batches are filled with; not needed where batches are poison alone.
        seeds: of the orders of batches: of one retraining each where poisons are together; the first where alone.
        chunk: retrained networks that are held at once.

    Raises:
        InvalidArgument: for images outside 0..1, scores that are no logits, or clean images that are missing.
        UnsupportedLayer: for a model that nothing trains.

    Example:
        >>> model = nn.Linear(2, 2, bias=False)
        >>> model.weight.data = torch.tensor([[2.0, 0.0], [0.0, 2.0]])
        >>> eye, labels = torch.eye(2), torch.tensor([0, 1])
        >>> found = damage(model, eye[:1], labels[1:], (eye, labels), PoisonBudget(lr=4.0))
        >>> found.before, found.accuracies.tolist()
        (1.0, [0.5])
    """
    budget = budget or PoisonBudget()
    together = budget.placement is Placement.TOGETHER
    if not seeds:
        raise InvalidArgument("seeds: expected at least one, got none")
    with evaluating(model), torch.random.fork_rng(_cuda_devices(poison_images)), torch.no_grad():
        classes = require_victim(model, poison_images, poison_labels, "poison_images")
        require_victim(model, *test, "test", classes, poison_images.shape[1:])
        victim, poison, tests = Victim(model), Labelled(poison_images, poison_labels), Labelled(*test)
        clean = Labelled(poison_images[:0], poison_labels[:0])
        if training is not None:
            require_victim(model, *training, "training", classes, poison_images.shape[1:])
            clean = Labelled(*training)
        short_cut = rehearsal_of(victim, tests, clean, budget, poison_images[:1]).short_cut
        orders = [order_of(budget, len(clean), len(poison) if together else 1, seed) for seed in seeds]

        def accuracy(scores: Callable[[Tensor], Tensor]) -> Tensor:
            parts = zip(tests.images.split(TEST_CHUNK), tests.labels.split(TEST_CHUNK), strict=True)
            right = [(scores(images).argmax(1) == labels).sum() for images, labels in parts]
            return torch.stack(right).sum().to(poison_images.dtype) / len(tests)

        def after(poison: Labelled, order: Sequence[Batch]) -> Tensor:
            weights = retrained(victim, poison, clean, order, budget)
            return accuracy(lambda images: victim.logits(weights, images))

        def after_one(image: Tensor, label: Tensor) -> Tensor:
            if (short := short_cut) is None:
                return after(Labelled(image[None], label[None]), orders[0])
            return accuracy(lambda images: short.logits(image, label, images))

        if together:
            found = torch.stack([after(poison, order) for order in orders])
        else:
            found = each(after_one, (poison.images, poison.labels), chunk)
        untouched = None
        if any(len(batch.clean) for order in orders for batch in order):
            harmless = [order_of(budget, len(clean), 0, seed) for seed in seeds]
            untouched = [float(after(poison, order)) for order in harmless]
        before = float(accuracy(lambda images: victim.logits(victim.weights, images)))
    return Damage(before, None if untouched is None else sum(untouched) / len(untouched), found)


def require_victim(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    where: str,
    classes: int | None = None,
    shape: torch.Size | None = None,
) -> int:
    """Check a model and a batch of labelled images as poisoning needs them.

    Args:
        model: the victim, in evaluation mode.
        images: expected in 0..1.
        labels: their classes.
        where: the images' name, for the message.
        classes: that the model tells apart; None to find out.
        shape: of one image; None for any.

    Returns:
        Number of classes.

    Raises:
        InvalidArgument: where images, labels or scores are not what an attack needs.
        UnsupportedLayer: where the model has nothing to train.
    """
    require_images(images, where)
    require_place(model, images, where)
    if shape is not None and images.shape[1:] != shape:
        raise InvalidArgument(
            f"{where}: expected images of shape {tuple(shape)} as the poisons', got {tuple(images.shape[1:])}"
        )
    require_labels(labels, images, where, classes)
    if classes is not None:
        return classes
    require_trainable(model)
    scores = model(images[:2])
    if isinstance(scores, Tensor) and not scores.is_floating_point():
        require_differentiable(model, images)
    require_logits(scores, type(model).__name__)
    require_labels(labels, images, where, scores.shape[1])
    return scores.shape[1]


def _cuda_devices(images: Tensor) -> list[int]:
    return [images.device.index or 0] if images.device.type == "cuda" else []
