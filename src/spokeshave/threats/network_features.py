"""Features of images: what the last linear layer of a network is fed, or the images' own pixels.

Three detectors of poison (nearest neighbours, spectral signatures, activation clustering) look at them.
Departs from the papers: each takes the last hidden layer of its own networks; here it is found, or named.
"""

from enum import Enum
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from spokeshave.errors import UnsupportedLayer
from spokeshave.threats.labelled_images import device_of
from spokeshave.timing import evaluating

_CHUNK = 2000


class Space(Enum):
    """Where images are compared."""

    FEATURES = "features"
    """In what the last linear layer is fed."""
    PIXELS = "pixels"
    """In the images themselves; no network is asked."""


def features_of(
    model: nn.Module, images: Float[Tensor, "n ..."], space: Space = Space.FEATURES
) -> Float[Tensor, "n features"]:
    """What the last linear layer that runs is fed, flattened, in eval mode; on the CPU.

    Args:
        model: left as it was.
        images: as the model is fed.
        space: of features, or of pixels.

    Raises:
        UnsupportedLayer: where no linear layer runs.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> features_of(model, torch.zeros(5, 1, 1, 2)).shape
        torch.Size([5, 3])
    """
    if space is Space.PIXELS:
        return images.detach().flatten(1).float().cpu()
    fed: list[Tensor] = []

    def note(_module: nn.Module, arguments: tuple[Any, ...]) -> None:
        fed[:] = [arguments[0]]

    handles = [layer.register_forward_pre_hook(note) for layer in model.modules() if isinstance(layer, nn.Linear)]
    device, found = device_of(model), []
    try:
        with torch.no_grad(), evaluating(model):
            for some in images.split(_CHUNK):
                fed.clear()
                model(some.to(device))
                if not fed:
                    raise UnsupportedLayer(
                        f"{type(model).__name__} runs no linear layer, whose input would be its features; compare "
                        "images by Space.PIXELS"
                    )
                found.append(fed[0].flatten(1).float().cpu())
    finally:
        for handle in handles:
            handle.remove()
    return torch.cat(found)
