"""Factorization: a matrix of filters as a few basis filters and their combinations, by PCA, SVD or k-means.

Wen et al., Coordinating Filters for Faster Deep Neural Networks, ICCV 2017, section 3.1, as the authors' code has it:
W in R^(N x D) ~ C B with B in R^(K x D) (basis filters) and C in R^(N x K) (combinations). PCA: C = eigenvectors of
W W^T, B = C^T W. SVD: W = U S V^T, C = U sqrt(S), B = sqrt(S) V^T. k-means: B = centroids, C one-hot.
Departs from the paper: nothing known.
"""

from enum import Enum

import torch
from jaxtyping import Float
from torch import Tensor

from spokeshave.errors import InvalidArgument
from spokeshave.structures.spectrum import finite_filters, principal_components


class Basis(Enum):
    """What basis filters are made by."""

    PCA = "pca"
    """Orthonormal combinations of the filters; the smallest error."""
    SVD = "svd"
    """The same product, its scale shared by both factors."""
    KMEANS = "kmeans"
    """Centroids: each filter becomes its nearest one."""


def factorize(
    filters: Float[Tensor, "filters taps"], rank: int, basis: Basis = Basis.PCA, seed: int = 0
) -> tuple[Float[Tensor, "rank taps"], Float[Tensor, "filters rank"]]:
    """Approximate filters by `rank` basis filters.

    Args:
        filters: one a row, finite.
        rank: 1..filters.
        basis: how.
        seed: of k-means.

    Returns:
        Basis filters and combinations, in the dtype and on the device of `filters`; combinations @ basis ~ filters.

    Raises:
        InvalidArgument: for a rank out of its range, or weights that are not finite.

    Example:
        >>> basis, combinations = factorize(torch.tensor([[1.0, 2.0], [2.0, 4.0]]), 1)
        >>> (combinations @ basis).round(decimals=4).tolist()
        [[1.0, 2.0], [2.0, 4.0]]
    """
    if not 1 <= rank <= len(filters):
        raise InvalidArgument(f"rank: expected 1..{len(filters)}, as there are so many filters, got {rank}")
    wide = finite_filters(filters)
    if basis is Basis.PCA:
        combinations = principal_components(filters)[1][:, :rank]
        found = combinations.T @ wide
    elif basis is Basis.SVD:
        left, values, right = torch.linalg.svd(wide, full_matrices=False)
        kept = min(rank, len(values))  # of a matrix with fewer taps than filters
        root = values[:kept].sqrt()
        combinations, found = left[:, :kept] * root, root[:, None] * right[:kept]
        combinations = torch.nn.functional.pad(combinations, (0, rank - kept))
        found = torch.nn.functional.pad(found, (0, 0, 0, rank - kept))
    else:
        from sklearn.cluster import KMeans

        clusters = KMeans(rank, n_init=4, random_state=seed).fit(wide.cpu().numpy())  # pyright: ignore[reportArgumentType]
        found = torch.from_numpy(clusters.cluster_centers_).to(wide)
        labels = torch.from_numpy(clusters.labels_).long()
        combinations = torch.nn.functional.one_hot(labels, rank).to(wide)
    return found.to(filters), combinations.to(filters)
