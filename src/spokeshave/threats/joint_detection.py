"""Poison is found by any of several detectors: the image is as suspicious as the one that doubts it most finds it.

Vovk, Gammerman, Shafer: Algorithmic Learning in a Random World, 2005, conformal p-values:

    s(x, y) = max_d share of clean images whose score under detector d is below that of x

Scores of different kinds are so brought to one scale. The threshold is found for the maximum, so that false alarms of
several detectors together stay at the share asked for. Departs from the source: beyond the greatest clean score, where
shares are all 1, the share by which that is exceeded is added, so that such images still have an order.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from spokeshave.errors import InvalidArgument
from spokeshave.threats.own_label_distance import DistanceDetector
from spokeshave.threats.poisoning_detection import Detector, LossDetector

_ROUNDING = 1e-6
"""Of ranks, which are in single precision."""


class AnyDetector(Detector):
    """The most suspicious of several opinions; by default of the loss and of the distance to the label's images.

    Args:
        detectors: asked, two or more; fitted with this one.

    Raises:
        InvalidArgument: for less than two.
    """

    def __init__(self, detectors: Sequence[Detector] = ()) -> None:
        super().__init__()
        self.detectors = tuple(detectors) or (LossDetector(), DistanceDetector())
        if len(self.detectors) < 2:
            raise InvalidArgument(f"expected two or more detectors, got {len(self.detectors)}")
        self.judges_alone = all(detector.judges_alone for detector in self.detectors)
        self._references: list[Tensor] = []

    @property
    def limits(self) -> tuple[float, ...]:
        """Score of each detector, by its own measure, up to which this one suspects nothing.

        Raises:
            InvalidArgument: before `fit`.
        """
        limit = self.limit
        return tuple(score_of(limit, reference) for reference in self._references)

    def _learn(self, model: nn.Module, images: Tensor, labels: Tensor) -> None:
        super()._learn(model, images, labels)
        for detector in self.detectors:
            detector.fit(model, images, labels, self.false_positive_share)

    def _clean_scores(self, images: Tensor, labels: Tensor) -> Tensor:
        own = [detector.clean_scores() for detector in self.detectors]
        self._references = [scores.sort().values for scores in own]
        return self._worst(own)

    def _scores(self, images: Tensor, labels: Tensor) -> Tensor:
        return self._worst([detector.scores(images, labels) for detector in self.detectors])

    def _worst(self, scores: Sequence[Tensor]) -> Tensor:
        ranks = [ranked(one, reference) for one, reference in zip(scores, self._references, strict=True)]
        return torch.stack(ranks).max(0).values


def ranked(scores: Float[Tensor, " n"], reference: Float[Tensor, " m"]) -> Float[Tensor, " n"]:
    """Share of a sorted reference that lies below each score, and by how much of itself its greatest is exceeded.

    Args:
        scores: at least 0.
        reference: ascending, at least 0.

    Example:
        >>> ranked(torch.tensor([0.5, 2.0, 3.0, 6.0]), torch.tensor([1.0, 2.0, 3.0, 4.0])).tolist()
        [0.0, 0.25, 0.5, 1.5]
    """
    below = torch.searchsorted(reference, scores.contiguous()).float() / len(reference)
    greatest = reference[-1].clamp_min(torch.finfo(reference.dtype).tiny)
    return below + (scores / greatest - 1).clamp_min(0)


def score_of(rank: float, reference: Float[Tensor, " m"]) -> float:
    """The greatest score that is ranked no higher: the inverse of `ranked`.

    Args:
        rank: at least 0.
        reference: ascending, at least 0.

    Example:
        >>> reference = torch.tensor([1.0, 2.0, 3.0, 4.0])
        >>> score_of(0.25, reference), score_of(0.3, reference), score_of(1.5, reference)
        (2.0, 2.0, 6.0)
    """
    if rank >= 1:
        return float(reference[-1]) * rank
    return float(reference[min(math.floor((rank + _ROUNDING) * len(reference)), len(reference) - 1)])
