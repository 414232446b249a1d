"""Poison is found by clustering: the images of a label fall into two clusters, and poison makes up the smaller.

Chen, Carvalho, Baracaldo, Ludwig, Edwards, Lee, Molloy, Srivastava: Detecting Backdoor Attacks on Deep Neural Networks
by Activation Clustering, SafeAI workshop at AAAI 2019: last hidden activations, reduced to 10 dimensions, 2-means:

    s(x) = 1 - |cluster of x| / |label of x|

Departs from the paper: principal instead of independent components; relative size alone decides, and a cluster is
suspicious where it is smaller than what clean images give, instead of below 35 %.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from spokeshave.errors import InvalidArgument
from spokeshave.threats.network_features import Space, features_of
from spokeshave.threats.poisoning_detection import Detector


class ClusteringDetector(Detector):
    """How small an image's cluster is among the images of its label; give all of a training set at once.

    Args:
        components: that features are reduced to, at least 1.
        seed: of the clusters' first centres.
        space: where images are compared.

    Raises:
        InvalidArgument: for less than one component.
    """

    judges_alone = False

    def __init__(self, components: int = 10, seed: int = 0, space: Space = Space.FEATURES) -> None:
        super().__init__()
        if components < 1:
            raise InvalidArgument(f"components must be at least 1, got {components}")
        self.components, self.seed, self.space = components, seed, space

    def _scores(self, images: Tensor, labels: Tensor) -> Tensor:
        features = features_of(self._fitted()[0], images, self.space)
        return clustering_scores(features, labels.cpu(), self.components, self.seed)


def clustering_scores(
    features: Float[Tensor, "n features"], labels: Int64[Tensor, " n"], components: int = 10, seed: int = 0
) -> Float[Tensor, " n"]:
    """Share of its label that is not in an image's cluster; 0 where a label has too few different images to split.

    Args:
        features: of all images.
        labels: by which they are split.
        components: principal ones that are kept.
        seed: of the first centres.

    Example:
        >>> features = torch.tensor([[0.0], [0.1], [0.2], [9.0]])
        >>> clustering_scores(features, torch.tensor([0, 0, 0, 0])).tolist()
        [0.25, 0.25, 0.25, 0.75]
    """
    from sklearn.cluster import KMeans

    found = torch.zeros(len(features))
    for label in labels.unique():
        mine = labels == label
        centred = (features[mine] - features[mine].mean(0)).double()
        if len(centred.unique(dim=0)) < 2:
            continue
        axes = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -components:]
        clusters = KMeans(2, random_state=seed).fit_predict((centred @ axes).numpy())
        second = float(clusters.mean())
        found[mine] = torch.where(torch.as_tensor(clusters) == 1, 1 - second, second).float()
    return found
