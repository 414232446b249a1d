"""Baselines on fixed features: nearest neighbour, linear support vectors, and correlation alignment before either.

Sun, Feng, Saenko: Return of Frustratingly Easy Domain Adaptation, AAAI 2016, algorithm 1: source features are whitened
and coloured with the target's covariance.
Departs from the paper: nothing known.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from spokeshave.errors import InvalidArgument


def nearest_neighbour(
    source: Float[Tensor, "n features"], labels: Int64[Tensor, " n"], target: Float[Tensor, "m features"]
) -> Int64[Tensor, " m"]:
    """The label of the nearest source row by Euclidean distance, of equally near ones the first.

    Args:
        source: labelled rows, at least one.
        labels: of these.
        target: rows to answer for.

    Example:
        >>> nearest_neighbour(torch.tensor([[0.0], [9.0]]), torch.tensor([4, 7]), torch.tensor([[1.0], [8.0]])).tolist()
        [4, 7]
    """
    if not len(source):
        raise InvalidArgument("source: expected at least one row, got none")
    return labels[torch.cdist(target.double(), source.double()).argmin(1)]


def linear_svm(
    source: Float[Tensor, "n features"],
    labels: Int64[Tensor, " n"],
    target: Float[Tensor, "m features"],
    cost: float = 1.0,
) -> Int64[Tensor, " m"]:
    """Answers of a linear support vector machine, one class against the rest.

    Args:
        source: labelled rows of at least two classes.
        labels: of these.
        target: rows to answer for.
        cost: of errors, above 0.
    """
    from sklearn.svm import LinearSVC

    model = LinearSVC(C=cost, random_state=0, max_iter=20000)
    model.fit(source.double().numpy(), labels.numpy())
    return torch.from_numpy(model.predict(target.double().numpy()))


def correlation_aligned(
    source: Float[Tensor, "n features"], target: Float[Tensor, "m features"], ridge: float = 1.0
) -> Float[Tensor, "n features"]:
    """Source rows with the target's covariance: whitened by their own, then coloured.

    Args:
        source: at least two rows.
        target: at least two rows.
        ridge: added to the diagonals of both covariances, above 0.

    Raises:
        InvalidArgument: for too few rows.
    """
    if min(len(source), len(target)) < 2:
        raise InvalidArgument(f"a covariance takes two rows or more, got {len(source)} and {len(target)}")
    whitening, colouring = (
        _power(torch.cov(rows.double().T) + ridge * torch.eye(rows.shape[1], dtype=torch.float64), exponent)
        for rows, exponent in ((source, -0.5), (target, 0.5))
    )
    return (source.double() @ whitening @ colouring).to(source.dtype)


def _power(matrix: Tensor, exponent: float) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=torch.finfo(values.dtype).tiny) ** exponent) @ vectors.T
