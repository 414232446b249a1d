"""Poison is found by its neighbours: an image whose nearest clean images have another label is suspicious.

Peri, Gupta, Huang, Fowl, Zhu, Feizi, Goldstein, Dickerson: Deep k-NN Defense Against Clean-Label Data Poisoning
Attacks, ECCV workshops 2020:

    s(x, y) = share of the k nearest clean images (features, Euclidean) whose label is not y

Departs from the paper: neighbours are trusted images, where the paper looks among the training set itself; the share is
compared with a threshold instead of a plurality vote. Images of one share are put in order by how much nearer the
nearest image of another label is than that of their own: else no score is above a threshold of 1, which some clean
images with wrong labels are enough for, and nothing is ever suspicious.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from spokeshave.errors import InvalidArgument
from spokeshave.threats.network_features import Space, features_of
from spokeshave.threats.poisoning_detection import Detector

_CHUNK = 1000


class NeighbourDetector(Detector):
    """Disagreement of the nearest clean images with the label.

    Args:
        neighbours: k, at least 1 and below the number of clean images.
        space: where images are compared.

    Raises:
        InvalidArgument: for k below 1.
    """

    def __init__(self, neighbours: int = 50, space: Space = Space.FEATURES) -> None:
        super().__init__()
        if neighbours < 1:
            raise InvalidArgument(f"neighbours must be at least 1, got {neighbours}")
        self.neighbours, self.space = neighbours, space
        self._known = torch.zeros(0)

    def _learn(self, model: nn.Module, images: Tensor, labels: Tensor) -> None:
        if self.neighbours >= len(images):
            raise InvalidArgument(f"{self.neighbours} neighbours need more than {len(images)} clean images")
        super()._learn(model, images, labels)
        self._known = features_of(model, images, self.space)

    def _scores(self, images: Tensor, labels: Tensor) -> Tensor:
        model, (_, known_labels) = self._fitted()
        mine = features_of(model, images, self.space)
        return self._measure(mine, labels.cpu(), self._known, known_labels.cpu())

    def _clean_scores(self, images: Tensor, labels: Tensor) -> Tensor:
        known = labels.cpu()
        return self._measure(self._known, known, self._known, known, itself=True)

    def _measure(
        self, features: Tensor, labels: Tensor, known: Tensor, known_labels: Tensor, itself: bool = False
    ) -> Tensor:
        """What is compared; detectors that look at other distances to the clean images replace it."""
        return disagreement(features, labels, known, known_labels, self.neighbours, itself)


def disagreement(
    features: Float[Tensor, "n features"],
    labels: Int64[Tensor, " n"],
    known: Float[Tensor, "m features"],
    known_labels: Int64[Tensor, " m"],
    neighbours: int,
    itself: bool = False,
) -> Float[Tensor, " n"]:
    """Share of the nearest known points that have another label, and less than one of them more to break ties.

    With the distances d to the nearest point of the own label and of any other, d_own / (d_own + d_other) / (k + 1).

    Args:
        features: to be judged.
        labels: theirs, to be doubted.
        known: trusted.
        known_labels: theirs.
        neighbours: how many are asked.
        itself: both are the same points, and none is its own neighbour.

    Example:
        >>> known, labels = torch.tensor([[0.0], [1.0], [2.0], [9.0]]), torch.tensor([0, 0, 1, 1])
        >>> disagreement(torch.tensor([[0.4]]), torch.tensor([1]), known, labels, 3).item()  # 2/3 + 1.6/(1.6 + 0.4)/4
        0.866...
    """
    found = []
    for start in range(0, len(features), _CHUNK):
        apart = torch.cdist(features[start : start + _CHUNK], known)
        if itself:
            rows = torch.arange(len(apart))
            apart[rows, rows + start] = torch.inf
        given = labels[start : start + _CHUNK, None]
        differ = (known_labels[apart.topk(neighbours, largest=False).indices] != given).float().mean(1)
        foreign = known_labels != given
        own, other = (apart.masked_fill(mask, torch.inf).min(1).values for mask in (foreign, ~foreign))
        found.append(differ + (1 / (1 + other / own)).nan_to_num(0.5) / (neighbours + 1))
    return torch.cat(found)
