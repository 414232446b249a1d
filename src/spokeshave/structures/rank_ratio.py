"""Rank ratio: the share of its full rank that each layer of a network needs at an error.

Wen et al., Coordinating Filters, ICCV 2017, section 4: the ranks at an error of at most 5 % of the squared norm, over
the numbers of filters, layer by layer and as a mean.
Departs from the paper: a layer with more filters than weights a filter is counted against the latter, its true full
rank; layers of full rank 1 (depthwise) are not counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from statistics import mean

from torch import nn

from spokeshave.errors import InvalidArgument
from spokeshave.structures.groups import CONVOLUTIONS
from spokeshave.structures.layer_spectrum import full_rank, layer_energies
from spokeshave.structures.spectrum import rank_for_error


@dataclass(frozen=True)
class RankRatio:
    """Ranks of a network at one error.

    Attributes:
        max_error: share of the squared norm that may be left out of each layer.
        ranks: layer -> the rank that it needs, of each group.
        full: layer -> its full rank.
    """

    max_error: float
    ranks: dict[str, int]
    full: dict[str, int]

    @property
    def ratios(self) -> dict[str, float]:
        """Layer -> rank over full rank, above 0, at most 1."""
        return {name: rank / self.full[name] for name, rank in self.ranks.items()}

    @property
    def mean(self) -> float:
        """Mean of the ratios of all layers, above 0, at most 1."""
        return mean(self.ratios.values())


def rank_ratio(model: nn.Module, max_error: float = 0.05, *, exclude: Sequence[str] = ()) -> RankRatio:
    """Ranks that the convolutions and linear layers of a network need.

    Args:
        model: any module; it is not modified.
        max_error: share of the squared norm that may be left out of each layer, 0..1.
        exclude: patterns (`fnmatch`) on names of layers that do not count.

    Returns:
        The ranks, by layer in the model's order, and their mean ratio.

    Raises:
        InvalidArgument: for an error outside 0..1, a pattern that matches nothing, no layer left, or weights that are
            not finite.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Linear(3, 2, bias=False))
        >>> _ = net[0].weight.data.copy_(torch.tensor([[3.0, 0.0, 0.0], [0.0, 0.5, 0.0]]))
        >>> rank_ratio(net).mean  # 0.25 of 9.25 is left out
        0.5
    """
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, (*CONVOLUTIONS, nn.Linear)) and module._parameters.get("weight") is not None
    }
    for pattern in exclude:
        if not any(fnmatch(name, pattern) for name in layers):
            raise InvalidArgument(f"exclude: no layer is named {pattern!r}; the model has {', '.join(layers)}")
    ranks: dict[str, int] = {}
    full: dict[str, int] = {}
    for name, module in layers.items():
        most = full_rank(module)
        if most > 1 and not any(fnmatch(name, pattern) for pattern in exclude):
            ranks[name] = rank_for_error(layer_energies(name, module), max_error)
            full[name] = most
    if not ranks:
        raise InvalidArgument("no convolution or linear layer of a rank above 1 is left")
    return RankRatio(max_error, ranks, full)
