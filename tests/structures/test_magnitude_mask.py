"""Masks against sorting by hand."""

import math

import pytest
import torch

from spokeshave.errors import InvalidArgument
from spokeshave.structures.magnitude_mask import Scope, magnitude_mask, magnitude_masks, scoped_masks


@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.37, 0.9, 1.0])
def test_the_smallest_go_and_the_count_is_exact(sparsity):
    torch.manual_seed(1)
    weight = torch.randn(6, 5, 3)
    mask = magnitude_mask(weight, sparsity)
    gone = round(sparsity * 90)
    expected = set(sorted(range(90), key=lambda i: abs(weight.flatten()[i].item()))[:gone])
    assert {i for i, stays in enumerate(mask.flatten().tolist()) if not stays} == expected


def test_ties_are_broken_by_position():
    assert magnitude_mask(torch.ones(2, 4), 0.5).tolist() == [[False] * 4, [True] * 4]


def test_together_and_apart():
    small, large = torch.linspace(0.1, 1, 10), torch.linspace(2, 3, 10)
    weights = {"small": small, "large": large}
    together = magnitude_masks(weights, 0.6)
    assert not together["small"].any() and together["large"].tolist() == [False] * 2 + [True] * 8
    shares = {"small": 0.6, "large": 0.6}
    assert torch.equal(scoped_masks(weights, shares, Scope.GLOBAL)["large"], together["large"])
    assert all(mask.sum() == 4 for mask in scoped_masks(weights, shares, Scope.LAYER).values())
    others = scoped_masks(weights, {"small": 0.1, "large": 0.5}, Scope.GLOBAL)  # other shares are other rankings
    assert [int(mask.sum()) for mask in others.values()] == [9, 5]
    assert magnitude_masks({}, 0.5) == {}


@pytest.mark.parametrize("sparsity", [-0.1, 1.1, math.nan])
def test_shares_outside_0_and_1_are_refused(sparsity):
    with pytest.raises(InvalidArgument, match=r"0\.\.1"):
        magnitude_mask(torch.ones(3), sparsity)
