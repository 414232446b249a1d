"""Layer spectrum: the matrices of a layer that are split, one a convolution group, and the energy of their directions.

Filters, Wen et al., Coordinating Filters, ICCV 2017, section 3.1: one filter a row, W in R^(N x C k k).
Separable, Tai et al., Convolutional Neural Networks with Low-Rank Regularization, ICLR 2016, section 3:
W in R^((C k) x (k N)), whose entry ((c, i), (j, n)) is the weight (n, c, i, j): products of k x 1 and 1 x k filters.
Departs from the papers: every group of a convolution gets the same rank, so that energies of groups are added up.
"""

from enum import Enum
from math import prod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from spokeshave.errors import InvalidArgument, UnsupportedLayer
from spokeshave.structures.groups import CONVOLUTIONS, TRANSPOSED
from spokeshave.structures.spectrum import energies_of


class Split(Enum):
    """What a layer is split into."""

    FILTERS = "filters"
    """Basis filters of the layer's own kernel, then their 1 x 1 combinations."""
    SEPARABLE = "separable"
    """Of a 2-D convolution: k x 1 filters, then 1 x k filters."""


def separable(module: nn.Module) -> bool:
    """Whether a layer can be split into columns and rows: a 2-D convolution with more than one row and column."""
    return isinstance(module, nn.Conv2d) and min(module.kernel_size) > 1


def split_matrices(layer: str, module: nn.Module, split: Split = Split.FILTERS) -> Float[Tensor, "groups rows columns"]:
    """The matrices whose rank a split lowers.

    Args:
        layer: its name, for errors.
        module: a convolution, transposed or not, or a linear layer.
        split: what into.

    Returns:
        One matrix a group, a view or copy of the weight: (filters, taps), or (channels * height, width * filters).

    Raises:
        UnsupportedLayer: for another module, or one that is not separable.

    Example:
        >>> split_matrices("up", nn.ConvTranspose2d(6, 4, 3, groups=2)).shape  # 2 filters a group, 3 channels
        torch.Size([2, 2, 27])
        >>> split_matrices("conv", nn.Conv2d(3, 8, 5), Split.SEPARABLE).shape
        torch.Size([1, 15, 40])
    """
    if not isinstance(module, (*CONVOLUTIONS, nn.Linear)):
        raise UnsupportedLayer(f"{layer} ({type(module).__name__}): only convolutions and linear layers are factorized")
    weight = module.get_parameter("weight").detach()
    groups = 1 if isinstance(module, nn.Linear) else module.groups
    if split is Split.SEPARABLE:
        if not separable(module):
            raise UnsupportedLayer(
                f"{layer} ({type(module).__name__}, weight {tuple(weight.shape)}): only 2-D convolutions with more "
                "than one row and column are separable; use Split.FILTERS"
            )
        parts = weight.unflatten(0, (groups, -1)).permute(0, 2, 3, 4, 1)
        return parts.reshape(groups, parts.shape[1] * parts.shape[2], -1)
    if isinstance(module, TRANSPOSED):
        return weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(2)
    return weight.flatten(1).unflatten(0, (groups, -1))


def layer_energies(layer: str, module: nn.Module, split: Split = Split.FILTERS) -> Float[Tensor, " k"]:
    """Energy of each direction of a layer, falling, in float64, added up over its groups.

    Args:
        layer: its name, for errors.
        module: as in `split_matrices`.
        split: what into.

    Returns:
        As many as the full rank of a group; `rank_for_error` of them is the rank that all groups need.

    Raises:
        UnsupportedLayer: as in `split_matrices`.
        InvalidArgument: for weights that are empty or not finite.
    """
    try:
        found = [energies_of(matrix) for matrix in split_matrices(layer, module, split)]
    except InvalidArgument as error:
        raise InvalidArgument(f"{layer}: {error}") from error
    return torch.stack(found).sum(0)


def full_rank(module: nn.Module, split: Split = Split.FILTERS) -> int:
    """Largest rank of a group that the shape of the weight allows.

    Example:
        >>> full_rank(nn.Conv2d(3, 64, 3)), full_rank(nn.Conv2d(3, 64, 3), Split.SEPARABLE)
        (27, 9)
    """
    return min(split_matrices("layer", module, split).shape[1:])


def filters_of(module: nn.Module) -> tuple[int, int]:
    """Filters of a group, and weights of each filter.

    Example:
        >>> filters_of(nn.Conv2d(4, 6, 3, groups=2))
        (3, 18)
    """
    _, filters, taps = split_matrices("layer", module).shape
    return filters, taps


def kernel_area(module: nn.Module) -> int:
    """Positions of a kernel; 1 of a linear layer."""
    return prod(module.get_parameter("weight").shape[2:])
