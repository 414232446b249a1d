"""Gradient reversal: nothing forward, the gradient with its sign turned backward; and how strongly, over a training.

Ganin, Lempitsky: Unsupervised Domain Adaptation by Backpropagation, ICML 2015, equations 13 to 15. A domain classifier
behind it learns to tell domains apart; the features before it learn that it cannot.
Departs from the paper: nothing known.
"""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None]:
        return -ctx.scale * gradients[0], None


def reverse_gradient(features: Float[Tensor, "*shape"], scale: float = 1.0) -> Float[Tensor, "*shape"]:
    """The same values, whose gradient comes back times minus `scale`.

    Args:
        features: any.
        scale: 0 lets no gradient through.

    Example:
        >>> one = torch.tensor([3.0], requires_grad=True)
        >>> (2 * reverse_gradient(one, 0.5)).backward()
        >>> one.grad
        tensor([-1.])
    """
    reversed_one: Tensor = _Reversal.apply(features, scale)  # pyright: ignore[reportAssignmentType]
    return reversed_one


def ramp(progress: float, steepness: float = 10.0) -> float:
    """How strongly to adapt at a point of the training: 2 / (1 + exp(-steepness progress)) - 1.

    Args:
        progress: 0 at the start of the training, 1 at its end.
        steepness: above 0.

    Returns:
        0 at the start, nearly 1 at the end.

    Example:
        >>> [round(ramp(progress), 3) for progress in (0.0, 0.1, 1.0)]
        [0.0, 0.462, 1.0]
    """
    return 2 / (1 + math.exp(-steepness * progress)) - 1
