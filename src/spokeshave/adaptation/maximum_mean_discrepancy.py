"""Maximum mean discrepancy: how far two sets of features are apart, by the means that kernels give them.

Gretton et al.: A Kernel Two-Sample Test, JMLR 2012, equations 3 (unbiased) and 5 (biased); a mean of Gaussian kernels
of several widths as in Long et al.: Learning Transferable Features with Deep Adaptation Networks, ICML 2015.
Departs from the paper: widths are powers of two times the mean squared distance in the two batches, and weigh alike;
DAN learns their weights. The mean leaves out the zero distances of features from themselves.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from spokeshave.errors import InvalidArgument

WIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Of the kernels, in mean squared distances."""


def squared_mmd(
    source: Float[Tensor, "n features"],
    target: Float[Tensor, "m features"],
    widths: Sequence[float] = WIDTHS,
    unbiased: bool = False,
) -> Float[Tensor, ""]:
    """The squared maximum mean discrepancy between two batches.

    Args:
        source: features of one domain, at least one row, two if unbiased.
        target: features of the other, likewise.
        widths: of the Gaussian kernels exp(-d^2 / (width s)), s the mean squared distance in both batches together;
            no gradient passes through s.
        unbiased: leave out kernels of a row with itself. The result may then be below 0.

    Returns:
        At least 0 where biased; 0 where both batches are the same.

    Raises:
        InvalidArgument: for other shapes, or too few rows.

    Example:
        >>> a = torch.tensor([[0.0], [2.0]])
        >>> float(squared_mmd(a, a)), squared_mmd(a, a + 100) > 0.5
        (0.0, tensor(True))
    """
    least = 2 if unbiased else 1
    if source.dim() != 2 or target.dim() != 2 or source.shape[1] != target.shape[1]:
        raise InvalidArgument(
            f"features: expected (n, features) and (m, features), got {tuple(source.shape)} and {tuple(target.shape)}"
        )
    if min(len(source), len(target)) < least:
        raise InvalidArgument(f"features: expected at least {least} of each domain, got {len(source)}, {len(target)}")
    both = torch.cat([source, target])
    # By products of rows, which is fast; about their mean, so that little is lost where all lie far from zero.
    centred = both - both.mean(0)
    squares = centred.square().sum(1)
    distances = (squares[:, None] + squares[None] - 2 * centred @ centred.T).clamp(min=0)
    distances = distances * (1 - torch.eye(len(both), dtype=both.dtype, device=both.device))
    count = len(both)
    scale = distances.detach().sum() / max(1, count * (count - 1))
    scale = scale.clamp(min=torch.finfo(scale.dtype).tiny)
    kernel = torch.stack([torch.exp(-distances / (width * scale)) for width in widths]).mean(0)
    n = len(source)
    within = _mean(kernel[:n, :n], unbiased) + _mean(kernel[n:, n:], unbiased)
    return within - 2 * kernel[:n, n:].mean()


def _mean(kernel: Tensor, unbiased: bool) -> Tensor:
    if not unbiased:
        return kernel.mean()
    rows = len(kernel)
    return (kernel.sum() - kernel.diagonal().sum()) / (rows * (rows - 1))
