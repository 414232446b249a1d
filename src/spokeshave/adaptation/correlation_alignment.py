"""Correlation alignment (CORAL): the distance of the covariances of two sets of features.

Sun, Saenko: Deep CORAL: Correlation Alignment for Deep Domain Adaptation, ECCV Workshops 2016, equation 1:
||C_s - C_t||_F^2 / (4 d^2), d the number of features.
Departs from the paper: nothing known.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from spokeshave.errors import InvalidArgument


def coral_distance(source: Float[Tensor, "n features"], target: Float[Tensor, "m features"]) -> Float[Tensor, ""]:
    """The squared distance of covariances.

    Args:
        source: features of one domain, at least two rows.
        target: features of the other, likewise.

    Returns:
        At least 0.

    Raises:
        InvalidArgument: for other shapes, or too few rows.

    Example:
        >>> a = torch.tensor([[0.0], [2.0]])  # variance 2
        >>> float(coral_distance(a, 2 * a))  # (2 - 8)^2 / 4
        9.0
    """
    if source.dim() != 2 or target.dim() != 2 or source.shape[1] != target.shape[1]:
        raise InvalidArgument(
            f"features: expected (n, features) and (m, features), got {tuple(source.shape)} and {tuple(target.shape)}"
        )
    if min(len(source), len(target)) < 2:
        raise InvalidArgument(f"features: a covariance takes two rows or more, got {len(source)} and {len(target)}")
    difference = torch.cov(source.T).view(-1) - torch.cov(target.T).view(-1)
    return difference.square().sum() / (4 * source.shape[1] ** 2)
