"""What every attack of another library is held to: the model ends as it was, and its images stay inside their balls.

Libraries call `backward`, which fills `.grad`, seed torch's own random state, and differ in how exactly they keep to a
norm. Here parameters ask for no gradient while a library runs, and what it returns is brought back into the ball of its
strength and into 0..1 before anybody counts it. Departs from the papers: plumbing, in none of them.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from spokeshave.errors import InvalidArgument
from spokeshave.threats.gradient_attack import untouched
from spokeshave.threats.perturbation import Norm, project


@runtime_checkable
class MakesExamples(Protocol):
    """What makes adversarial examples, ours or another library's: all are called alike."""

    @property
    def norm(self) -> Norm:
        """In which the perturbation is measured."""
        ...

    def __call__(
        self,
        model: nn.Module,
        images: Float[Tensor, "b *image"],
        labels: Int64[Tensor, " b"],
        strengths: float | Float[Tensor, " b"],
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "b *image"]:
        """Attack images."""
        ...


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Run a model that a library may call `backward` on: no parameter asks for a gradient inside the block.

    Example:
        >>> model = nn.Linear(1, 1)
        >>> with frozen(model):
        ...     model.weight.requires_grad
        False
        >>> model.weight.requires_grad
        True
    """
    asked = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    with untouched(model):
        try:
            for parameter, _ in asked:
                parameter.requires_grad_(False)
            yield
        finally:
            for parameter, wanted in asked:
                parameter.requires_grad_(wanted)


def contained(
    attacked: Float[Tensor, "b *image"],
    images: Float[Tensor, "b *image"],
    strengths: Float[Tensor, " b"],
    norm: Norm,
) -> Float[Tensor, "b *image"]:
    """Bring what a library returned into the ball of each image and into 0..1.

    An image that came back with NaN is one that was not attacked: networks are wrong on NaN, which is no success.

    Args:
        attacked: as returned.
        images: the originals, 0..1.
        strengths: radius of each ball; at 0 an image is its original, bit for bit.
        norm: of the ball.

    Example:
        >>> images, attacked = torch.tensor([[0.5], [0.5]]), torch.tensor([[0.9], [torch.nan]])
        >>> contained(attacked, images, torch.full((2,), 0.25), Norm.LINF)
        tensor([[0.7500],
                [0.5000]])
    """
    beside = (-1, *[1] * (images.dim() - 1))
    whole = attacked.detach().isfinite().flatten(1).all(1).reshape(beside)
    moved = project(torch.where(whole, attacked.detach() - images, 0), strengths, norm)
    return torch.where(whole & (strengths.reshape(beside) > 0), (images + moved).clamp(0, 1), images)


def by_strength(
    images: Float[Tensor, "b *image"],
    strengths: Float[Tensor, " b"],
    attack_group: Callable[[Tensor, float], Tensor],
) -> Float[Tensor, "b *image"]:
    """Attack images of many strengths with a library that takes one strength a call; strength 0 needs none.

    Args:
        images: the originals.
        strengths: of each.
        attack_group: takes the positions of the images of one strength, and that strength.

    Example:
        >>> images, strengths = torch.zeros(3, 1), torch.tensor([0.5, 0.0, 0.25])
        >>> by_strength(images, strengths, lambda places, strength: images[places] + strength).flatten().tolist()
        [0.5, 0.0, 0.25]
    """
    attacked = images.clone()
    for strength in strengths.unique().tolist():
        if strength > 0:
            places = (strengths == strength).nonzero().flatten()
            attacked[places] = attack_group(places, strength)
    return attacked


def require_batch_size(batch_size: int) -> None:
    """Refuse a number of images a forward pass that is none.

    Raises:
        InvalidArgument: below 1.
    """
    if batch_size < 1:
        raise InvalidArgument(f"batch_size: expected at least 1 image, got {batch_size}")
