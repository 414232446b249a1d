"""The domain classifier's loss and accuracy against scikit-learn's log loss, and what it can learn."""

import math

import pytest
import torch
from sklearn.metrics import log_loss

from spokeshave.adaptation.domain_classifier import DomainClassifier, domain_accuracy, domain_loss


def test_each_domain_counts_half() -> None:
    source, target = torch.randn(3, dtype=torch.float64), torch.randn(9, dtype=torch.float64)
    each = [
        log_loss([label] * len(one), torch.sigmoid(one).numpy(), labels=[0, 1])
        for label, one in ((1, source), (0, target))
    ]
    assert float(domain_loss(source, target)) == pytest.approx(sum(each) / 2)
    assert float(domain_loss(torch.zeros(4), torch.zeros(2))) == pytest.approx(math.log(2))


def test_ties_count_half() -> None:
    assert domain_accuracy(torch.zeros(4), torch.zeros(2)) == 0.5
    assert domain_accuracy(torch.tensor([1.0, -1.0, 1.0, 1.0]), torch.tensor([-1.0])) == 0.875


def test_it_learns_to_tell_shifted_features() -> None:
    classifier = DomainClassifier(4, hidden=16)
    optimizer = torch.optim.Adam(classifier.parameters(), lr=0.01)
    source, target = torch.randn(64, 4), torch.randn(64, 4) + 2
    for _ in range(60):
        optimizer.zero_grad()
        domain_loss(classifier(source), classifier(target)).backward()
        optimizer.step()
    assert domain_accuracy(classifier(source), classifier(target)) > 0.95
