"""Squeezed linear layer: reads only the input features that some weight uses.

The first layer of an SSL multilayer perceptron ignores many pixels (Wen et al., NIPS 2016, Table 2 MLP: 784 -> 434
inputs), which nothing upstream can remove: they are picked with one index before a smaller product.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


class SqueezedLinear(nn.Linear):
    """A linear layer over selected input features.

    Args:
        layer: the layer to squeeze; it is not modified.
        features: mask (in_features,) of features to read, at least one True.

    Example:
        >>> dense = nn.Linear(4, 2)
        >>> SqueezedLinear(dense, np.array([True, False, True, False])).weight.shape
        torch.Size([2, 2])
    """

    traced_as_leaf = True

    def __init__(self, layer: nn.Linear, features: NDArray[np.bool_]) -> None:
        with torch.random.fork_rng(devices=[]):
            super().__init__(
                int(features.sum()),
                layer.out_features,
                bias=False,
                device=layer.weight.device,
                dtype=layer.weight.dtype,
            )
        places = torch.from_numpy(np.flatnonzero(features)).to(layer.weight.device)
        weight = layer.weight.detach().index_select(1, places)
        self.weight = nn.Parameter(weight, requires_grad=layer.weight.requires_grad)
        bias = layer.bias
        if bias is not None:
            self.bias = nn.Parameter(bias.detach().clone(), requires_grad=bias.requires_grad)
        self.register_buffer("features", places)
        self.features: Tensor

    def forward(self, input: Tensor) -> Tensor:
        """Apply the layer.

        Args:
            input: (..., features of the layer before squeezing).

        Returns:
            (..., out_features).
        """
        return nn.functional.linear(input.index_select(-1, self.features), self.weight, self.bias)
