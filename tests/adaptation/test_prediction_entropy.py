"""Entropies against SciPy's, and where probabilities round to 0."""

import pytest
import torch
from scipy.stats import entropy

from spokeshave.adaptation.prediction_entropy import entropy_of_mean, mean_entropy


def test_equal_scipys() -> None:
    logits = 3 * torch.randn(6, 4, dtype=torch.float64)
    shares = torch.softmax(logits, 1).numpy()
    assert float(mean_entropy(logits)) == pytest.approx(entropy(shares, axis=1).mean())
    assert float(entropy_of_mean(logits)) == pytest.approx(entropy(shares.mean(0)))


@pytest.mark.parametrize("of", [mean_entropy, entropy_of_mean])
def test_finite_where_answers_are_certain(of) -> None:
    logits = torch.tensor([[500.0, -500.0], [300.0, -300.0]], requires_grad=True)
    found = of(logits)
    found.backward()
    assert float(found.detach()) == pytest.approx(0, abs=1e-6)
    assert logits.grad is not None and bool(torch.isfinite(logits.grad).all())
