"""The smallest perturbation that fools a model, image by image: one run gives the whole curve of accuracy by strength.

Pintor, Roli, Brendel, Biggio: Fast minimum-norm adversarial attacks through adaptive norm constraints, NeurIPS 2021
(FMN, for the largest change); Rony, Hafemann, Oliveira, Ben Ayed, Sabourin, Granger: Decoupling direction and norm for
efficient gradient-based L2 adversarial attacks and defenses, CVPR 2019 (DDN, for the Euclidean norm). Both by Foolbox.
Departs from the papers: Foolbox 3.3.4 never projects in its Euclidean FMN (its factor is a norm over itself), hence DDN
there. An image that a run did not fool counts as infinitely far, and one that the model has wrong as at distance 0.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from spokeshave.errors import InvalidArgument
from spokeshave.threats.foolbox_attacks import load_foolbox
from spokeshave.threats.gradient_attack import require_attackable
from spokeshave.threats.outside_attacks import contained, frozen, require_batch_size
from spokeshave.threats.perturbation import Norm, sizes


def minimum_perturbations(
    model: nn.Module,
    images: Float[Tensor, "b *image"],
    labels: Int64[Tensor, " b"],
    norm: Norm = Norm.LINF,
    steps: int = 100,
    batch_size: int = 500,
    seed: int = 0,
) -> Float[Tensor, " b"]:
    """Size of the smallest perturbation found that makes the model wrong: an upper bound on the true one.

    Args:
        model: gives logits; it runs in evaluation mode and ends as it was.
        images: 0..1, on the model's device.
        labels: the true classes.
        norm: in which sizes are measured.
        steps: gradients taken an image, at least 1.
        batch_size: images a forward pass.
        seed: of the direction taken where a gradient is nothing.

    Returns:
        0 for an image that the model has wrong as it is, infinity where nothing was found.

    Raises:
        MissingExtra: where Foolbox is not installed.
        InvalidArgument: for images, labels or scores that are none, or fewer than one step.
        UnsupportedLayer: where no gradient passes through the model.
    """
    foolbox = load_foolbox()
    require_attackable(model, images, labels)
    require_batch_size(batch_size)
    if steps < 1:
        raise InvalidArgument(f"steps: expected at least 1, got {steps}")
    kind = {Norm.LINF: foolbox.attacks.LInfFMNAttack, Norm.L2: foolbox.attacks.DDNAttack}[norm]
    attack, found = kind(steps=steps), []
    with frozen(model):
        torch.manual_seed(seed)
        seen = foolbox.PyTorchModel(model, bounds=(0, 1), device=images.device)
        for some, true in zip(images.split(batch_size), labels.split(batch_size), strict=True):
            attacked = attack.run(seen, some, foolbox.Misclassification(true))
            anywhere = torch.full((len(some),), float("inf"), dtype=some.dtype, device=some.device)
            attacked = contained(attacked, some, anywhere, norm)
            with torch.no_grad():
                clean_wrong, wrong = (model(shown).argmax(1) != true for shown in (some, attacked))
            size = torch.where(wrong, sizes(attacked - some, norm), float("inf"))
            found.append(torch.where(clean_wrong, 0.0, size))
    return torch.cat(found)


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
