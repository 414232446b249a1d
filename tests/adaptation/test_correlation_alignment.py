"""CORAL against NumPy's covariances, and against skada where it is installed."""

import numpy as np
import pytest
import torch

from spokeshave.adaptation.correlation_alignment import coral_distance
from spokeshave.errors import InvalidArgument


@pytest.mark.parametrize("sizes", [(6, 6), (5, 9)])
def test_equals_the_formula(sizes: tuple[int, int]) -> None:
    source, target = torch.randn(sizes[0], 4, dtype=torch.float64), 2 * torch.randn(sizes[1], 4, dtype=torch.float64)
    apart = np.cov(source.numpy().T) - np.cov(target.numpy().T)
    assert float(coral_distance(source, target)) == pytest.approx((apart**2).sum() / (4 * 4**2))


def test_equals_skadas() -> None:
    deep = pytest.importorskip("skada.deep._divergence", reason="skada is not installed")
    source, target = torch.randn(20, 6, dtype=torch.float64), 1 + 3 * torch.randn(31, 6, dtype=torch.float64)
    theirs = float(deep.deepcoral_loss(source, target))
    assert float(coral_distance(source, target)) == pytest.approx(theirs, rel=1e-8)


def test_shifts_do_not_count_and_scales_do() -> None:
    rows = torch.randn(30, 3, dtype=torch.float64)
    assert float(coral_distance(rows, rows + 5)) == pytest.approx(0, abs=1e-20)
    assert float(coral_distance(rows, 2 * rows)) > 0.01
    torch.autograd.gradcheck(coral_distance, (rows[:4].clone().requires_grad_(), rows[4:9].clone().requires_grad_()))


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="two rows or more, got 1 and 3"):
        coral_distance(torch.zeros(1, 2), torch.zeros(3, 2))
    with pytest.raises(InvalidArgument, match=r"got \(2, 2\) and \(3, 4\)"):
        getattr(coral_distance, "__wrapped__", coral_distance)(torch.zeros(2, 2), torch.zeros(3, 4))
