"""Settings of one stage of training: optimizer, learning rate over time, number format, length."""

import math
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

import torch
from torch import nn

from spokeshave.errors import InvalidArgument
from spokeshave.jit.host_cpu import host_cpu
from spokeshave.structures.member_stack import MemberStack


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
    POLYNOMIAL = "polynomial"


class Precision(Enum):
    """Number format of the forward and backward pass; weights stay float32."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"

    def on(self, device: torch.device) -> "Precision":
        """What is computed with on a device: float32 in place of a bfloat16 that a CPU has no instructions for.

        It would be emulated: a step of ResNet-20 takes ten times as long with AVX2.
        """
        emulated = device.type == "cpu" and not host_cpu().features & _BFLOAT16_FEATURES
        return Precision.FLOAT32 if self is Precision.BFLOAT16 and emulated else self


_BFLOAT16_FEATURES = {"avx512bf16", "amx-bf16", "bf16"}


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
        precision: of forward and backward pass, where the device has it (`Precision.on`).
        label_smoothing: of the cross entropy, 0..1.
        clip_norm: largest norm of the whole gradient, before any regularizer; 0 for none.
        channels_last: memory format of the convolutions; faster on most CPUs and GPUs.
        keep_best: end with the weights of the best validation epoch instead of the last.
        checkpoint_every: steps between checkpoints, beside those of epochs that are no shorter; 0 for one an epoch.
        seed: of dropout and anything else that the model draws.
        steps: length of the stage in place of `epochs`; 0 for epochs.
        power: of the polynomial schedule, (1 - step / steps) ** power, positive.
        decayed: names of the modules whose weights decay; empty for all.
        slow: factor on the learning rate of what lies outside `fast`, such as layers that were trained before, above 0.
        fast: names of the modules that learn at the full rate, with all inside them.
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
    steps: int = 0
    power: float = 0.5
    decayed: tuple[str, ...] = ()
    slow: float = 1.0
    fast: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.epochs < 1 or not self.learning_rate > 0 or self.checkpoint_every < 0:
            raise InvalidArgument(
                "epochs must be at least 1, learning_rate positive, checkpoint_every at least 0; got "
                f"{self.epochs}, {self.learning_rate}, {self.checkpoint_every}"
            )
        if self.steps < 0 or not self.power > 0:
            raise InvalidArgument(f"steps must be at least 0, power positive; got {self.steps}, {self.power}")
        if not self.slow > 0:
            raise InvalidArgument(f"slow must be positive, got {self.slow}")

    def total_steps(self, steps_an_epoch: int) -> int:
        """Length of the stage, in steps."""
        return self.steps or self.epochs * steps_an_epoch

    def to_dict(self) -> dict[str, Any]:
        """Settings as JSON values; rates of parts only where they differ, so that older checkpoints are found."""
        left_out = ("slow", "fast") if self.slow == 1.0 else ()
        return {k: v.value if isinstance(v, Enum) else v for k, v in asdict(self).items() if k not in left_out}


def make_optimizer(model: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    """Make the optimizer of a stage; weight decay is left off biases and normalization.

    Each group says by `share` which part of the learning rate of a step it has.

    Raises:
        InvalidArgument: where `settings.decayed` or `settings.fast` names what is no module of the model.
    """
    for option, names in (("decayed", settings.decayed), ("fast", settings.fast)):
        unknown = set(names) - {name for name, _ in model.named_modules()}
        if unknown:
            raise InvalidArgument(f"{option}: the model has no module called {', '.join(sorted(unknown))}")

    vector = 2 if isinstance(model, MemberStack) else 1

    def decays(name: str, parameter: nn.Parameter) -> bool:
        return parameter.dim() > vector and (not settings.decayed or name.rpartition(".")[0] in settings.decayed)

    def is_fast(name: str) -> bool:
        return settings.slow == 1.0 or any(name == one or name.startswith(f"{one}.") for one in settings.fast)

    groups = []
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    for share in (1.0,) if settings.slow == 1.0 else (1.0, settings.slow):
        alike = [(name, one) for name, one in trained if is_fast(name) == (share == 1.0)]
        for decay in (True, False):
            members = [one for name, one in alike if decays(name, one) == decay]
            rate = settings.weight_decay if decay else 0.0
            groups += [{"params": members, "weight_decay": rate, "share": share}] if members else []
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
    total, warmup = settings.total_steps(steps_an_epoch), settings.warmup_epochs * steps_an_epoch
    if step < warmup:
        return settings.learning_rate * (step + 1) / (warmup + 1)
    if settings.schedule is Schedule.CONSTANT:
        return settings.learning_rate
    if settings.schedule is Schedule.STEPS:
        passed = sum(step >= milestone * total for milestone in settings.milestones)
        return settings.learning_rate * settings.gamma**passed
    done = (step - warmup) / max(1, total - warmup)
    if settings.schedule is Schedule.POLYNOMIAL:
        return settings.learning_rate * (1 - done) ** settings.power
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
