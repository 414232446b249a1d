"""Pooling in both layouts against torch."""

import numpy as np
import pytest
import torch
from torch import nn

from sparse_cases import LAYOUTS, SETS, through
from spokeshave.targets.cpu_sparse.pooling import Windows

POOLS = [
    nn.MaxPool2d(3, 2, ceil_mode=True),
    nn.MaxPool2d((2, 3), (1, 2), (1, 1)),
    nn.MaxPool2d(3, 1, 1, dilation=2),
    nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),
    nn.AvgPool2d(3, 2, 1, ceil_mode=True),
    nn.AvgPool2d(2, divisor_override=3),
    nn.AdaptiveAvgPool2d(1),
]


@pytest.mark.parametrize("pool", POOLS, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("vectors", SETS)
def test_windows_match_torch(pool, layout, vectors):
    network, x = nn.Sequential(pool), torch.randn(2, 5, 13, 21, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(through(layout, network, x, vectors), network(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_nan_and_infinity_pass(layout, value):
    network, x = nn.Sequential(nn.MaxPool2d(3, 2, 1)), torch.randn(2, 3, 9, 9)
    x[1, 2, 4, 4] = value
    x[0, 0, 0, 0] = value
    torch.testing.assert_close(through(layout, network, x, SETS[0]), network(x), equal_nan=True)


def test_the_last_window_follows_torch():
    for size in range(1, 20):
        for window, stride, padding, ceil in ((3, 2, 1, True), (2, 2, 0, True), (3, 3, 1, False), (2, 3, 1, True)):
            if size + 2 * padding < window:
                continue
            wanted = nn.MaxPool1d(window, stride, padding, ceil_mode=ceil)(torch.zeros(1, 1, size)).shape[-1]
            assert Windows(size, window, stride, padding, 1, ceil).outputs == wanted


def test_ranges_leave_the_padding_out():
    np.testing.assert_array_equal(Windows(5, 3, 2, 1).ranges(), [[0, 2], [1, 3], [3, 2]])
    assert Windows(5, 3, 2, 1).counted(True).tolist() == [3, 3, 3]
