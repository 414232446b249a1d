"""How sparse the layers of a model are: the share of exact zeros, by weight and by group.

What the SSL authors print while training (Wen et al., NIPS 2016, released code): element, row and column sparsity.
Departs from the paper: shares are 0..1, not percent; channels are counted too.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spokeshave.structures.groups import CONVOLUTIONS, Grouping, GroupKind


@dataclass(frozen=True)
class LayerSparsity:
    """Shares of exact zeros of one layer, each in 0..1.

    Attributes:
        elements: of single weights.
        filters: of filters (rows of the lowered matrix) that are all zero.
        channels: of input channels that are all zero, inside each convolution group.
        shapes: of filter shapes (columns of the lowered matrix) that are all zero.
    """

    elements: float
    filters: float
    channels: float
    shapes: float


def layer_sparsity(module: nn.Module) -> LayerSparsity:
    """Sparsity of a convolution or a linear layer.

    Args:
        module: the layer; its weight is looked at, not its bias.

    Raises:
        InvalidArgument: for another module.

    Example:
        >>> layer = nn.Linear(4, 2, bias=False)
        >>> _ = layer.weight.data.copy_(torch.tensor([[0.0, 0, 0, 0], [1, 0, 1, 1]]))
        >>> layer_sparsity(layer)
        LayerSparsity(elements=0.625, filters=0.5, channels=0.25, shapes=0.25)
    """
    with torch.no_grad():
        weight = module.weight
        assert isinstance(weight, Tensor)
        shares = [
            Grouping.of(module, kind).zero(weight).double().mean().item()
            for kind in (GroupKind.FILTER, GroupKind.CHANNEL, GroupKind.SHAPE)
        ]
        return LayerSparsity((weight == 0).double().mean().item(), *shares)


def sparsity(model: nn.Module) -> dict[str, LayerSparsity]:
    """Sparsity of every convolution and linear layer, by the layer's name in the model."""
    layers = {name: module for name, module in model.named_modules() if isinstance(module, (*CONVOLUTIONS, nn.Linear))}
    return {name: layer_sparsity(module) for name, module in layers.items()}
