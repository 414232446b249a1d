"""Poison is found by its spectral signature: within its class it lies far out along the direction of most variance.

Tran, Li, Madry: Spectral Signatures in Backdoor Attacks, NeurIPS 2018, algorithm 1: for the images of each label, with
features R(x) and v the top right singular vector of their centred matrix,

    s(x) = ((R(x) - mean R) . v)^2

Departs from the paper: images above a threshold found on clean images are suspicious, instead of a fixed share of every
class, which throws away clean images where there is no poison.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from spokeshave.threats.network_features import Space, features_of
from spokeshave.threats.poisoning_detection import Detector


class SpectralDetector(Detector):
    """Squared distance along the top singular direction of each label's features; give all of a training set at once.

    Args:
        space: where images are compared.
    """

    judges_alone = False

    def __init__(self, space: Space = Space.FEATURES) -> None:
        super().__init__()
        self.space = space

    def _scores(self, images: Tensor, labels: Tensor) -> Tensor:
        return spectral_scores(features_of(self._fitted()[0], images, self.space), labels.cpu())


def spectral_scores(features: Float[Tensor, "n features"], labels: Int64[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Squared projection on the top right singular vector of each label's centred features.

    Args:
        features: of all images.
        labels: by which they are split.

    Example:
        >>> spectral_scores(torch.tensor([[0.0, 0.0], [0.0, 0.0], [3.0, 4.0]]), torch.tensor([0, 0, 0])).tolist()
        [2.77..., 2.77..., 11.11...]
    """
    found = torch.zeros(len(features))
    for label in labels.unique():
        mine = labels == label
        centred = (features[mine] - features[mine].mean(0)).double()
        # The Gram matrix of the features is far smaller than the images by features matrix.
        direction = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -1]
        found[mine] = (centred @ direction).square().float()
    return found
