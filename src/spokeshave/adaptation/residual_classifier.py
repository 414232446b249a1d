"""Residual classifier: source scores as target scores plus a small correction that is learned.

Long, Zhu, Wang, Jordan: Unsupervised Domain Adaptation with Residual Transfer Networks, NIPS 2016, equation 3:
f_S(x) = f_T(x) + df(f_T(x)). Source labels teach f_S, the entropy of target images acts on f_T, which also answers.
Departs from the paper: nothing known.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class ResidualClassifier(nn.Module):
    """The correction df: two linear layers with ReLU between them, zero at the start.

    Args:
        classes: number of scores.
        hidden: neurons between the layers.

    Example:
        >>> torch.equal(ResidualClassifier(3)(torch.ones(2, 3)), torch.ones(2, 3))
        True
    """

    def __init__(self, classes: int, hidden: int = 64) -> None:
        super().__init__()
        self.first = nn.Linear(classes, hidden)
        self.second = nn.Linear(hidden, classes)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, scores: Float[Tensor, "b classes"]) -> Float[Tensor, "b classes"]:
        """Source scores (logits) of target scores."""
        return scores + self.second(torch.relu(self.first(scores)))
