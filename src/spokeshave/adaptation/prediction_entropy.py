"""Entropy of predictions: low where a classifier is sure of each image; and how evenly it spreads them over classes.

Grandvalet, Bengio: Semi-supervised Learning by Entropy Minimization, NIPS 2004; for domains: Long et al., Unsupervised
Domain Adaptation with Residual Transfer Networks, NIPS 2016, equation 6. The second half, entropy of the mean
prediction, from Krause, Perona, Gomes: Discriminative Clustering by Regularized Information Maximization, NIPS 2010:
without it all images may end in one class.
Departs from the paper: nothing known.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def mean_entropy(logits: Float[Tensor, "n classes"]) -> Float[Tensor, ""]:
    """The mean over images of the entropy of a prediction, in nats: 0..log(classes).

    Args:
        logits: of at least one image.

    Example:
        >>> round(float(mean_entropy(torch.zeros(3, 2))), 4)  # log 2
        0.6931
    """
    logarithms = torch.log_softmax(logits, 1)
    return -(logarithms.exp() * logarithms).sum(1).mean()


def entropy_of_mean(logits: Float[Tensor, "n classes"]) -> Float[Tensor, ""]:
    """The entropy of the mean prediction, in nats: log(classes) where classes are equally frequent.

    Args:
        logits: of at least one image.

    Example:
        >>> round(float(entropy_of_mean(torch.tensor([[50.0, 0.0], [0.0, 50.0]]))), 4)  # log 2
        0.6931
    """
    logarithms = torch.log_softmax(logits, 1)
    # The logarithm of the mean, without a probability that rounds to 0.
    mean = torch.logsumexp(logarithms, 0) - torch.log(logits.new_tensor(float(len(logits))))
    return -(mean.exp() * mean).sum()
