"""The sliced Wasserstein distance against SciPy's linear program in one dimension, and POT where it is installed."""

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from spokeshave.adaptation.sliced_wasserstein import sliced_wasserstein
from spokeshave.errors import InvalidArgument


def transport(first: np.ndarray, second: np.ndarray) -> float:
    """The cheapest transport by squared distance, by a linear program."""
    n, m = len(first), len(second)
    cost = ((first[:, None] - second[None]) ** 2).ravel()
    rows = np.kron(np.eye(n), np.ones(m))
    columns = np.kron(np.ones(n), np.eye(m))
    found = linprog(cost, A_eq=np.concatenate([rows, columns]), b_eq=np.r_[np.full(n, 1 / n), np.full(m, 1 / m)])
    return float(found.fun)


@pytest.mark.parametrize("sizes", [(5, 5), (4, 6), (7, 3), (1, 4)])
def test_in_one_dimension_it_is_the_cheapest_transport(sizes: tuple[int, int]) -> None:
    first, second = torch.randn(sizes[0], 1, dtype=torch.float64), 2 + torch.randn(sizes[1], 1, dtype=torch.float64)
    expected = transport(first[:, 0].numpy(), second[:, 0].numpy())
    assert float(sliced_wasserstein(first, second, 3)) == pytest.approx(expected, rel=1e-6)


def test_equals_pots_along_the_same_directions() -> None:
    ot = pytest.importorskip("ot", reason="POT is not installed")
    first, second = torch.randn(20, 6, dtype=torch.float64), 1 + 3 * torch.randn(31, 6, dtype=torch.float64)
    drawn = torch.randn(6, 50, generator=torch.Generator().manual_seed(3))
    axes = (drawn / drawn.norm(dim=0, keepdim=True)).double().numpy()
    theirs = ot.sliced_wasserstein_distance(first.numpy(), second.numpy(), projections=axes) ** 2
    ours = sliced_wasserstein(first, second, 50, torch.Generator().manual_seed(3))
    assert float(ours) == pytest.approx(float(theirs), rel=1e-6)


def test_zero_for_the_same_rows_and_symmetric() -> None:
    first, second = torch.randn(8, 3), torch.randn(8, 3)
    assert float(sliced_wasserstein(first, first[torch.randperm(8)])) == pytest.approx(0, abs=1e-12)
    seeds = [torch.Generator().manual_seed(0) for _ in range(2)]
    there, back = sliced_wasserstein(first, second, 9, seeds[0]), sliced_wasserstein(second, first, 9, seeds[1])
    assert float(there) == pytest.approx(float(back))


def test_bad_shapes_are_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"got \(2, 2\) and \(3, 4\)"):
        getattr(sliced_wasserstein, "__wrapped__", sliced_wasserstein)(torch.zeros(2, 2), torch.zeros(3, 4))
    with pytest.raises(InvalidArgument, match=r"one direction, got \(2, 3, 0\)"):
        sliced_wasserstein(torch.zeros(2, 2), torch.zeros(3, 2), 0)
