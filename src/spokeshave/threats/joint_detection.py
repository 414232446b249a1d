"""Poison is found by any of several detectors: the image is as suspicious as the one that doubts it most finds it.

Vovk, Gammerman, Shafer: Algorithmic Learning in a Random World, 2005, conformal p-values:

    s(x, y) = max_d share of clean images whose score under detector d is below that of x

Scores of different kinds are so brought to one scale. The threshold is found for the maximum, so that false alarms of
several detectors together stay at the share asked for. Departs from the source: nothing known.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from spokeshave.errors import InvalidArgument
from spokeshave.threats.own_label_distance import DistanceDetector
from spokeshave.threats.poisoning_detection import Detector, LossDetector


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
        ranks = [
            torch.searchsorted(reference, one.contiguous()).float() / len(reference)
            for reference, one in zip(self._references, scores, strict=True)
        ]
        return torch.stack(ranks).max(0).values
