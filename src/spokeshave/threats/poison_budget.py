"""What a poisoner may do, and how the victim is retrained: the threat model of all poisoning attacks.

Yang, Wu, Li, Chen: Generative Poisoning Attack Method Against Neural Networks, arXiv:1703.01340, 2017, by the authors'
code: one poison with label y + 1, one step of SGD from the trained weights, biases at twice the learning rate.
Departs from the paper: the label after the last class is 0; number, radius, flips, steps and batches are settings.
"""

from dataclasses import dataclass
from enum import Enum

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from spokeshave.errors import InvalidArgument
from spokeshave.threats.perturbation import Norm, project


class Placement(Enum):
    """Whether each poison is what one retraining sees of them, or all enter the same retraining."""

    ALONE = "alone"
    """Every poison is judged by a retraining of its own, as in the paper."""
    TOGETHER = "together"
    """One retraining sees all poisons, mixed with clean images; they are optimised jointly."""


@dataclass(frozen=True)
class PoisonBudget:
    """How many poisons, how far from their base images, with which labels, and the retraining they enter.

    Attributes:
        count: most poisons, at least 1; None for no limit.
        share: most poisons as a share of the clean training images, above 0 and at most 1; None for no limit.
        radius: farthest that a poison may be from its base image, above 0, in units of the images' range 0..1; None for
            anywhere in the range.
        norm: in which the radius is measured.
        flip: whether poisons may carry a wrong label; False is the clean-label attack.
        label: the label of all poisons where they are flipped; None for the class after the base image's own.
        placement: each poison alone, or all together.
        steps: of SGD that the victim takes from its trained weights, at least 1.
        lr: learning rate of weights, above 0.
        bias_lr: of biases; None for twice `lr`, as the authors' code has it.
        momentum: of SGD, in [0, 1).
        batch_size: images a step, at least 1.
        batch_share: share of poisons in every batch, in (0, 1], at least one poison; None for batches drawn from
            clean images and poisons shuffled together (`TOGETHER`), or one poison a batch (`ALONE`).

    Example:
        >>> budget = PoisonBudget(share=0.03)
        >>> budget.most(5000), budget.bias_rate, budget.labels_for(torch.tensor([5, 9]), classes=10).tolist()
        (150, 0.1, [6, 0])
    """

    count: int | None = None
    share: float | None = None
    radius: float | None = None
    norm: Norm = Norm.LINF
    flip: bool = True
    label: int | None = None
    placement: Placement = Placement.ALONE
    steps: int = 1
    lr: float = 0.05
    bias_lr: float | None = None
    momentum: float = 0.0
    batch_size: int = 1
    batch_share: float | None = None

    def __post_init__(self) -> None:
        wrong = {
            "count: at least 1": self.count is not None and self.count < 1,
            "share: above 0, at most 1": self.share is not None and not 0 < self.share <= 1,
            "radius: above 0 and finite": self.radius is not None and not 0 < self.radius < float("inf"),
            "label: at least 0": self.label is not None and self.label < 0,
            "label: None where flip is False": self.label is not None and not self.flip,
            "steps: at least 1": self.steps < 1,
            "lr: above 0 and finite": not 0 < self.lr < float("inf"),
            "bias_lr: at least 0 and finite": self.bias_lr is not None and not 0 <= self.bias_lr < float("inf"),
            "momentum: in [0, 1)": not 0 <= self.momentum < 1,
            "batch_size: at least 1": self.batch_size < 1,
            "batch_share: in (0, 1]": self.batch_share is not None and not 0 < self.batch_share <= 1,
        }
        for rule, broken in wrong.items():
            if broken:
                field = rule.partition(":")[0]
                raise InvalidArgument(f"PoisonBudget: expected {rule}, got {getattr(self, field)!r}")

    @property
    def bias_rate(self) -> float:
        """Learning rate of biases."""
        return 2 * self.lr if self.bias_lr is None else self.bias_lr

    def rate_of(self, parameter: str) -> float:
        """Learning rate of a parameter, by its name in the model.

        Example:
            >>> PoisonBudget(lr=0.5).rate_of("conv1.weight"), PoisonBudget(lr=0.5).rate_of("conv1.bias")
            (0.5, 1.0)
        """
        return self.bias_rate if parameter.rpartition(".")[2] == "bias" else self.lr

    def most(self, training_images: int) -> int | None:
        """Most poisons beside so many clean training images; None for no limit."""
        limits = [self.count] if self.count is not None else []
        if self.share is not None:
            limits.append(max(1, round(self.share * training_images)))
        return min(limits, default=None)

    def labels_for(self, labels: Int64[Tensor, " p"], classes: int) -> Int64[Tensor, " p"]:
        """Labels of the poisons made from base images with these labels.

        Raises:
            InvalidArgument: where the label that was asked for is none of the classes.
        """
        if not self.flip:
            return labels.clone()
        if self.label is None:
            return (labels + 1) % classes
        if self.label >= classes:
            raise InvalidArgument(f"PoisonBudget: expected a label of 0..{classes - 1}, got {self.label}")
        return torch.full_like(labels, self.label)

    def project(
        self, poisons: Float[Tensor, "p *image"], bases: Float[Tensor, "p *image"]
    ) -> Float[Tensor, "p *image"]:
        """Bring poisons into the range 0..1 and into the ball around their base images.

        Example:
            >>> PoisonBudget(radius=0.25).project(torch.tensor([[-3.0, 3.0]]), torch.tensor([[0.0, 0.5]])).tolist()
            [[0.0, 0.75]]
        """
        inside = poisons.clamp(0, 1)
        if self.radius is None:
            return inside
        # Base images lie in the range, which is convex, so a shorter step from them stays inside.
        radii = inside.new_full((len(inside),), self.radius)
        return bases + project(inside - bases, radii, self.norm)
