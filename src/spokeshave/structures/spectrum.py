"""Spectrum of a layer: how much of its filters a few directions hold, and the rank that a given error needs.

Wen, Xu, Wu, Wang, Chen, Li: Coordinating Filters for Faster Deep Neural Networks, ICCV 2017; Wang, Wen et al.: Group
Scissor, DAC 2017. Filters are the rows of W in R^(N x D), not centred. With eigenvalues l_1 >= l_2 >= ... of W W^T,

    error(K) = sum over k > K of l_k / sum of all l_k = ||W - W_K||_F^2 / ||W||_F^2

Departs from the paper: a layer of zeros has rank 1, since a layer of rank 0 is none.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from spokeshave.errors import InvalidArgument

_ROUNDING = 1e-12
"""Shares of energy that differ by less are the same: sums of eigenvalues are rounded."""


def principal_components(
    filters: Float[Tensor, "filters taps"],
) -> tuple[Float[Tensor, " filters"], Float[Tensor, "filters filters"]]:
    """Energies and directions of the filters, without centring.

    Args:
        filters: one a row.

    Returns:
        Energies (eigenvalues of W W^T, at least 0, falling), and the eigenvectors as columns, both in float64.

    Raises:
        InvalidArgument: where it is no matrix, is empty, or holds NaN or infinite entries.

    Example:
        >>> energies, _ = principal_components(torch.tensor([[3.0, 0.0], [0.0, 2.0]]))
        >>> energies.tolist()
        [9.0, 4.0]
    """
    wide = finite_filters(filters)
    energies, vectors = torch.linalg.eigh(wide @ wide.T)
    return energies.flip(0).clamp_min(0), vectors.flip(1)


def singular_values(filters: Float[Tensor, "filters taps"]) -> Float[Tensor, " rank"]:
    """Singular values of a matrix, falling, in float64.

    Raises:
        InvalidArgument: where it is no matrix, is empty, or holds NaN or infinite entries.
    """
    return torch.linalg.svdvals(finite_filters(filters))


def energies_of(filters: Float[Tensor, "filters taps"]) -> Float[Tensor, " k"]:
    """Squared singular values of a matrix, falling, in float64, without directions: cheaper than both.

    Returns:
        as many as the shorter side of the matrix has.

    Raises:
        InvalidArgument: where it is no matrix, is empty, or holds NaN or infinite entries.

    Example:
        >>> energies_of(torch.tensor([[3.0, 0.0, 0.0], [0.0, 2.0, 0.0]])).tolist()
        [9.0, 4.0]
    """
    wide = finite_filters(filters)
    short = wide if wide.shape[0] <= wide.shape[1] else wide.T
    return torch.linalg.eigvalsh(short @ short.T).flip(0).clamp_min(0)


def reconstruction_error(energies: Float[Tensor, " k"], rank: int) -> float:
    """Share of the energy that the first `rank` directions leave out, 0..1; 0 for a layer of zeros.

    Example:
        >>> reconstruction_error(torch.tensor([6.0, 3.0, 1.0]), 2)
        0.1
    """
    total = float(energies.double().sum())
    return float(energies.double()[rank:].sum()) / total if total > 0 else 0.0


def rank_for_error(energies: Float[Tensor, " k"], max_error: float) -> int:
    """Smallest rank, at least 1, whose error (a share of the squared norm) is at most `max_error`.

    Args:
        energies: squared singular values, falling.
        max_error: 0..1; the authors' "ratio" of PCA is 1 - max_error.

    Raises:
        InvalidArgument: for an error outside 0..1.

    Example:
        >>> rank_for_error(torch.tensor([6.0, 3.0, 1.0]), 0.1), rank_for_error(torch.tensor([6.0, 3.0, 1.0]), 0.09)
        (2, 3)
    """
    if not 0 <= max_error <= 1:
        raise InvalidArgument(f"max_error: expected a share of the squared norm, 0..1, got {max_error}")
    wide = energies.double()
    total = wide.sum()
    if total <= 0:
        return 1
    left_out = 1 - wide.cumsum(0) / total
    return int((left_out > max_error + _ROUNDING).sum()) + 1 if left_out[-1] <= max_error + _ROUNDING else len(wide)


def rank_for_norm(values: Float[Tensor, " k"], share: float) -> int:
    """The authors' rule for SVD: smallest rank with ||s_1..K|| >= share * ||s||, of the norm, not of its square.

    The same number therefore keeps fewer directions than `rank_for_error(s**2, 1 - share)`.

    Args:
        values: singular values, falling.
        share: 0..1.

    Raises:
        InvalidArgument: for a share outside 0..1.

    Example:
        >>> rank_for_norm(torch.tensor([3.0, 4.0]).flip(0), 0.8)  # 4 of 5
        1
    """
    if not 0 <= share <= 1:
        raise InvalidArgument(f"share: expected a share of the norm, 0..1, got {share}")
    return rank_for_error(values.double().square(), 1 - share * share)


def break_even_rank(inputs: int, outputs: int) -> int:
    """Largest rank K for which K (inputs + outputs) weights are fewer than inputs * outputs; may be 0.

    Example:
        >>> break_even_rank(500, 50)  # 45 * 550 = 24,750 < 25,000
        45
    """
    return (inputs * outputs - 1) // (inputs + outputs)


def finite_filters(filters: Float[Tensor, "filters taps"]) -> Float[Tensor, "filters taps"]:
    """The filters in float64, without a gradient.

    Raises:
        InvalidArgument: where it is no matrix, is empty, or holds NaN or infinite entries.
    """
    if filters.dim() != 2 or filters.numel() == 0:
        raise InvalidArgument(f"filters: expected a matrix with entries, one filter a row, got {tuple(filters.shape)}")
    wide = filters.detach().double()
    if not torch.isfinite(wide).all():
        raise InvalidArgument("filters: expected finite weights, got NaN or infinite ones; the training diverged")
    return wide
