"""Perturbations of images: norms, balls around an image, starting points, directions of ascent; a strength an image.

Every function takes one strength an image, so that one pass attacks a batch at any mixture of strengths.
"""

from collections.abc import Sequence
from enum import Enum

import torch
from jaxtyping import Float
from torch import Tensor

from spokeshave.errors import InvalidArgument


class Norm(Enum):
    """How the size of a perturbation is measured: the largest change of a value, or the Euclidean length of all."""

    LINF = "linf"
    L2 = "l2"


def sizes(perturbations: Float[Tensor, "b *image"], norm: Norm) -> Float[Tensor, " b"]:
    """Size of each perturbation.

    Example:
        >>> sizes(torch.tensor([[3.0, -4.0]]), Norm.LINF).item(), sizes(torch.tensor([[3.0, -4.0]]), Norm.L2).item()
        (4.0, 5.0)
    """
    flat = perturbations.flatten(1)
    if not flat.shape[1]:
        return flat.new_zeros(len(flat))
    return flat.abs().amax(1) if norm is Norm.LINF else flat.norm(dim=1)


def project(
    perturbations: Float[Tensor, "b *image"], strengths: Float[Tensor, " b"], norm: Norm
) -> Float[Tensor, "b *image"]:
    """The nearest perturbations that are no larger than their strengths.

    Args:
        perturbations: one an image, in units of the images.
        strengths: radius of each ball, 0 or more.
        norm: of the ball.

    Example:
        >>> project(torch.tensor([[3.0, -4.0]]), torch.tensor([1.0]), Norm.L2).tolist()
        [[0.6000000238418579, -0.800000011920929]]
    """
    radius = _beside(strengths, perturbations)
    if norm is Norm.LINF:
        return torch.minimum(torch.maximum(perturbations, -radius), radius)
    lengths = _beside(sizes(perturbations, norm), perturbations)
    # Not below the smallest normal number: a perturbation of nothing stays nothing.
    return perturbations * (radius / lengths.clamp_min(torch.finfo(lengths.dtype).tiny)).clamp_max(1.0)


def ascent(gradients: Float[Tensor, "b *image"], norm: Norm) -> Float[Tensor, "b *image"]:
    """The perturbation of size 1 along which the loss rises fastest; nothing where the gradient is nothing.

    Example:
        >>> ascent(torch.tensor([[3.0, -4.0]]), Norm.LINF).tolist()
        [[1.0, -1.0]]
    """
    if norm is Norm.LINF:
        return gradients.sign()
    # The largest value first: squares of small gradients would vanish in float32.
    largest = _beside(sizes(gradients, Norm.LINF), gradients)
    scaled = gradients / largest.clamp_min(torch.finfo(gradients.dtype).tiny)
    lengths = _beside(sizes(scaled, norm), gradients)
    return scaled / lengths.clamp_min(torch.finfo(gradients.dtype).tiny)


def random_start(
    images: Float[Tensor, "b *image"],
    strengths: Float[Tensor, " b"],
    norm: Norm,
    generator: torch.Generator | Sequence[torch.Generator] | None,
) -> Float[Tensor, "b *image"]:
    """Perturbations drawn evenly from the ball of each image.

    Args:
        images: give shape, type and device.
        strengths: radius of each ball.
        norm: of the ball.
        generator: on the CPU or the images' device; None for torch's own; several for as many equal parts of the
            images, each of which gets what it would get alone.
    """
    if isinstance(generator, Sequence):
        parts = zip(images.chunk(len(generator)), strengths.chunk(len(generator)), generator, strict=True)
        return torch.cat([random_start(own, radii, norm, drawing) for own, radii, drawing in parts])
    place = images.device if generator is None else generator.device
    if norm is Norm.LINF:
        drawn = torch.rand(images.shape, generator=generator, device=place, dtype=images.dtype).mul_(2).sub_(1)
        return drawn.to(images.device) * _beside(strengths, images)
    drawn = torch.randn(images.shape, generator=generator, device=place, dtype=images.dtype)
    # Volume grows with the power of the dimension: its root makes radii even in volume.
    radii = torch.rand(len(images), generator=generator, device=place, dtype=images.dtype)
    radii = radii.pow(1 / max(1, images[:1].numel())).to(images.device) * strengths
    return ascent(drawn.to(images.device), norm) * _beside(radii, images)


def strengths_of(strengths: float | Float[Tensor, " b"], images: Float[Tensor, "b *image"]) -> Float[Tensor, " b"]:
    """One strength an image, on the images' device.

    Args:
        strengths: one for all, or one an image; 0 or more, in units of the images.
        images: that they belong to.

    Raises:
        InvalidArgument: where a strength is negative or not finite, or their number is not that of the images.
    """
    found = torch.as_tensor(strengths, dtype=images.dtype, device=images.device)
    if found.dim() == 0:
        found = found.expand(len(images))
    if found.shape != (len(images),):
        raise InvalidArgument(
            f"strengths: expected one, or one for each of {len(images)} images, got shape {tuple(found.shape)}"
        )
    if len(found) and not bool((torch.isfinite(found) & (found >= 0)).all()):
        raise InvalidArgument(
            f"strengths: expected finite numbers of at least 0, got {float(found.min())} to {float(found.max())}"
        )
    return found


def _beside(numbers: Tensor, images: Tensor) -> Tensor:
    return numbers.reshape(-1, *[1] * (images.dim() - 1))
