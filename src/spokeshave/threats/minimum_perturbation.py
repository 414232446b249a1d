"""The smallest perturbation that fools a model, image by image: one run gives the whole curve of accuracy by strength.

Pintor, Roli, Brendel, Biggio: Fast minimum-norm adversarial attacks through adaptive norm constraints, NeurIPS 2021
(FMN, for the largest change); Rony, Hafemann, Oliveira, Ben Ayed, Sabourin, Granger: Decoupling direction and norm for
efficient gradient-based L2 adversarial attacks and defenses, CVPR 2019 (DDN, for the Euclidean norm). Both by Foolbox.
Departs from the papers: Foolbox 3.3.4 never projects in its Euclidean FMN (its factor is a norm over itself), hence DDN
there. Its steps of FMN have the Euclidean length 1, which does not cross a ball of the largest change: on a network
trained for 0.2 it told 49 % at 0.3, where PGD-20 leaves 4 %; steps grow with the root of the number of values here.
Each size is then halved towards 0 by PGD, with a strength an image. An image that nothing fooled counts as infinitely
far, and one that the model has wrong as at distance 0.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from spokeshave.errors import InvalidArgument
from spokeshave.threats.foolbox_attacks import load_foolbox
from spokeshave.threats.gradient_attack import pgd, require_attackable
from spokeshave.threats.outside_attacks import contained, frozen, require_batch_size
from spokeshave.threats.perturbation import Norm, sizes

_STEP = 0.35
"""Longest step of FMN, in the Euclidean length of a change of 1 in every value."""
_PGD_STEPS = 20


def minimum_perturbations(
    model: nn.Module,
    images: Float[Tensor, "b *image"],
    labels: Int64[Tensor, " b"],
    norm: Norm = Norm.LINF,
    steps: int = 100,
    batch_size: int = 500,
    seed: int = 0,
    halvings: int = 8,
) -> Float[Tensor, " b"]:
    """Size of the smallest perturbation found that makes the model wrong: an upper bound on the true one.

    Args:
        model: gives logits; it runs in evaluation mode and ends as it was.
        images: 0..1, on the model's device.
        labels: the true classes.
        norm: in which sizes are measured.
        steps: gradients that FMN or DDN takes an image, at least 1.
        batch_size: images a forward pass.
        seed: of the starts of PGD, and of the direction taken where a gradient is nothing.
        halvings: how often the range in which the size must lie is halved by PGD-20; 0 leaves PGD out.

    Returns:
        0 for an image that the model has wrong as it is, infinity where nothing was found.

    Raises:
        MissingExtra: where Foolbox is not installed.
        InvalidArgument: for images, labels or scores that are none, or a number of steps or halvings that is none.
        UnsupportedLayer: where no gradient passes through the model.
    """
    foolbox = load_foolbox()
    require_attackable(model, images, labels)
    require_batch_size(batch_size)
    if steps < 1 or halvings < 0:
        raise InvalidArgument(f"steps, halvings: expected at least 1 and at least 0, got {steps} and {halvings}")
    values, found = images[0].numel(), []
    if norm is Norm.L2:
        attack = foolbox.attacks.DDNAttack(steps=steps)
    else:
        attack = foolbox.attacks.LInfFMNAttack(steps=steps, max_stepsize=_STEP * values**0.5)
    generator = torch.Generator().manual_seed(seed)
    with frozen(model):
        torch.manual_seed(seed)
        seen = foolbox.PyTorchModel(model, bounds=(0, 1), device=images.device)
        for some, true in zip(images.split(batch_size), labels.split(batch_size), strict=True):
            attacked = attack.run(seen, some, foolbox.Misclassification(true))
            anywhere = torch.full((len(some),), float("inf"), dtype=some.dtype, device=some.device)
            size = _size_if_wrong(model, contained(attacked, some, anywhere, norm), some, true, norm)
            size = _halved(model, some, true, norm, size, halvings, generator)
            found.append(torch.where(torch.isfinite(_size_if_wrong(model, some, some, true, norm)), 0.0, size))
    return torch.cat(found)


def _halved(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    norm: Norm,
    smallest: Tensor,
    halvings: int,
    generator: torch.Generator,
) -> Tensor:
    """Look for smaller sizes by PGD: half of the range that is left, again and again."""
    everything = 1.0 if norm is Norm.LINF else images[0].numel() ** 0.5
    low, high = torch.zeros_like(smallest), smallest.clamp_max(everything)
    for _ in range(halvings):
        middle = (low + high) / 2
        attacked = pgd(_PGD_STEPS, norm=norm).perturb(model, images, labels, middle, generator)
        size = _size_if_wrong(model, attacked, images, labels, norm)
        smallest, fooled = torch.minimum(smallest, size), torch.isfinite(size)
        low, high = torch.where(fooled, low, middle), torch.where(fooled, middle, high)
    return smallest


def _size_if_wrong(model: nn.Module, attacked: Tensor, images: Tensor, labels: Tensor, norm: Norm) -> Tensor:
    """Size of each perturbation that fools the model, infinity for the others."""
    with torch.no_grad():
        wrong = model(attacked).argmax(1) != labels
    return torch.where(wrong, sizes(attacked - images, norm), float("inf"))


def accuracies_at(minimum: Float[Tensor, " b"], strengths: Sequence[float]) -> list[float]:
    """Accuracy at each strength: the share of images that only a larger perturbation fools.

    Args:
        minimum: smallest perturbation of each image.
        strengths: 0 or more; at 0 this is the accuracy without an attack.

    Example:
        >>> accuracies_at(torch.tensor([0.0, 0.1, 0.2, torch.inf]), [0.0, 0.15, 0.2])
        [0.75, 0.5, 0.25]
    """
    return [float((minimum > strength).double().mean()) for strength in strengths]
