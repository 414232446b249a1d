"""Magnitude pruning: of each layer's weights the largest are kept, the others become 0.

Han, Pool, Tran, Dally: Learning both Weights and Connections for Efficient Neural Networks, NIPS 2015, section 3.
Departs from the paper: every layer keeps the same share, not one that is found by trying; nothing is trained again, so
this is for measuring speed, not for keeping accuracy.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from spokeshave.errors import InvalidArgument
from spokeshave.structures.groups import CONVOLUTIONS, plain_weight


def keep_largest(weight: Float[np.ndarray, "..."], density: float) -> Float[np.ndarray, "..."]:
    """The weight with only its largest magnitudes; of equal ones the earlier are kept.

    Args:
        weight: any shape.
        density: share that is kept, 0 to 1, rounded to whole weights.

    Returns:
        a new array.

    Raises:
        InvalidArgument: a density outside 0 to 1.

    Example:
        >>> keep_largest(np.array([0.1, -3.0, 2.0, 0.5]), 0.5).tolist()
        [0.0, -3.0, 2.0, 0.0]
    """
    if not 0 <= density <= 1:
        raise InvalidArgument(f"density: expected a share of weights to keep of 0 to 1, got {density}")
    order = np.argsort(-np.abs(weight).ravel(), kind="stable")
    kept = np.zeros(weight.size, bool)
    kept[order[: round(density * weight.size)]] = True
    return np.where(kept.reshape(weight.shape), weight, 0).astype(weight.dtype)


def prune_by_magnitude(model: nn.Module, density: float) -> None:
    """Prune every convolution and linear layer of a model, in place.

    Args:
        model: whose layers hold their weights themselves.
        density: share of each layer's weights that is kept, 0 to 1.

    Raises:
        InvalidArgument: a density outside 0 to 1, or a model without such a layer.
        UnsupportedLayer: a layer computes its weight from other parameters.

    Example:
        >>> layer = nn.Linear(4, 2)
        >>> prune_by_magnitude(layer, 0.25)
        >>> int(layer.weight.count_nonzero())
        2
    """
    layers = {name: part for name, part in model.named_modules() if isinstance(part, (*CONVOLUTIONS, nn.Linear))}
    if not layers:
        raise InvalidArgument(
            f"{type(model).__name__}: expected convolutions or linear layers to prune, found none; a model whose "
            "layers are functions has to be pruned where it is made"
        )
    for name, module in layers.items():
        weight = plain_weight(name, module)
        with torch.no_grad():
            weight.copy_(torch.from_numpy(keep_largest(weight.detach().cpu().numpy(), density)))
