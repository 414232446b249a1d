"""Domain classifier: tells source features from target features, behind a reversed gradient.

Ganin et al.: Domain-Adversarial Training of Neural Networks, JMLR 2016, equations 9 and 10.
Departs from the paper: nothing known.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class DomainClassifier(nn.Module):
    """Two hidden layers with ReLU, and one score: above 0 for the source.

    Args:
        features: that it is fed.
        hidden: neurons of each hidden layer.

    Example:
        >>> DomainClassifier(3)(torch.zeros(2, 3)).shape
        torch.Size([2])
    """

    def __init__(self, features: int, hidden: int = 256) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1)
        )

    def forward(self, features: Float[Tensor, "b features"]) -> Float[Tensor, " b"]:
        """The logarithm of the odds that a row is of the source."""
        return self.layers(features).squeeze(1)


def domain_loss(source: Float[Tensor, " n"], target: Float[Tensor, " m"]) -> Float[Tensor, ""]:
    """The mean cross entropy of both domains, in nats, each domain for one half.

    Args:
        source: scores of source images, above 0 where they are taken for such.
        target: scores of target images.

    Returns:
        log 2 = 0.69 where the classifier cannot tell them apart, or has learned nothing.

    Example:
        >>> round(float(domain_loss(torch.zeros(2), torch.zeros(4))), 3)
        0.693
    """
    right = functional.binary_cross_entropy_with_logits(source, torch.ones_like(source))
    return (right + functional.binary_cross_entropy_with_logits(target, torch.zeros_like(target))) / 2


def domain_accuracy(source: Float[Tensor, " n"], target: Float[Tensor, " m"]) -> float:
    """The mean share of right answers of both domains, 0..1; a score of 0 counts half.

    Args:
        source: scores of source images.
        target: scores of target images.

    Example:
        >>> domain_accuracy(torch.tensor([2.0, 1.0]), torch.tensor([1.0, -1.0]))
        0.75
    """
    return sum(float((sign * scores.detach().sign() + 1).mean()) / 4 for sign, scores in ((1, source), (-1, target)))
