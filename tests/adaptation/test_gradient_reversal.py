"""Gradient reversal by gradient check, and its ramp by the paper's formula."""

import math

import pytest
import torch

from spokeshave.adaptation.gradient_reversal import ramp, reverse_gradient


@pytest.mark.parametrize("scale", [0.0, 0.3, 1.0, 2.5])
def test_values_stay_and_the_gradient_turns(scale: float) -> None:
    features = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(5, 3, dtype=torch.float64)
    assert torch.equal(reverse_gradient(features, scale), features)
    (reverse_gradient(features, scale).sin() * weights).sum().backward()
    # The derivative by finite differences, with its sign turned.
    step = 1e-6
    for place in ((0, 0), (4, 2)):
        moved = features.detach().clone()
        moved[place] += step
        slope = ((moved.sin() - features.detach().sin()) * weights).sum() / step
        assert features.grad is not None
        assert float(features.grad[place]) == pytest.approx(-scale * float(slope), abs=1e-5)


def test_in_the_middle_of_a_network_only_what_lies_before_is_reversed() -> None:
    before, after = torch.nn.Linear(2, 2), torch.nn.Linear(2, 1)
    inputs = torch.randn(4, 2)
    after(before(inputs)).sum().backward()
    plain = [parameter.grad.clone() for parameter in (*before.parameters(), *after.parameters())]  # pyright: ignore
    for layer in (before, after):
        layer.zero_grad()
    after(reverse_gradient(before(inputs), 0.5)).sum().backward()
    for number, (parameter, one) in enumerate(zip((*before.parameters(), *after.parameters()), plain, strict=True)):
        torch.testing.assert_close(parameter.grad, (-0.5 if number < 2 else 1.0) * one)


def test_the_ramp_is_the_papers() -> None:
    for progress in (0.0, 0.25, 0.7, 1.0):
        assert ramp(progress) == pytest.approx(2 / (1 + math.exp(-10 * progress)) - 1)
    assert ramp(0.0) == 0.0
