"""The residual classifier: nothing at first, then what source labels ask for."""

import torch
from torch.nn import functional

from spokeshave.adaptation.residual_classifier import ResidualClassifier


def test_it_begins_as_the_identity_and_both_layers_learn() -> None:
    residual = ResidualClassifier(3)
    scores = torch.randn(20, 3)
    assert torch.equal(residual(scores), scores)
    labels = (scores.argmax(1) + 1) % 3  # the source names classes in another order
    optimizer = torch.optim.Adam(residual.parameters(), lr=0.02)
    for _ in range(200):
        optimizer.zero_grad()
        functional.cross_entropy(residual(scores), labels).backward()
        optimizer.step()
    assert float((residual(scores).argmax(1) == labels).float().mean()) > 0.9
