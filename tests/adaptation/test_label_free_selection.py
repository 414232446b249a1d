"""Scores without labels: by hand, and the order that they put answers in."""

import math

import numpy as np
import pytest
import torch

from spokeshave.adaptation.label_free_selection import Selector, select, selection_score
from spokeshave.errors import InvalidArgument

SURE = 9 * torch.eye(4).repeat(5, 1)
UNSURE = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
ONE_CLASS = torch.zeros(20, 4) + torch.tensor([9.0, 0.0, 0.0, 0.0])


def test_information_wants_sure_and_even_answers() -> None:
    scores = [selection_score(logits) for logits in (SURE, UNSURE, ONE_CLASS)]
    assert scores[0] == pytest.approx(math.log(4), abs=0.01)
    assert scores[0] > scores[1] > scores[2] == pytest.approx(0, abs=1e-6)
    assert select({"unsure": UNSURE, "sure": SURE, "one": ONE_CLASS}) == "sure"


def test_entropy_is_deceived_by_one_class() -> None:
    assert selection_score(ONE_CLASS, Selector.ENTROPY) > selection_score(UNSURE, Selector.ENTROPY)


def test_neighbourhoods_by_hand() -> None:
    answers = torch.softmax(UNSURE, 1).numpy().astype(float)
    unit = answers / np.linalg.norm(answers, axis=1, keepdims=True)
    likeness = unit @ unit.T / 0.05
    np.fill_diagonal(likeness, -np.inf)
    shares = np.exp(likeness - likeness.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    logs = np.log(shares, where=shares > 0, out=np.zeros_like(shares))
    expected = -(shares * logs).sum(1).mean()
    assert selection_score(UNSURE, Selector.NEIGHBOURHOOD) == pytest.approx(expected, rel=1e-4)


def test_too_little_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="at least two images, got 1"):
        selection_score(torch.zeros(1, 3))
    with pytest.raises(InvalidArgument, match="finite logits"):
        selection_score(torch.full((3, 3), float("inf")))
    with pytest.raises(InvalidArgument, match="at least one network's answers"):
        select({})
