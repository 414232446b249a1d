"""Levels: the few values that a weight may have, the nearest of them, and the scale that fits a layer's weights best.

Wang, Wen, Song, Li: Classification Accuracy Improvement for Neuromorphic Computing Systems with One-level Precision
Synapses, ASP-DAC 2017: every layer has a level g of its own, its weights are -g, 0 or +g.

    Q_g(w) = the nearest of 0, +-m_1 g .. +-m_n g        g = argmin ||W - Q_g(W)||^2        (m = 1 for one level)

Departs from the paper: how it finds g could not be read; here it is the exact minimum of the squared error.
"""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from spokeshave.errors import InvalidArgument

Multiples = tuple[float, ...]
"""Nonzero magnitudes in units of g, ascending."""


def multiples_of(levels: int | Sequence[float]) -> Multiples:
    """Magnitudes in units of g.

    Args:
        levels: how many nonzero magnitudes, evenly spaced from g to levels * g; or these magnitudes, in any unit.

    Raises:
        InvalidArgument: for less than one, or magnitudes that are not positive, finite and ascending.

    Example:
        >>> multiples_of(2), multiples_of((1, 2, 4))
        ((1.0, 2.0), (1.0, 2.0, 4.0))
    """
    if isinstance(levels, int):
        multiples = tuple(float(k + 1) for k in range(levels))
    else:
        multiples = tuple(map(float, levels)) if isinstance(levels, Iterable) else ()
    ascending = all(a < b for a, b in zip((0.0, *multiples), multiples, strict=False))
    if not multiples or not ascending or multiples[-1] == float("inf"):
        raise InvalidArgument(
            f"levels must be a number of at least 1, or positive finite magnitudes that ascend, got {levels}"
        )
    return multiples


@torch.no_grad()
def nearest_level(weight: Float[Tensor, "..."], scale: float, multiples: Multiples = (1.0,)) -> Float[Tensor, "..."]:
    """Q(w): every weight at its nearest level; halfway between two, the one nearer to zero.

    What is not finite stays as it is, so that a training that diverged is seen to.

    Args:
        weight: any shape.
        scale: g, at least 0; with 0 everything becomes 0.
        multiples: from `multiples_of`.

    Example:
        >>> nearest_level(torch.tensor([-0.9, 0.2, 0.25, 0.26]), 0.5).tolist()
        [-0.5, 0.0, 0.0, 0.5]
    """
    size = weight.abs()
    if len(multiples) == 1:
        magnitude = scale * multiples[0]
        levelled = torch.where(size > magnitude / 2, weight.sign() * magnitude, 0.0)
        return torch.where(weight.isfinite(), levelled, weight)
    magnitudes = torch.tensor([0.0, *multiples], dtype=torch.float64).mul(scale).to(weight)
    places = torch.bucketize(size, (magnitudes[1:] + magnitudes[:-1]) / 2)
    levelled = magnitudes[places].copysign(weight) + 0.0  # no negative zeros
    return torch.where(weight.isfinite(), levelled, weight)


@torch.no_grad()
def best_scale(weight: Float[Tensor, "..."], multiples: Multiples = (1.0,)) -> float:
    """The g that makes ||W - Q_g(W)||^2 smallest, exactly.

    As g falls from infinity, the weights step up one level at a time, each when g passes |w| over the middle of the two
    levels. Between two such steps the best g is a quotient of sums; so one sort of the steps, and running sums, try
    every g that can be the best. For one level this is the largest (sum of the k largest |w|)^2 / k over k.

    Args:
        weight: any shape.
        multiples: from `multiples_of`.

    Returns:
        g; 0 where all weights are 0, or there are none.

    Raises:
        InvalidArgument: for weights that are not finite.

    Example:
        >>> best_scale(torch.tensor([1.0, -1.0, 0.8, 0.1]))  # (1 + 1 + 0.8) / 3
        0.9333333373069763
    """
    size = weight.detach().abs().flatten()
    if not bool(torch.isfinite(size).all()):
        raise InvalidArgument(f"weights must be finite to find their levels, got {size[~size.isfinite()][:3].tolist()}")
    size = size[size > 0]
    if size.numel() == 0:
        return 0.0
    lower = torch.tensor((0.0, *multiples[:-1]), dtype=torch.float64, device=size.device)
    upper = torch.tensor(multiples, dtype=torch.float64, device=size.device)
    if len(multiples) == 1:
        size = size.sort(descending=True).values.double()
        gains, costs = size * upper, (upper**2).expand(len(size))
    else:
        wide = size.double().view(-1, 1)
        order = (wide / (upper + lower)).flatten().argsort(descending=True)
        gains = (wide * (upper - lower)).flatten()[order]
        costs = (upper**2 - lower**2).expand(len(size), -1).flatten()[order]
    gain, cost = gains.cumsum(0), costs.cumsum(0)
    best = (gain**2 / cost).argmax()
    return float(gain[best] / cost[best])


@torch.no_grad()
def relative_level_error(weight: Float[Tensor, "..."], quantized: Float[Tensor, "..."]) -> float:
    """||W - Q||_F / ||W||_F, 0 for a weight of zeros."""
    length = float(torch.linalg.vector_norm(weight.double()))
    return float(torch.linalg.vector_norm(weight.double() - quantized.double())) / length if length else 0.0
