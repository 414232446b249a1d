"""A head on fixed features: it adapts where domains are shifted, the same twice, and refuses what does not fit."""

import pytest
import torch

from spokeshave.adaptation.adaptation_objective import SOURCE_ONLY
from spokeshave.adaptation.feature_adaptation import HeadTraining, adapt_features
from spokeshave.errors import InvalidArgument

SHORT = HeadTraining(steps=300, learning_rate=1e-2, batch_size=60, hidden=32, dropout=0.0)


def domains() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Three clusters, and the same beside them."""
    drawn = torch.Generator().manual_seed(0)
    labels = torch.arange(3).repeat(40)
    middles = torch.tensor([[2.0, 0.0], [-1.0, 1.7], [-1.0, -1.7]])
    source, target = (middles[labels] + 0.3 * torch.randn(120, 2, generator=drawn) for _ in range(2))
    return source, labels, target + torch.tensor([1.6, 0.8])


def right(logits: torch.Tensor, labels: torch.Tensor) -> float:
    return float((logits.argmax(1) == labels).float().mean())


def test_it_adapts_where_the_source_alone_fails() -> None:
    source, labels, target = domains()
    alone = right(adapt_features(source, labels, target, SOURCE_ONLY, SHORT), labels)
    assert right(adapt_features(source, labels, target, None, SHORT), labels) > max(0.9, alone)


def test_a_seed_gives_the_same_answers() -> None:
    source, labels, target = domains()
    few = HeadTraining(steps=5, hidden=8)
    first, again, other = (adapt_features(source, labels, target, None, few, seed) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_what_does_not_fit_is_refused() -> None:
    source, labels, target = domains()
    unchecked = getattr(adapt_features, "__wrapped__", adapt_features)
    one_class = torch.zeros_like(labels)
    for wrong in ((source, labels, target[:, :1]), (source, labels, target[:1]), (source, one_class, target)):
        with pytest.raises(InvalidArgument, match="expected rows of one width"):
            unchecked(*wrong)
