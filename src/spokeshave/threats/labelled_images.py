"""Labelled images as detectors of poison take them: checked once, in any range, on any device.

A network is fed normalised images as often as grey levels of 0..1, so nothing is asked of the range but that it is
finite. Departs from the papers: plumbing, in none of them.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from spokeshave.errors import InvalidArgument
from spokeshave.threats.attackable import require_images, require_labels


def require_labelled(images: Tensor, labels: Tensor, where: str) -> None:
    """See that images and labels belong together.

    Args:
        images: floating-point, (n, ...), finite.
        labels: int64, (n,), 0 or more.
        where: what they are, for the message.

    Raises:
        InvalidArgument: for none, another type or shape, other numbers of them, or what is not finite.

    Example:
        >>> require_labelled(torch.zeros(2, 1, 3, 3), torch.tensor([0, 1]), "clean images")
    """
    require_images(images, where, any_range=True)
    require_labels(labels, images, where)


def require_classes(labels: Int64[Tensor, " n"], scores: Float[Tensor, "n classes"], where: str) -> None:
    """See that the network has a score for every label.

    Raises:
        InvalidArgument: naming the greatest label.
    """
    if int(labels.max()) >= scores.shape[1]:
        raise InvalidArgument(
            f"{where}: labels must be below the network's {scores.shape[1]} classes, got {int(labels.max())}"
        )


def device_of(model: nn.Module) -> torch.device:
    """Where a network is; the CPU for one without weights."""
    return next((tensor.device for tensor in [*model.parameters(), *model.buffers()]), torch.device("cpu"))
