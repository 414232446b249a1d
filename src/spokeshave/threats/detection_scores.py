"""How well scores tell poison from clean images: ROC, area under it, share found at a share of false alarms.

The higher a score, the more suspicious; an image is suspicious where its score is above a threshold. The area is the
probability that a poison scores above a clean image, ties counted half (Mann and Whitney 1947). Areas alone flatter:
of 60,000 images at a false-alarm share of 10 % nobody looks at 6,000, so the share found at 1 % stands beside it.
Departs from the papers: nothing known.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from spokeshave.errors import InvalidArgument


@dataclass(frozen=True)
class RocCurve:
    """Shares at every threshold, from none suspicious to all.

    Attributes:
        false_alarms: share of clean images that are suspicious, ascending, 0..1.
        found: share of poisons that are, 0..1.
    """

    false_alarms: Float[Tensor, " n"]
    found: Float[Tensor, " n"]


@dataclass(frozen=True)
class Detection:
    """How one detector did.

    Attributes:
        area: under the ROC curve, 0..1.
        found_share: poisons found where at most `false_positive_share` of these clean images are suspicious.
        false_positive_share: asked for.
        caught_share: poisons above the detector's own threshold, chosen beforehand.
        lost_share: clean images above it.
    """

    area: float
    found_share: float
    false_positive_share: float
    caught_share: float
    lost_share: float


def threshold_for(clean_scores: Float[Tensor, " n"], false_positive_share: float = 0.01) -> float:
    """The least threshold with at most this share of clean scores above it.

    Args:
        clean_scores: of images that are known to be clean.
        false_positive_share: 0..1, below 1.

    Returns:
        One of the scores.

    Raises:
        InvalidArgument: for no score, NaN, or a share out of its range.

    Example:
        >>> threshold_for(torch.arange(100.0), 0.01), threshold_for(torch.arange(100.0), 0.0)
        (98.0, 99.0)
    """
    _require_scores(clean_scores, "clean scores")
    if not 0 <= false_positive_share < 1:
        raise InvalidArgument(f"false_positive_share must be in 0..1, below 1, got {false_positive_share}")
    above = math.floor(false_positive_share * len(clean_scores) + 1e-9)
    return float(clean_scores.sort(descending=True).values[above])


def area_under_roc(clean_scores: Float[Tensor, " n"], poison_scores: Float[Tensor, " m"]) -> float:
    """Probability that a poison scores above a clean image.

    Args:
        clean_scores: of clean images.
        poison_scores: of poisons.

    Returns:
        0..1; 0.5 is no better than chance.

    Raises:
        InvalidArgument: for no score, or NaN.

    Example:
        >>> area_under_roc(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 3.0]))  # (0.75 + 1) / 2
        0.875
    """
    clean, poison = _both(clean_scores, poison_scores)
    below, upto = (torch.searchsorted(clean, poison, right=right).double() for right in (False, True))
    return float((below + upto).mean() / (2 * len(clean)))


def found_share(
    clean_scores: Float[Tensor, " n"], poison_scores: Float[Tensor, " m"], false_positive_share: float = 0.01
) -> float:
    """Share of poisons above the threshold that leaves at most this share of clean images suspicious.

    Raises:
        InvalidArgument: for no score, NaN, or a share out of its range.

    Example:
        >>> found_share(torch.arange(100.0), torch.tensor([97.0, 98.0, 98.5, 200.0]))
        0.5
    """
    threshold = threshold_for(clean_scores, false_positive_share)
    _require_scores(poison_scores, "scores of poisons")
    return float((poison_scores > threshold).double().mean())


def roc_curve(clean_scores: Float[Tensor, " n"], poison_scores: Float[Tensor, " m"]) -> RocCurve:
    """Shares of clean images and of poisons that are suspicious, threshold by threshold.

    Raises:
        InvalidArgument: for no score, or NaN.

    Example:
        >>> curve = roc_curve(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 3.0]))
        >>> curve.false_alarms.tolist(), curve.found.tolist()
        ([0.0, 0.0, 0.5, 1.0], [0.0, 0.5, 1.0, 1.0])
    """
    clean, poison = _both(clean_scores, poison_scores)
    levels = torch.cat([clean, poison]).unique().flip(0)
    suspicious = [(len(one) - torch.searchsorted(one, levels)).double() / len(one) for one in (clean, poison)]
    false_alarms, found = (torch.cat([torch.zeros(1, dtype=torch.float64), shares]) for shares in suspicious)
    return RocCurve(false_alarms, found)


def _both(clean_scores: Tensor, poison_scores: Tensor) -> tuple[Tensor, Tensor]:
    _require_scores(clean_scores, "clean scores")
    _require_scores(poison_scores, "scores of poisons")
    return clean_scores.double().cpu().sort().values, poison_scores.double().cpu().sort().values


def _require_scores(scores: Tensor, where: str) -> None:
    if not len(scores) or bool(scores.isnan().any()):
        raise InvalidArgument(
            f"{where}: expected at least one and no NaN, got {len(scores)} with {int(scores.isnan().sum())} NaN"
        )
