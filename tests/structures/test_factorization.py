"""Factorization against NumPy's truncated SVD and scikit-learn's clusters."""

import numpy as np
import pytest
import torch

from spokeshave.errors import InvalidArgument
from spokeshave.structures.factorization import Basis, factorize


def filters(count: int, taps: int) -> torch.Tensor:
    return torch.randn(count, taps, generator=torch.Generator().manual_seed(count * 100 + taps))


def best(matrix: torch.Tensor, rank: int) -> np.ndarray:
    u, s, v = np.linalg.svd(matrix.double().numpy(), full_matrices=False)
    return u[:, :rank] * s[:rank] @ v[:rank]


@pytest.mark.parametrize("basis", [Basis.PCA, Basis.SVD])
@pytest.mark.parametrize(("count", "taps", "rank"), [(8, 20, 3), (8, 20, 8), (20, 6, 4), (20, 6, 15), (1, 5, 1)])
def test_pca_and_svd_give_the_best_product(basis: Basis, count: int, taps: int, rank: int) -> None:
    matrix = filters(count, taps)
    found, combinations = factorize(matrix, rank, basis)
    assert found.shape == (rank, taps) and combinations.shape == (count, rank) and found.dtype == matrix.dtype
    assert np.allclose((combinations @ found).numpy(), best(matrix, rank), atol=1e-5)


def test_pca_has_orthonormal_combinations_and_svd_shares_the_scale() -> None:
    matrix = filters(6, 30)
    _, combinations = factorize(matrix, 4, Basis.PCA)
    assert torch.allclose(combinations.T @ combinations, torch.eye(4), atol=1e-5)
    found, combinations = factorize(matrix, 4, Basis.SVD)
    assert torch.allclose(found @ found.T, combinations.T @ combinations, atol=1e-4)


def test_k_means_takes_each_filter_to_its_nearest_centroid() -> None:
    centres = 10 * filters(3, 12)
    matrix = centres.repeat_interleave(4, 0) + 0.1 * filters(12, 12)
    found, combinations = factorize(matrix, 3, Basis.KMEANS)
    assert set(combinations.unique().tolist()) == {0.0, 1.0} and torch.equal(combinations.sum(1), torch.ones(12))
    means = matrix.view(3, 4, 12).mean(1).repeat_interleave(4, 0)
    assert torch.allclose(combinations @ found, means, atol=1e-4)
    again = factorize(matrix, 3, Basis.KMEANS)
    assert torch.equal(again[0], found)


@pytest.mark.parametrize("rank", [0, 7, -1])
def test_a_rank_out_of_range_is_refused(rank: int) -> None:
    with pytest.raises(InvalidArgument, match=r"1\.\.6"):
        factorize(filters(6, 8), rank)
