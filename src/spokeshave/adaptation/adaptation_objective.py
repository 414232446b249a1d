"""Adaptation as a training objective: labels of the source, and terms that draw the target along.

Wu, Wen, Afzal, Zhang, Chen, Li: A Compact DNN: Approaching GoogLeNet-Level Accuracy of Classification and Domain
Adaptation, CVPR 2017, names three aims; each is met here by a published part: invariance (a domain classifier behind a
reversed gradient), smaller divergence (kernel mean discrepancy, covariances, sorted projections), adapted prediction
(entropy of target predictions, a residual classifier).
Departs from the paper: of which only the abstract could be read: parts, weights and schedules are chosen here.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from enum import Enum
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional

from spokeshave.adaptation.adapting_network import TwoDomains
from spokeshave.adaptation.correlation_alignment import coral_distance
from spokeshave.adaptation.domain_classifier import domain_accuracy, domain_loss
from spokeshave.adaptation.gradient_reversal import ramp
from spokeshave.adaptation.maximum_mean_discrepancy import squared_mmd
from spokeshave.adaptation.prediction_entropy import entropy_of_mean, mean_entropy
from spokeshave.adaptation.sliced_wasserstein import sliced_wasserstein
from spokeshave.errors import InvalidArgument


class Growth(Enum):
    """How the weight of a term grows over a training."""

    CONSTANT = "constant"
    RAMP = "ramp"
    """From 0 to the whole weight, fast at the start: `gradient_reversal.ramp`."""
    LINEAR = "linear"

    def at(self, progress: float) -> float:
        """The share of the weight, 0..1, at a share of the training."""
        return {Growth.CONSTANT: 1.0, Growth.RAMP: ramp(progress), Growth.LINEAR: progress}[self]


@dataclass(frozen=True)
class Term:
    """A term of the loss.

    Attributes:
        weight: at its largest; 0 leaves the term out.
        growth: of the weight over the training.
    """

    weight: float = 0.0
    growth: Growth = Growth.RAMP


@dataclass(frozen=True)
class Terms:
    """Weights of all terms.

    Attributes:
        adversarial: how strongly features are pulled to what a domain classifier cannot tell; the classifier itself
            always learns at full strength.
        mmd: of the kernel mean discrepancy of features and of answers.
        coral: of the distance of the features' covariances.
        wasserstein: of the sliced Wasserstein distance of features.
        entropy: of the mean entropy of target answers.
        diversity: by which the entropy of the mean target answer is pulled up: classes are used alike.
    """

    adversarial: Term = Term(1.0)
    mmd: Term = Term(1.0)
    coral: Term = Term()
    wasserstein: Term = Term()
    entropy: Term = Term(0.1)
    diversity: Term = Term(0.1)

    def __post_init__(self) -> None:
        for part in fields(self):
            weight = getattr(self, part.name).weight
            if not (math.isfinite(weight) and weight >= 0):
                raise InvalidArgument(f"{part.name}: expected a weight of at least 0, got {weight}")

    def to_dict(self) -> dict[str, Any]:
        """Weights and growths as JSON values."""
        return {name: {"weight": one["weight"], "growth": one["growth"].value} for name, one in asdict(self).items()}


SOURCE_ONLY = Terms(*(Term() for _ in fields(Terms)))


@runtime_checkable
class TargetBatches(Protocol):
    """What is asked of the target: batches that follow from epoch and place, as `data.Batches` gives them."""

    batch_size: int
    seed: int

    def __len__(self) -> int:
        """Batches in an epoch."""
        ...

    def batch(self, epoch: int, index: int) -> tuple[Tensor, Tensor]:
        """One batch, and labels, which are never looked at."""
        ...

    def digest(self) -> str:
        """Of all that is drawn from."""
        ...


class Adaptation:
    """The objective: the cross entropy of source images, and the terms, on a batch of target images beside them.

    Args:
        target: batches of the target domain; their labels are never looked at.
        terms: and their weights.
        label_smoothing: of the source's labels, 0..1.
    """

    def __init__(self, target: TargetBatches, terms: Terms | None = None, label_smoothing: float = 0.0) -> None:
        self.target, self.terms, self.label_smoothing = target, terms or Terms(), label_smoothing
        self._sums: dict[str, float] = {}

    def loss(self, forward: Callable[..., Any], step: int, steps: int, inputs: Tensor, labels: Tensor) -> Tensor:
        """Of a batch of the source, and the target's batch of the same step.

        Args:
            forward: of an `AdaptingNetwork`.
            step: 0 for the first.
            steps: of the whole training.
            inputs: source images.
            labels: of these.
        """
        epoch, index = divmod(step, len(self.target))
        progress = step / max(1, steps - 1)
        strength = {part.name: self._weight(part.name, progress) for part in fields(self.terms)}
        seen: TwoDomains = forward(inputs, self.target.batch(epoch, index)[0], strength["adversarial"])
        supervised = functional.cross_entropy(seen.source_scores.float(), labels, label_smoothing=self.label_smoothing)
        # The domain classifier learns at full strength; how strongly features feel it is the reversal's scale.
        total = supervised + domain_loss(seen.source_domain, seen.target_domain)
        noted = {"source": supervised, "domain": total - supervised}
        for name, value in self._terms(seen, strength, step):
            total = total + strength[name] * value
            noted[name] = value
        with torch.no_grad():
            noted["domain_accuracy"] = torch.tensor(domain_accuracy(seen.source_domain, seen.target_domain))
        for name, value in noted.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value.detach())
        self._sums["steps"] = self._sums.get("steps", 0.0) + 1
        return total

    def _weight(self, name: str, progress: float) -> float:
        term: Term = getattr(self.terms, name)
        return term.weight * term.growth.at(progress)

    def _terms(self, seen: TwoDomains, strength: dict[str, float], step: int) -> Iterator[tuple[str, Tensor]]:
        """Terms that count at this step, by name."""
        first, second = seen.source_features.float(), seen.target_features.float()
        answers = seen.target_answers.float()
        if strength["mmd"]:
            yield "mmd", squared_mmd(first, second) + squared_mmd(seen.source_answers.float(), answers)
        if strength["coral"]:
            yield "coral", coral_distance(first, second)
        if strength["wasserstein"]:
            drawn = torch.Generator().manual_seed(step)
            yield "wasserstein", sliced_wasserstein(first, second, generator=drawn)
        if strength["entropy"]:
            yield "entropy", mean_entropy(answers)
        if strength["diversity"]:
            yield "diversity", -entropy_of_mean(answers)

    def report(self) -> dict[str, Any]:
        """Means of an epoch: the losses, unweighted, and how often the domain classifier was right."""
        steps = self._sums.pop("steps", 0.0)
        found = {name: value / steps for name, value in self._sums.items()} if steps else {}
        self._sums.clear()
        return found

    def settings(self) -> dict[str, Any]:
        """Terms and target images."""
        target = self.target
        order = {"batch_size": target.batch_size, "order": target.seed}
        return {"terms": self.terms.to_dict(), "target": target.digest(), **order, "smoothing": self.label_smoothing}

    def state_dict(self) -> dict[str, Tensor]:
        """The sums of the epoch that has begun."""
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in self._sums.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over what `state_dict` gave."""
        self._sums = {name: float(value) for name, value in state.items()}
