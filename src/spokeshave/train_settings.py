"""Settings of one stage of training: optimizer, learning rate over time, number format, length."""

import math
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

import torch
from torch import nn

from spokeshave.errors import InvalidArgument


class OptimizerName(Enum):
    """Optimizers that the loop makes."""

    SGD = "sgd"
    ADAM = "adam"
    ADAMW = "adamw"


class Schedule(Enum):
    """How the learning rate falls over a stage."""

    CONSTANT = "constant"
    STEPS = "steps"
    COSINE = "cosine"


class Precision(Enum):
    """Number format of the forward and backward pass; weights stay float32."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


@dataclass(frozen=True)
class TrainSettings:
    """How one stage of training goes.

    Attributes:
        epochs: passes over the training split, at least 1.
        learning_rate: at the start, positive.
        optimizer: sgd has Nesterov-free momentum.
        momentum: of sgd, 0..1.
        weight_decay: L2, on weights with 2 or more dimensions only (no bias, no batch normalization).
        schedule: of the learning rate.
        milestones: for steps: fractions of the stage, 0..1, at which the rate is multiplied by `gamma`.
        gamma: factor at a milestone.
        warmup_epochs: of linear warm-up from 0; fractions are allowed.
        precision: of forward and backward pass.
        label_smoothing: of the cross entropy, 0..1.
        clip_norm: largest norm of the whole gradient, before any regularizer; 0 for none.
        channels_last: memory format of the convolutions; faster on most CPUs and GPUs.
        keep_best: end with the weights of the best validation epoch instead of the last.
        checkpoint_every: steps between checkpoints; 0 for one an epoch.
        seed: of dropout and anything else that the model draws.
    """

    epochs: int = 10
    learning_rate: float = 0.01
    optimizer: OptimizerName = OptimizerName.SGD
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: Schedule = Schedule.COSINE
    milestones: tuple[float, ...] = (0.5, 0.75)
    gamma: float = 0.1
    warmup_epochs: float = 0.0
    precision: Precision = Precision.FLOAT32
    label_smoothing: float = 0.0
    clip_norm: float = 0.0
    channels_last: bool = False
    keep_best: bool = False
    checkpoint_every: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or not self.learning_rate > 0 or self.checkpoint_every < 0:
            raise InvalidArgument(
                "epochs must be at least 1, learning_rate positive, checkpoint_every at least 0; got "
                f"{self.epochs}, {self.learning_rate}, {self.checkpoint_every}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Settings as JSON values."""
        return {k: v.value if isinstance(v, Enum) else v for k, v in asdict(self).items()}


def make_optimizer(model: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    """Make the optimizer of a stage; weight decay is left off biases and normalization."""
    matrices = [p for p in model.parameters() if p.requires_grad and p.dim() > 1]
    vectors = [p for p in model.parameters() if p.requires_grad and p.dim() <= 1]
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if settings.optimizer is OptimizerName.SGD:
        return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=settings.momentum)
    kind = torch.optim.Adam if settings.optimizer is OptimizerName.ADAM else torch.optim.AdamW
    return kind(groups, lr=settings.learning_rate)


def rate_at(settings: TrainSettings, step: int, steps_an_epoch: int) -> float:
    """Learning rate of a step: a pure function, so that resuming needs no scheduler state.

    Example:
        >>> s = TrainSettings(epochs=2, learning_rate=1.0, schedule=Schedule.STEPS, milestones=(0.5,), gamma=0.1)
        >>> [rate_at(s, step, 10) for step in (0, 9, 10)]
        [1.0, 1.0, 0.1]
    """
    total, warmup = settings.epochs * steps_an_epoch, settings.warmup_epochs * steps_an_epoch
    if step < warmup:
        return settings.learning_rate * (step + 1) / (warmup + 1)
    if settings.schedule is Schedule.CONSTANT:
        return settings.learning_rate
    if settings.schedule is Schedule.STEPS:
        passed = sum(step >= milestone * total for milestone in settings.milestones)
        return settings.learning_rate * settings.gamma**passed
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
