"""Forms in which recipe `adaptation` adapts a network: as it is, or compressed first by the rewrites of this package.

Compression comes before the adaptation: the target is seen by the network that will run there.
"""

import copy
from enum import Enum

import torch
from torch import Tensor, nn

from spokeshave.adaptation.feature_layer import first_layer, last_layer
from spokeshave.regularizers import Freeze, Frozen, Regularizer
from spokeshave.rewrites import low_rank, prune, shrink, to_sparse
from spokeshave.structures.groups import CONVOLUTIONS

FILTERS, ZEROS, ERROR = 0.3, 0.7, 0.3
"""Shares: of filters that go, of single weights that become zero, of the squared norm that a factorized layer loses."""


class Form(Enum):
    """What is adapted."""

    DENSE = "dense"
    SHRUNK = "shrunk"
    """Without the filters of the smallest norms."""
    LOW_RANK = "low-rank"
    """Layers as products of two thinner ones."""
    SPARSE = "sparse"
    """The smallest weights of all layers but the first and the last zero, and kept so; run by `to_sparse`."""


SAME_LAYERS = (Form.DENSE, Form.SPARSE)
"""Forms whose weights fit the network as it is made; of the others a file must carry the layers."""


def formed(network: nn.Module, form: Form, example: Tensor) -> tuple[nn.Module, list[Regularizer]]:
    """Compress a network.

    Args:
        network: gives logits; left as it is. Its last layer is spared: a new one has no weights worth choosing by.
        form: that it gets.
        example: a batch that it takes.

    Returns:
        The network in its form, and what keeps it there while it is trained.
    """
    if form is Form.DENSE:
        return network, []
    if form is Form.SHRUNK:
        return shrink(without_small_filters(network, FILTERS, example), example)[0], []
    last = last_layer(network, example)
    if form is Form.LOW_RANK:
        return low_rank(network, example, max_error=ERROR, exclude=(last,))[0], []
    layers = [name for name, layer in network.named_modules() if isinstance(layer, (*CONVOLUTIONS, nn.Linear))]
    # Ranked with the others, the few wide kernels that read the image would lose nearly all, and with them colours.
    ends = {first_layer(network, example), last}
    chosen = [name for name in layers if name not in ends] or [name for name in layers if name != last]
    pruned, _ = prune(network, dict.fromkeys(chosen, ZEROS))
    return pruned, held_in(pruned, form)


def held_in(network: nn.Module, form: Form) -> list[Regularizer]:
    """What keeps a network in the form that it has, while it is trained."""
    return [Freeze(network, Frozen.ELEMENTS)] if form is Form.SPARSE else []


def strength_of(form: Form) -> float:
    """The share that a form is made by; 0 for the dense one."""
    return {Form.DENSE: 0.0, Form.SHRUNK: FILTERS, Form.LOW_RANK: ERROR, Form.SPARSE: ZEROS}[form]


def deployed(network: nn.Module, form: Form, example: Tensor) -> nn.Module:
    """The network as it is run after its training: sparse ones as generated code.

    Args:
        network: trained.
        form: that it has.
        example: a batch that it takes.
    """
    return to_sparse(network, example)[0] if form is Form.SPARSE else network


@torch.no_grad()
def without_small_filters(network: nn.Module, share: float, example: Tensor) -> nn.Module:
    """A copy in which the filters of the smallest norms of each convolution are zero, for `shrink` to take out.

    Args:
        network: left as it is; its last layer, which has a filter for each class, is spared.
        share: of the filters of a convolution, 0..1; at least one stays.
        example: a batch that the network takes.
    """
    copied = copy.deepcopy(network)
    last = last_layer(copied, example)
    for name, layer in copied.named_modules():
        if name == last or not isinstance(layer, (*CONVOLUTIONS, nn.ConvTranspose2d)):
            continue
        weight = layer.weight.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else layer.weight
        count = min(len(weight) - 1, round(share * len(weight)))
        small = weight.flatten(1).norm(dim=1).argsort()[:count]
        weight[small] = 0
        if layer.bias is not None:
            layer.bias[small] = 0
    return copied
