"""MixedMAT: multi-strength adversarial training of one network, as a transform of batches for any training loop.

Song, Cheng, Yang, Li, Wu, Wu, Chen, Li: MAT: A Multi-strength Adversarial Training Method to Mitigate Adversarial
Attacks, ISVLSI 2018. J = a J(x) + (1 - a) / K sum_k J(x_k), where x_k is x attacked with strength e_k.
Departs from the paper: only its abstracts could be read, so strengths, a, the attack and how strengths are drawn are
options here; one strength drawn for each image, a start at random and the guard are not the paper's.
"""

import warnings
from collections.abc import Sequence
from dataclasses import asdict, replace
from enum import Enum
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from spokeshave.errors import InvalidArgument
from spokeshave.processes import from_first, process_rank
from spokeshave.threats.attack_guard import Guard, stronger
from spokeshave.threats.attackable import require_differentiable, require_images, require_labels
from spokeshave.threats.gradient_attack import Attack, fgsm


class Drawing(Enum):
    """How the strengths of a batch come about.

    ALL: every image at every strength, the paper's sum; costs as many attacks as there are strengths.
    ONE: each image at one of them, drawn evenly; costs what one strength costs.
    RANGE: each image at a strength drawn evenly between the smallest and the largest.
    """

    ALL = "all"
    ONE = "one"
    RANGE = "range"


class MixedMAT:
    """Multi-strength adversarial training of one network.

    What is drawn is a function of (seed, step), so that a resumed run sees the same images.

    Args:
        model: the network that is trained; gives logits on images in 0..1.
        strengths: e_1..e_K, largest perturbations, in units of the images and above 0.
        attack: that makes the adversarial images; by default one step with a random start.
        drawing: how many strengths an image sees in a step.
        clean_share: a, the weight of clean images, 0..1 without 1. Half of the images of a batch are clean with 0.5.
        ramp_steps: over which strengths rise from nothing to what they are; 0 for none.
        guard: compares FGSM with PGD now and then, and gives the attack more steps where it has been outwitted; None
            for none.
        seed: of what is drawn.
        weights: how often each strength is drawn with `Drawing.ONE`, above 0, in any unit; None for evenly. Strong
            attacks are harder to learn: `weights=strengths` draws them more often.

    Raises:
        InvalidArgument: where there is no strength, or a number is out of its range.

    Example:
        >>> mat = MixedMAT(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), [0.1, 0.2])
        >>> images, labels = mat(torch.rand(8, 1, 2, 2), torch.zeros(8, dtype=torch.int64))  # clean, then attacked
        >>> images.shape, bool((images[8:] - images[:8]).abs().max() <= 0.2001)
        (torch.Size([16, 1, 2, 2]), True)
    """

    def __init__(
        self,
        model: nn.Module,
        strengths: Sequence[float],
        attack: Attack | None = None,
        drawing: Drawing = Drawing.ONE,
        clean_share: float = 0.5,
        ramp_steps: int = 0,
        guard: Guard | None = Guard(),  # noqa: B008 - frozen
        seed: int = 0,
        weights: Sequence[float] | None = None,
    ) -> None:
        if not strengths or not all(0 < one < float("inf") for one in strengths):
            raise InvalidArgument(f"strengths: expected at least one finite number above 0, got {list(strengths)}")
        if not 0 <= clean_share < 1 or ramp_steps < 0:
            raise InvalidArgument(
                f"expected clean_share of 0..1 without 1, and ramp_steps of at least 0, got {clean_share}, {ramp_steps}"
            )
        if drawing is not Drawing.ALL and clean_share > 0.5:
            raise InvalidArgument(
                f"clean_share: at most 0.5 where each image is attacked once (there are no more clean images), "
                f"got {clean_share}"
            )
        if weights is not None and (
            drawing is not Drawing.ONE
            or len(weights) != len(strengths)
            or not all(0 < one < float("inf") for one in weights)
        ):
            raise InvalidArgument(
                f"weights: with Drawing.ONE, expected one number above 0 for each of {len(strengths)} strengths, got "
                f"{list(weights)} with {drawing}"
            )
        self.model = model
        pairs = sorted(zip(map(float, strengths), weights or [1.0] * len(strengths), strict=True))
        self.strengths = tuple(strength for strength, _ in pairs)
        self.weights = None if weights is None else tuple(float(weight) for _, weight in pairs)
        self.attack = attack or fgsm(start=True)
        self.first_attack = self.attack
        self.drawing, self.clean_share, self.ramp_steps = drawing, clean_share, ramp_steps
        self.guard, self.seed = guard, seed
        self.step, self.gap, self.gradients = 0, 0.0, 0
        self._checked = False

    def __call__(
        self, images: Float[Tensor, "b c h w"], labels: Int64[Tensor, " b"]
    ) -> tuple[Float[Tensor, "n c h w"], Int64[Tensor, " n"]]:
        """Give the batch to train on: clean images, then attacked ones; counts the steps.

        The mean of the loss over it is J, up to the rounding of the number of clean images. With `Drawing.ALL` they are
        repeated until they have their share; `loss` weighs them instead.

        Args:
            images: 0..1.
            labels: of the images.

        Raises:
            InvalidArgument: for images outside 0..1, or a model that does not give logits.
            UnsupportedLayer: where no gradient passes through the model.
        """
        made = self.transform(self.step, images, labels)
        self.step += 1
        return made

    def loss(self, images: Float[Tensor, "b c h w"], labels: Int64[Tensor, " b"]) -> Float[Tensor, ""]:
        """J of a batch, for any way of drawing, with a forward pass of the model in its own mode; counts the steps.

        Args:
            images: 0..1.
            labels: of the images.
        """
        attacked = self._attacked(self.step, images, labels)
        self.step += 1
        whole = self.drawing is Drawing.ALL and self.clean_share > 0
        clean = len(images) if whole else self._clean(len(images))
        targets = torch.cat([labels[:clean], labels.repeat(len(attacked) // len(images))])
        losses = functional.cross_entropy(self.model(torch.cat([images[:clean], attacked])), targets, reduction="none")
        hard = losses[clean:].mean()
        return self.clean_share * losses[:clean].mean() + (1 - self.clean_share) * hard if clean else hard

    def transform(self, step: int, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """What `training.train` calls: as `__call__`, but the step is given."""
        return self.mix(inputs, labels, self._attacked(step, inputs, labels))

    def due(self, step: int) -> bool:
        """Say whether the network itself has to be looked at before this step."""
        return not self._checked or (self.guard is not None and step % self.guard.every == self.guard.every - 1)

    def watch(self, step: int, inputs: Tensor, labels: Tensor) -> None:
        """See that the network can be attacked, before its first step, and now and then that the attack still holds."""
        if not self._checked:
            require_images(inputs, "images")
            require_labels(labels, inputs, "labels")
            require_differentiable(self.model, inputs)
            self._checked = True
        if self.guard is not None and step % self.guard.every == self.guard.every - 1:
            self._check(inputs, labels, step)

    def draw(self, step: int, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor, torch.Generator]:
        """What is attacked in a step: images, their labels, their strengths, and the generator of the random start."""
        # Processes that share a batch draw each for its own images.
        generator = torch.Generator().manual_seed((self.seed * 1009 + process_rank()) * 1_000_003 + step)
        copies = len(self.strengths) if self.drawing is Drawing.ALL else 1
        images = inputs.repeat(copies, *[1] * (inputs.dim() - 1))
        strengths = self._strengths(len(inputs), step, generator).to(inputs.device)
        return images, labels.repeat(copies), strengths, generator

    def mix(self, inputs: Tensor, labels: Tensor, attacked: Tensor) -> tuple[Tensor, Tensor]:
        """Give the batch to train on, of clean images and what became of those of `draw`."""
        copies = len(attacked) // len(inputs)
        self.gradients += copies * self.attack.steps
        chosen = torch.arange(self._clean(len(inputs)), device=inputs.device) % len(inputs)
        return torch.cat([inputs[chosen], attacked]), torch.cat([labels[chosen], labels.repeat(copies)])

    def report(self) -> dict[str, Any]:
        """Steps of the attack as it is now, gradients taken for each image of a batch so far, the guard's last gap."""
        return {"attack_steps": self.attack.steps, "gradients": self.gradients, "gap": self.gap}

    def settings(self) -> dict[str, Any]:
        """What defines the training; JSON values."""
        return {
            "strengths": list(self.strengths), "attack": self.first_attack.settings(), "drawing": self.drawing.value,
            "clean_share": self.clean_share, "ramp_steps": self.ramp_steps, "seed": self.seed,
            "guard": None if self.guard is None else asdict(self.guard),
            **({} if self.weights is None else {"weights": list(self.weights)}),
        }  # fmt: skip

    def state_dict(self) -> dict[str, Tensor]:
        """What the guard has changed, and what has been counted."""
        attack = self.attack
        numbers = [self.step, attack.steps, attack.step_share, attack.random_start, self.gap, self.gradients]
        return {"state": torch.tensor([float(one) for one in numbers], dtype=torch.float64)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state_dict` gave."""
        step, steps, share, start, self.gap, gradients = state["state"].tolist()
        self.step, self.gradients = int(step), int(gradients)
        self.attack = replace(self.attack, steps=int(steps), step_share=share, random_start=bool(start))

    def _attacked(self, step: int, inputs: Tensor, labels: Tensor) -> Tensor:
        if self.due(step):
            self.watch(step, inputs, labels)
        images, targets, strengths, generator = self.draw(step, inputs, labels)
        return self.attack.perturb(self.model, images, targets, strengths, generator)

    def _clean(self, images: int) -> int:
        """How many clean images a batch begins with."""
        copies = len(self.strengths) if self.drawing is Drawing.ALL else 1
        return round(copies * images * self.clean_share / (1 - self.clean_share))

    def _strengths(self, images: int, step: int, generator: torch.Generator) -> Tensor:
        levels = torch.tensor(self.strengths)
        if self.drawing is Drawing.ALL:
            drawn = levels.repeat_interleave(images)
        elif self.weights is not None:
            drawn = levels[torch.multinomial(torch.tensor(self.weights), images, True, generator=generator)]
        elif self.drawing is Drawing.ONE:
            drawn = levels[torch.randint(len(levels), (images,), generator=generator)]
        else:
            drawn = levels[0] + (levels[-1] - levels[0]) * torch.rand(images, generator=generator)
        return drawn * self._risen(step)

    def _risen(self, step: int) -> float:
        """Share of their strength that strengths have reached."""
        return min(1.0, (step + 1) / self.ramp_steps) if self.ramp_steps else 1.0

    def _check(self, images: Tensor, labels: Tensor, step: int) -> None:
        assert self.guard is not None
        strength = self.strengths[-1] * self._risen(step)
        # One decision for all processes: each sees other images.
        (self.gap,) = from_first([self.guard.measure(self.model, images, labels, strength, self.attack)])
        more = stronger(self.attack, self.guard.most)
        if self.gap > self.guard.gap and more != self.attack:
            before, self.attack = self.attack.steps, more
            warnings.warn(
                f"step {step}: accuracy under FGSM is {100 * self.gap:.0f} points above that under PGD with "
                f"{self.guard.steps} steps: the network bends gradients, it does not resist. From here on it is "
                f"attacked in {self.attack.steps} steps in place of {before}",
                RuntimeWarning,
                stacklevel=2,
            )
