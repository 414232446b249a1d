"""MMD against a formula in NumPy, on its own properties, and on bad shapes."""

import numpy as np
import pytest
import torch

from spokeshave.adaptation.maximum_mean_discrepancy import WIDTHS, squared_mmd
from spokeshave.errors import InvalidArgument


def by_hand(source: np.ndarray, target: np.ndarray, unbiased: bool) -> float:
    both = np.concatenate([source, target])
    count, n, m = len(both), len(source), len(target)
    distance = np.array([[((one - other) ** 2).sum() for other in both] for one in both])
    scale = distance.sum() / (count * (count - 1))
    kernel = np.mean([np.exp(-distance / (width * scale)) for width in WIDTHS], axis=0)
    first, second, across = kernel[:n, :n], kernel[n:, n:], kernel[:n, n:]
    if not unbiased:
        return first.mean() + second.mean() - 2 * across.mean()
    own = (first.sum() - np.trace(first)) / (n * (n - 1)) + (second.sum() - np.trace(second)) / (m * (m - 1))
    return own - 2 * across.mean()


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("sizes", [(6, 6), (5, 9), (2, 2)])
def test_equals_the_formula(sizes: tuple[int, int], unbiased: bool) -> None:
    source, target = torch.randn(sizes[0], 4, dtype=torch.float64), 1 + torch.randn(sizes[1], 4, dtype=torch.float64)
    found = float(squared_mmd(source, target, unbiased=unbiased))
    assert found == pytest.approx(by_hand(source.numpy(), target.numpy(), unbiased), abs=1e-12)


def test_zero_for_the_same_batch_and_unchanged_by_order() -> None:
    rows, others = torch.randn(8, 5, dtype=torch.float64), torch.randn(7, 5, dtype=torch.float64)
    assert float(squared_mmd(rows, rows)) == pytest.approx(0, abs=1e-12)
    assert float(squared_mmd(rows, rows[torch.randperm(8)])) == pytest.approx(0, abs=1e-12)
    shuffled = squared_mmd(rows[torch.randperm(8)], others[torch.randperm(7)])
    assert float(shuffled) == pytest.approx(float(squared_mmd(rows, others)))
    assert float(squared_mmd(others, rows)) == pytest.approx(float(squared_mmd(rows, others)))


def test_grows_with_a_shift_and_draws_both_domains() -> None:
    source, target = torch.randn(64, 8), torch.randn(64, 8)
    found = [float(squared_mmd(source, target + shift)) for shift in (0.0, 0.5, 1.0, 2.0)]
    assert found == sorted(found) and found[-1] > 5 * found[0]
    source.requires_grad_()
    shifted = (target + 1).requires_grad_()
    squared_mmd(source, shifted).backward()
    assert source.grad is not None and shifted.grad is not None
    # Along the shift, toward each other.
    assert float(source.grad.sum()) < 0 < float(shifted.grad.sum())


def test_equal_rows_give_zero_and_a_finite_gradient() -> None:
    rows = torch.ones(3, 2, requires_grad=True)
    found = squared_mmd(rows, torch.ones(4, 2))
    found.backward()
    assert float(found.detach()) == 0 and rows.grad is not None and bool(torch.isfinite(rows.grad).all())


@pytest.mark.parametrize(
    ("source", "target", "unbiased", "said"),
    [
        (torch.zeros(3, 2), torch.zeros(3, 4), False, "got (3, 2) and (3, 4)"),
        (torch.zeros(3), torch.zeros(3, 1), False, "expected (n, features)"),
        (torch.zeros(0, 2), torch.zeros(3, 2), False, "at least 1 of each domain, got 0, 3"),
        (torch.zeros(1, 2), torch.zeros(3, 2), True, "at least 2 of each domain, got 1, 3"),
    ],
)
def test_bad_shapes_are_refused(source: torch.Tensor, target: torch.Tensor, unbiased: bool, said: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        getattr(squared_mmd, "__wrapped__", squared_mmd)(source, target, unbiased=unbiased)
    assert said in str(caught.value)


def test_rows_far_from_zero_lose_little() -> None:
    source, target = torch.randn(20, 6), torch.randn(20, 6) + 1
    far = float(squared_mmd(source + 1000, target + 1000))
    assert far == pytest.approx(float(squared_mmd(source, target)), rel=1e-3)
