"""Poison is found by its distance: an image far from every clean image of the label it came with is suspicious.

Knorr, Ng: Algorithms for Mining Distance-Based Outliers in Large Datasets, VLDB 1998, applied label by label:

    s(x, y) = mean distance of x to the k nearest clean images with label y

It sees what a loss does not: an image optimised until the network agrees with its wrong label, or made of noise.
Departs from the source: distances to clean images only, within a label, with a threshold found on clean images.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from spokeshave.errors import InvalidArgument
from spokeshave.threats.neighbour_detection import NeighbourDetector
from spokeshave.threats.network_features import Space

_CHUNK = 1000


class DistanceDetector(NeighbourDetector):
    """Mean distance to the nearest clean images of the same label.

    Args:
        neighbours: k, at least 1; every label needs more clean images than that.
        space: where distances are measured.

    Raises:
        InvalidArgument: for k below 1.
    """

    def __init__(self, neighbours: int = 5, space: Space = Space.PIXELS) -> None:
        super().__init__(neighbours, space)

    def _learn(self, model: nn.Module, images: Tensor, labels: Tensor) -> None:
        super()._learn(model, images, labels)
        found, counts = labels.unique(return_counts=True)
        few = counts <= self.neighbours
        if bool(few.any()):
            raise InvalidArgument(
                f"label {int(found[few][0])}: {self.neighbours} neighbours need more than {int(counts[few][0])} clean "
                "images of each label"
            )

    def _measure(
        self, features: Tensor, labels: Tensor, known: Tensor, known_labels: Tensor, itself: bool = False
    ) -> Tensor:
        return own_label_distance(features, labels, known, known_labels, self.neighbours, itself)


def own_label_distance(
    features: Float[Tensor, "n features"],
    labels: Int64[Tensor, " n"],
    known: Float[Tensor, "m features"],
    known_labels: Int64[Tensor, " m"],
    neighbours: int,
    itself: bool = False,
) -> Float[Tensor, " n"]:
    """Mean Euclidean distance to the nearest known points of the same label; infinite for a label that none has.

    Args:
        features: to be judged.
        labels: theirs, to be doubted.
        known: trusted.
        known_labels: theirs.
        neighbours: how many distances are averaged.
        itself: both are the same points, and none is its own neighbour.

    Example:
        >>> known, labels = torch.tensor([[0.0], [1.0], [5.0]]), torch.tensor([0, 0, 1])
        >>> own_label_distance(torch.tensor([[3.0], [3.0]]), torch.tensor([0, 1]), known, labels, 1).tolist()
        [2.0, 2.0]
    """
    found = torch.full((len(features),), torch.inf)
    for label in labels.unique():
        places, mine = (labels == label).nonzero().flatten(), known[known_labels == label]
        if not len(mine):
            continue
        for start in range(0, len(places), _CHUNK):
            some = places[start : start + _CHUNK]
            apart = torch.cdist(features[some], mine)
            if itself:
                rows = torch.arange(len(some))
                apart[rows, rows + start] = torch.inf
            found[some] = apart.topk(neighbours, largest=False).values.mean(1)
    return found
