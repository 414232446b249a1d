"""Gradient attacks: the fast gradient sign method (FGSM) and projected gradient descent (PGD), a strength an image.

Goodfellow, Shlens, Szegedy: Explaining and Harnessing Adversarial Examples, ICLR 2015; Madry, Makelov, Schmidt,
Tsipras, Vladu: Towards Deep Learning Models Resistant to Adversarial Attacks, ICLR 2018; the random start of a single
step: Wong, Rice, Kolter: Fast is better than free, ICLR 2020. With d the direction of ascent, x0 the image and e its
strength: x <- clip_[0,1](x0 + project_e(x + a d - x0)).
Departs from the papers: with p the probability of the true class, what rises is log((1 - p) / p), not the cross entropy
-log p: along the same direction, which is not nothing where p rounds to 1.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from spokeshave.errors import InvalidArgument
from spokeshave.threats.attackable import (
    evaluating,
    require_differentiable,
    require_images,
    require_labels,
    require_logits,
    require_place,
)
from spokeshave.threats.perturbation import Norm, ascent, project, random_start, strengths_of


@dataclass(frozen=True)
class Attack:
    """How images are attacked; strengths come with the images.

    Attributes:
        steps: gradients taken an image, at least 1.
        step_share: length of a step, in strengths, above 0.
        norm: of the perturbation.
        random_start: begin at a point drawn from the ball instead of the image.
        dtype: of the forward and backward pass; float32, or bfloat16 or float16 by autocast.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2, bias=False))
        >>> _ = model[1].weight.data.copy_(torch.tensor([[1.0], [-1.0]]))  # class 0 has the brighter images
        >>> Attack()(model, torch.tensor([[[[0.5]]]]), torch.tensor([0]), 0.125).item()
        0.375
    """

    steps: int = 1
    step_share: float = 1.0
    norm: Norm = Norm.LINF
    random_start: bool = False
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 < self.step_share < float("inf"):
            raise InvalidArgument(
                f"an attack: expected steps of at least 1 and step_share above 0, got {self.steps}, {self.step_share}"
            )
        if self.dtype not in (torch.float32, torch.bfloat16, torch.float16):
            raise InvalidArgument(f"dtype: expected float32, bfloat16 or float16, got {self.dtype}")

    def __call__(
        self,
        model: nn.Module,
        images: Float[Tensor, "b *image"],
        labels: Int64[Tensor, " b"],
        strengths: float | Float[Tensor, " b"],
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "b *image"]:
        """Attack images.

        Args:
            model: gives logits; it runs in evaluation mode and ends as it was: weights, buffers, `.grad`, modes.
            images: 0..1.
            labels: the true classes.
            strengths: largest size of the perturbation, of all images or of each.
            generator: of the random start; None for torch's own state, which a random start then moves on.

        Returns:
            Images in 0..1, none further from its original than its strength.

        Raises:
            InvalidArgument: for images outside 0..1, labels that are none, probabilities in place of logits, or a
                strength out of its range.
            UnsupportedLayer: where no gradient passes through the model.
        """
        require_attackable(model, images, labels)
        found = strengths_of(strengths, images)
        attacked = self.perturb(model, images, labels, found, generator)
        if not bool(attacked.isfinite().all()):
            raise InvalidArgument(f"{type(model).__name__}: the gradient at the images is not finite")
        return attacked

    def perturb(
        self,
        model: nn.Module,
        images: Float[Tensor, "b *image"],
        labels: Int64[Tensor, " b"],
        strengths: Float[Tensor, " b"],
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
    ) -> Float[Tensor, "b *image"]:
        """Attack images that are known to be in order: what a training loop calls; see `__call__`."""
        images = images.detach()
        if not len(images):
            return images.clone()
        step = self.step_share * strengths.reshape(-1, *[1] * (images.dim() - 1))
        moved = torch.zeros_like(images)
        if self.random_start:
            moved = random_start(images, strengths, self.norm, generator)
            moved = (images + moved).clamp_(0, 1) - images
        with untouched(model), torch.enable_grad():
            for _ in range(self.steps):
                gradients = self._gradients(model, images + moved, labels)
                moved = project(moved + step * ascent(gradients, self.norm), strengths, self.norm)
                moved = (images + moved).clamp_(0, 1) - images
        # Not images + moved as it is: rounding could leave the range or, at strength 0, change the image.
        attacked = (images + moved).clamp_(0, 1)
        return torch.where(strengths.reshape(step.shape) > 0, attacked, images)

    def settings(self) -> dict[str, Any]:
        """What defines the attack; JSON values."""
        return {
            "steps": self.steps, "step_share": self.step_share, "norm": self.norm.value,
            "random_start": self.random_start, "dtype": str(self.dtype).removeprefix("torch."),
        }  # fmt: skip

    def _gradients(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        images = images.detach().requires_grad_()
        with torch.autocast(images.device.type, self.dtype, enabled=self.dtype is not torch.float32):
            scores = model(images)
        # Cross entropy rises along the same direction, but where the network is sure its gradient rounds to nothing.
        true = functional.one_hot(labels, scores.shape[1]).bool()
        scores = scores.float()
        margins = scores.masked_fill(true, -torch.inf).logsumexp(1) - scores[true]
        # The sum: the gradient of an image does not depend on the others, nor on how many there are.
        return torch.autograd.grad(margins.sum(), images)[0]


def fgsm(start: bool = False, norm: Norm = Norm.LINF) -> Attack:
    """The fast gradient sign method; with a random start, FGSM-RS, whose step is 1.25 strengths.

    Example:
        >>> fgsm(start=True).step_share
        1.25
    """
    return Attack(1, 1.25 if start else 1.0, norm, start)


def pgd(steps: int = 20, start: bool = True, norm: Norm = Norm.LINF) -> Attack:
    """Projected gradient descent with steps of 2.5 / steps strengths.

    Example:
        >>> pgd(10).step_share
        0.25
    """
    return Attack(steps, 2.5 / steps, norm, start)


class InnerAttack(Enum):
    """Attacks that networks are trained on, by the names of the field; by the cost of a step, in gradients."""

    FGSM = "fgsm"
    FGSM_RS = "fgsm-rs"
    PGD_4 = "pgd-4"
    PGD_10 = "pgd-10"

    def attack(self, norm: Norm = Norm.LINF) -> Attack:
        """The attack of that name."""
        if self in (InnerAttack.FGSM, InnerAttack.FGSM_RS):
            return fgsm(self is InnerAttack.FGSM_RS, norm)
        return Attack(4, 0.4, norm, True) if self is InnerAttack.PGD_4 else pgd(10, norm=norm)


def require_attackable(model: nn.Module, images: Tensor, labels: Tensor, by_gradient: bool = True) -> int:
    """See that a model, images and labels are what an attack needs, before it starts.

    Args:
        model: gives logits.
        images: 0..1, on the model's device.
        labels: the true classes.
        by_gradient: whether the attack follows gradients; else they may be cut.

    Returns:
        How many classes the model tells apart.

    Raises:
        InvalidArgument: for images outside 0..1 or elsewhere than the model, labels that are none, or probabilities in
            place of logits.
        UnsupportedLayer: where a gradient is needed and none passes through the model.
    """
    require_images(images, "images")
    require_labels(labels, images, "labels")
    require_place(model, images, "images")
    with torch.no_grad(), untouched(model):
        scores = model(images[:2])
    require_logits(scores, type(model).__name__)
    require_labels(labels, images, "labels", scores.shape[1])
    if by_gradient:
        require_differentiable(model, images)
    return scores.shape[1]


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Run a model in evaluation mode; modes, and the random states of torch, are afterwards as before.

    Example:
        >>> model = nn.Dropout().train()
        >>> with untouched(model):
        ...     model.training
        False
        >>> model.training
        True
    """
    cuda = [torch.cuda.current_device()] if torch.cuda.is_available() and torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=cuda), evaluating(model):
        yield
