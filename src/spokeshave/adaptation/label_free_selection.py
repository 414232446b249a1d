"""Choosing between adapted networks without a target label: scores of their answers on target images.

Entropy and its balance: Krause, Perona, Gomes: Discriminative Clustering by Regularized Information Maximization, NIPS
2010. Neighbourhoods: Saito et al.: Tune it the Right Way: Unsupervised Validation of Domain Adaptation via Soft
Neighborhood Density, ICCV 2021, equations 1 to 3.
Departs from the paper: nothing known.
"""

from collections.abc import Mapping
from enum import Enum

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from spokeshave.adaptation.prediction_entropy import entropy_of_mean, mean_entropy
from spokeshave.errors import InvalidArgument

_TEMPERATURE = 0.05


class Selector(Enum):
    """What a network is scored by; more is better."""

    INFORMATION = "information"
    """How much an answer tells: entropy of the mean answer, less the mean entropy."""
    ENTROPY = "entropy"
    """How sure answers are."""
    NEIGHBOURHOOD = "neighbourhood"
    """How dense the neighbourhoods of answers are."""


def selection_score(logits: Float[Tensor, "n classes"], selector: Selector = Selector.INFORMATION) -> float:
    """Score answers to target images.

    Args:
        logits: of at least two images.
        selector: the score.

    Raises:
        InvalidArgument: for fewer images, or logits that are not finite.

    Example:
        >>> sure, even = torch.tensor([[9.0, -9.0], [-9.0, 9.0]]), torch.zeros(2, 2)
        >>> round(selection_score(sure), 3), round(selection_score(even), 3)
        (0.693, 0.0)
    """
    if len(logits) < 2 or not bool(torch.isfinite(logits).all()):
        raise InvalidArgument(f"logits: a score takes finite logits of at least two images, got {len(logits)}")
    if selector is Selector.ENTROPY:
        return -float(mean_entropy(logits))
    if selector is Selector.INFORMATION:
        return float(entropy_of_mean(logits) - mean_entropy(logits))
    answers = functional.normalize(torch.softmax(logits, 1))
    likeness = answers @ answers.T / _TEMPERATURE
    likeness.fill_diagonal_(float("-inf"))
    return float(mean_entropy(likeness.masked_fill(torch.isinf(likeness), torch.finfo(likeness.dtype).min)))


def select(candidates: Mapping[str, Float[Tensor, "n classes"]], selector: Selector = Selector.INFORMATION) -> str:
    """Name the candidate with the best score; of equal ones the first.

    Args:
        candidates: name of a network -> its answers (logits) to the same target images.
        selector: the score.

    Raises:
        InvalidArgument: where there is none.
    """
    if not candidates:
        raise InvalidArgument("candidates: expected at least one network's answers, got none")
    return max(candidates, key=lambda name: selection_score(candidates[name], selector))
