"""Sliced Wasserstein distance: how far two sets of features are apart, along directions drawn at random.

Bonneel, Rabin, Peyre, Pfister: Sliced and Radon Wasserstein Barycenters of Measures, JMIV 2015; along one direction
the distance is that of the sorted projections. For domains: Lee et al., CVPR 2019.
Departs from the paper: nothing known.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from spokeshave.errors import InvalidArgument


def sliced_wasserstein(
    source: Float[Tensor, "n features"],
    target: Float[Tensor, "m features"],
    directions: int = 128,
    generator: torch.Generator | None = None,
) -> Float[Tensor, ""]:
    """The mean over directions of the squared 2-Wasserstein distance of the projections.

    Args:
        source: features of one domain, at least one row.
        target: features of the other, likewise; of another number, both are read at the quantiles of the larger.
        directions: drawn evenly from the sphere, at least 1.
        generator: draws them, on the CPU; None for torch's own.

    Returns:
        At least 0.

    Raises:
        InvalidArgument: for other shapes, too few rows or directions.

    Example:
        >>> a = torch.tensor([[0.0], [2.0]])
        >>> float(sliced_wasserstein(a, a + 3))  # one dimension: the shift, squared
        9.0
    """
    if source.dim() != 2 or target.dim() != 2 or source.shape[1] != target.shape[1]:
        raise InvalidArgument(
            f"features: expected (n, features) and (m, features), got {tuple(source.shape)} and {tuple(target.shape)}"
        )
    if min(given := (len(source), len(target), directions)) < 1:
        raise InvalidArgument(f"expected at least one row of each domain and one direction, got {given}")
    drawn = torch.randn(source.shape[1], directions, generator=generator)
    axes = (drawn / drawn.norm(dim=0, keepdim=True)).to(source)
    first, second = (torch.sort(features @ axes, dim=0).values for features in (source, target))
    if len(first) == len(second):
        return (first - second).square().mean()
    # Quantile functions are steps: between two neighbouring jumps of either both are constant.
    jumps = torch.cat([torch.arange(1, count + 1, dtype=torch.float64) / count for count in (len(first), len(second))])
    ends = torch.unique(jumps)
    lengths = torch.diff(ends, prepend=ends.new_zeros(1))
    middles = ends - lengths / 2
    places = [(middles * count).long().clamp(max=count - 1) for count in (len(first), len(second))]
    apart = (first[places[0].to(source.device)] - second[places[1].to(source.device)]).square().mean(1)
    return (apart * lengths.to(apart)).sum()
