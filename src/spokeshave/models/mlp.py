"""Multilayer perceptron, by default the SSL paper's 784-500-300-10 for MNIST (Wen et al., NIPS 2016, figure 4).

Departs from the paper: nothing known.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn


class MLP(nn.Module):
    """Linear layers `ip1`, `ip2`, ... with ReLU between them.

    Args:
        widths: inputs, hidden layers and outputs.

    Example:
        >>> MLP((784, 500, 300, 10))(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """

    def __init__(self, widths: Sequence[int] = (784, 500, 300, 10)) -> None:
        super().__init__()
        self.depth = len(widths) - 1
        for index, (inputs, outputs) in enumerate(pairwise(widths), start=1):
            layer = nn.Linear(inputs, outputs)
            nn.init.kaiming_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
            self.add_module(f"ip{index}", layer)

    def forward(self, images: Float[Tensor, "batch *rest"]) -> Float[Tensor, "batch classes"]:
        """Class scores (logits); an image is flattened."""
        features = torch.flatten(images, 1)
        for index in range(1, self.depth + 1):
            features = self.get_submodule(f"ip{index}")(features)
            if index < self.depth:
                features = torch.relu(features)
        return features
