"""Robust accuracy: the share of images that a model has right, and that an attack of a given strength does not change.

Carlini et al.: On Evaluating Adversarial Robustness, arXiv:1902.06705, 2019. Images that a model has wrong as they are
count as wrong and are not attacked; an image counts as right where it stands under every restart. What an attack
returns is judged by a forward pass of its own. Departs from the paper: nothing known.
"""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from spokeshave.data.splits import Split
from spokeshave.errors import InvalidArgument
from spokeshave.threats.attackable import require_images, require_labels, require_logits
from spokeshave.threats.gradient_attack import untouched
from spokeshave.threats.labelled_images import device_of
from spokeshave.threats.outside_attacks import MakesExamples, require_batch_size

Labelled = Split | tuple[Tensor, Tensor]
"""Images with their classes: a split, whose bytes are divided by 255, or images in 0..1 and labels."""


def survivors(
    model: nn.Module,
    data: Labelled,
    attack: MakesExamples,
    strengths: Sequence[float],
    seed: int = 0,
    batch_size: int = 500,
    restarts: int = 1,
) -> Bool[Tensor, "strengths images"]:
    """Which images a model has right in spite of an attack, strength by strength.

    Args:
        model: gives logits; attacked where it is, in evaluation mode.
        data: images and their true classes.
        attack: ours or an adapter to another library's.
        strengths: each 0 or more; at 0 nothing is attacked.
        seed: of random starts; another for each batch, strength and restart.
        batch_size: images attacked together.
        restarts: how often each image is attacked, at least 1; more than once is for attacks that draw.

    Returns:
        On the CPU. The worst of several attacks is the logical and of their results.

    Raises:
        InvalidArgument: for images, labels, scores, strengths or numbers that are none.
        UnsupportedLayer: where no gradient passes through the model.
    """
    _require_strengths(strengths)
    if restarts < 1:
        raise InvalidArgument(f"restarts: expected at least 1, got {restarts}")
    columns = []
    for number, (images, labels) in enumerate(batches_of(data, batch_size, device_of(model))):
        stands = is_right(model, images, labels).repeat(len(strengths), 1)
        for row, strength in enumerate(strengths):
            for restart in range(restarts if strength else 0):
                left = stands[row].nonzero().flatten()
                if len(left):
                    generator = _generator(seed, number, row, restart)
                    attacked = attack(model, images[left], labels[left], strength, generator)
                    stands[row, left] = is_right(model, attacked, labels[left])
        columns.append(stands.cpu())
    return torch.cat(columns, 1)


def robust_accuracy(
    model: nn.Module,
    data: Labelled,
    attack: MakesExamples,
    strengths: Sequence[float],
    seed: int = 0,
    batch_size: int = 500,
    restarts: int = 1,
) -> list[float]:
    """Accuracy under an attack, at each strength; see `survivors`.

    Returns:
        0..1, one for each strength.

    Raises:
        InvalidArgument: as `survivors`.
        UnsupportedLayer: as `survivors`.

    Example:
        >>> from spokeshave.threats.gradient_attack import fgsm
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
        >>> _ = model[1].weight.data.copy_(torch.tensor([[1.0], [-1.0]]))
        >>> _ = model[1].bias.data.copy_(torch.tensor([-0.5, 0.5]))  # class 0 is brighter than 1/2
        >>> images = torch.tensor([0.6, 0.7, 0.8, 0.9]).reshape(4, 1, 1, 1)
        >>> robust_accuracy(model, (images, torch.zeros(4, dtype=torch.int64)), fgsm(), [0.0, 0.15, 0.25, 0.5])
        [1.0, 0.75, 0.5, 0.0]
    """
    standing = survivors(model, data, attack, strengths, seed, batch_size, restarts)
    return standing.double().mean(1).tolist()


def area_under_curve(strengths: Sequence[float], accuracies: Sequence[float]) -> float:
    """Mean accuracy over a range of strengths, by trapezoids: 1 where nothing fools the model.

    Args:
        strengths: at least two, rising.
        accuracies: one for each, 0..1.

    Raises:
        InvalidArgument: where they do not rise or are not equally many.

    Example:
        >>> area_under_curve([0.0, 0.1, 0.4], [1.0, 0.5, 0.0])  # (0.075 + 0.075) / 0.4
        0.375
    """
    _require_strengths(strengths)
    rises = all(low < high for low, high in pairwise(strengths))
    if len(strengths) < 2 or len(accuracies) != len(strengths) or not rises:
        raise InvalidArgument(
            f"expected two or more rising strengths and as many accuracies, got {list(strengths)} and "
            f"{len(accuracies)} accuracies"
        )
    # Adding 0.0 turns the -0.0 of rounding into 0.0.
    total = torch.trapezoid(torch.tensor(accuracies).double(), torch.tensor(strengths, dtype=torch.float64))
    return round(float(total) / (strengths[-1] - strengths[0]), 12) + 0.0


def transfer_accuracies(
    members: Sequence[nn.Module],
    data: Labelled,
    attack: MakesExamples,
    strength: float,
    seed: int = 0,
    batch_size: int = 500,
) -> Float[Tensor, "sources targets"]:
    """Accuracy of every model on images that were made to fool each of them: rows are fooled, columns are asked.

    All images are attacked, also those that the source has wrong.

    Args:
        members: K models on one device, each giving logits.
        data: images and their true classes.
        attack: ours or an adapter to another library's.
        strength: 0 or more.
        seed: of random starts; the same for every source.
        batch_size: images attacked together.

    Returns:
        K x K, on the CPU; on the diagonal the accuracy of each against an attack on itself.

    Raises:
        InvalidArgument: for no model, images, labels, scores or a strength that are none.
        UnsupportedLayer: where no gradient passes through a model.
    """
    _require_strengths([strength])
    if not members:
        raise InvalidArgument("members: expected at least one model, got none")
    right, images_seen = torch.zeros(len(members), len(members), dtype=torch.float64), 0
    for number, (images, labels) in enumerate(batches_of(data, batch_size, device_of(members[0]))):
        images_seen += len(labels)
        for row, source in enumerate(members):
            attacked = attack(source, images, labels, strength, _generator(seed, number, 0, 0))
            right[row] += torch.tensor([int(is_right(target, attacked, labels).sum()) for target in members])
    return (right / images_seen).float()


def is_right(model: nn.Module, images: Float[Tensor, "b *image"], labels: Int64[Tensor, " b"]) -> Bool[Tensor, " b"]:
    """Whether the model gives each image its true class, in evaluation mode.

    Raises:
        InvalidArgument: where its scores are no logits.
    """
    with torch.no_grad(), untouched(model):
        scores = model(images)
    require_logits(scores, type(model).__name__)
    return scores.argmax(1) == labels


def batches_of(data: Labelled, batch_size: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Images in 0..1 and their classes, in order, on a device; checked as a whole before the first batch.

    Args:
        data: a split, or images in 0..1 and labels.
        batch_size: images a batch, at least 1.
        device: where the batches are wanted.

    Raises:
        InvalidArgument: for images outside 0..1, labels that are none, or a batch of none.
    """
    require_batch_size(batch_size)
    images, labels = (data.images, data.labels) if isinstance(data, Split) else data
    if not isinstance(data, Split):
        require_images(images, "images")
    elif not len(data):
        raise InvalidArgument("the split: expected at least one image, got none")
    require_labels(labels, images, "labels")
    for some, true in zip(images.split(batch_size), labels.split(batch_size), strict=True):
        scaled = some.to(device).float() / 255 if isinstance(data, Split) else some.to(device)
        yield scaled, true.to(device)


def _require_strengths(strengths: Sequence[float]) -> None:
    if not strengths or not all(0 <= strength < float("inf") for strength in strengths):
        raise InvalidArgument(f"strengths: expected finite numbers of at least 0, got {list(strengths)}")


def _generator(*numbers: int) -> torch.Generator:
    """A hash of the numbers seeds it, so that neighbouring batches and restarts draw unrelated numbers."""
    hashed = hashlib.blake2b("/".join(map(str, numbers)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(hashed, "little") >> 1)
