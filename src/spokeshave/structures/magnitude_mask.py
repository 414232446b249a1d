"""Magnitude mask: which single weights stay when a share of them must go, the smallest in magnitude first.

Han et al., Learning both Weights and Connections for Efficient Neural Networks, NIPS 2015, with the count fixed instead
of the threshold (Zhu and Gupta, To prune, or not to prune, 2017).
Departs from the paper: several weights may be ranked together; ties are broken by position, so the count is exact.
"""

import math
from collections.abc import Mapping
from enum import Enum

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from spokeshave.errors import InvalidArgument


class Scope(Enum):
    """Among which weights the smallest are looked for."""

    GLOBAL = "global"
    """Among all layers together: layers that hold many small weights lose more of them."""
    LAYER = "layer"
    """In each layer by itself: all lose the same share."""


def magnitude_mask(weight: Float[Tensor, "..."], sparsity: float) -> Bool[Tensor, "..."]:
    """True where a weight stays: everywhere but at the round(sparsity * n) smallest magnitudes.

    Args:
        weight: of any shape.
        sparsity: share that goes, 0..1.

    Raises:
        InvalidArgument: where the share is outside 0..1.

    Example:
        >>> magnitude_mask(torch.tensor([0.1, -3.0, 0.2, -0.05]), 0.5).tolist()
        [False, True, True, False]
    """
    return magnitude_masks({"weight": weight}, sparsity)["weight"]


def magnitude_masks(weights: Mapping[str, Tensor], sparsity: float) -> dict[str, Tensor]:
    """Masks of several weights that are ranked together.

    Args:
        weights: by name.
        sparsity: share of all of them that goes, 0..1.

    Raises:
        InvalidArgument: where the share is outside 0..1.

    Example:
        >>> masks = magnitude_masks({"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([3.0, 4.0])}, 0.5)
        >>> masks["a"].tolist(), masks["b"].tolist()
        ([False, False], [True, True])
    """
    if not 0 <= sparsity <= 1 or math.isnan(sparsity):
        raise InvalidArgument(f"sparsity: expected a share of 0..1, got {sparsity}")
    if not weights:
        return {}
    magnitudes = torch.cat([weight.detach().abs().flatten().cpu() for weight in weights.values()])
    gone = round(sparsity * len(magnitudes))
    stays = torch.ones(len(magnitudes), dtype=torch.bool)
    stays[magnitudes.argsort(stable=True)[:gone]] = False
    pieces = stays.split([weight.numel() for weight in weights.values()])
    return {
        name: piece.reshape(weight.shape).to(weight.device)
        for (name, weight), piece in zip(weights.items(), pieces, strict=True)
    }


def scoped_masks(weights: Mapping[str, Tensor], shares: Mapping[str, float], scope: Scope) -> dict[str, Tensor]:
    """Masks of weights that each have a share of their own.

    Args:
        weights: by name.
        shares: of each that goes, 0..1.
        scope: GLOBAL ranks the weights with the same share together, LAYER each by itself.

    Raises:
        InvalidArgument: where a share is outside 0..1.
    """
    if scope is Scope.LAYER:
        return {name: magnitude_mask(weight, shares[name]) for name, weight in weights.items()}
    masks: dict[str, Tensor] = {}
    for share in dict.fromkeys(shares[name] for name in weights):
        masks |= magnitude_masks({name: weight for name, weight in weights.items() if shares[name] == share}, share)
    return masks
