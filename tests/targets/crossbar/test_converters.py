import numpy as np
import pytest
import torch

from spokeshave.errors import InvalidArgument
from spokeshave.targets.crossbar.converters import Converters, Range, convert, largest, steps_of


@pytest.mark.parametrize("bits", [2, 3, 8])
def test_converts_to_the_nearest_of_its_steps(bits):
    values = torch.from_numpy(np.random.default_rng(bits).normal(size=500))
    grid = 1.5 * np.arange(-steps_of(bits), steps_of(bits) + 1) / steps_of(bits)
    nearest = grid[np.abs(values.numpy()[:, None] - grid).argmin(1)]
    np.testing.assert_allclose(convert(values, bits, torch.tensor(1.5).double()).numpy(), nearest, atol=1e-12)
    assert len(grid) == 2**bits - 1


def test_gradients_go_straight_through_where_nothing_is_cut_off():
    values = torch.tensor([0.2, -0.4, 3.0, -2.0], requires_grad=True)
    out = convert(values, 4, torch.tensor(1.0))
    torch.testing.assert_close(out.detach(), convert(values.detach(), 4, torch.tensor(1.0)))
    out.sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [1, 1, 0, 0]


def test_nothing_comes_through_a_range_of_zero_and_nothing_is_nan():
    assert convert(torch.tensor([0.0, 2.0]), 8, torch.tensor(0.0)).tolist() == [0, 0]
    assert float(largest(torch.zeros(0))) == 0 and float(largest(torch.tensor([1.0, -3.0]))) == 3


def test_settings_say_when_an_example_is_needed():
    assert not Converters().needs_example and Converters(8).needs_example and Converters(None, 4).needs_example
    assert not Converters(8, 8, Range.PER_CALL).needs_example
    for wrong in ({"dac_bits": 1}, {"adc_bits": 25}):
        with pytest.raises(InvalidArgument, match="bits"):
            Converters(**wrong)
