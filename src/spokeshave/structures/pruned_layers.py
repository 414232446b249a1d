"""Pruned layers: which convolutions and linear layers lose single weights, each with a number of its own.

Park et al., ICLR 2017, section 2.3 give every layer a multiplier of its regularization; 0 leaves it alone.
Departs from the paper: multipliers are given by a pattern on the layer's name, not layer by layer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch

from torch import Tensor, nn
from torch.optim import Optimizer

from spokeshave.errors import InvalidArgument
from spokeshave.structures.groups import CONVOLUTIONS, plain_weight

Multipliers = float | Mapping[str, float]
"""One number for all layers, or numbers by a pattern on the layer's name; the last pattern that matches counts."""


@dataclass(frozen=True)
class PrunedLayer:
    """One layer.

    Attributes:
        name: in the model.
        module: the layer.
        multiplier: its number.
    """

    name: str
    module: nn.Module
    multiplier: float

    @property
    def weight(self) -> Tensor:
        """The weight as it is now."""
        return self.module.get_parameter("weight")


def pruned_layers(model: nn.Module, multipliers: Multipliers, most: float = float("inf")) -> list[PrunedLayer]:
    """Layers with a multiplier above 0; a weight tied between layers is taken once.

    Args:
        model: its convolutions and linear layers are looked at.
        multipliers: for all layers, or by pattern; layers that no pattern matches are left alone.
        most: largest multiplier allowed.

    Raises:
        InvalidArgument: for a multiplier outside 0..most, a pattern that no layer matches, or no layer left.
        UnsupportedLayer: for a layer whose weight is computed by a parametrization.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 2))
        >>> [layer.name for layer in pruned_layers(net, {"*": 1.0, "2": 0.0})]
        ['0']
    """
    layers = {n: m for n, m in model.named_modules() if isinstance(m, (*CONVOLUTIONS, nn.Linear))}
    chosen: dict[str, float] = {}
    for pattern, value in (multipliers if isinstance(multipliers, Mapping) else {"*": multipliers}).items():
        if not isinstance(value, int | float) or not 0 <= value <= most or value == float("inf"):
            raise InvalidArgument(f"layer {pattern!r}: expected a number of 0..{most}, got {value}")
        matching = [name for name in layers if fnmatch(name, pattern)]
        if layers and not matching:
            raise InvalidArgument(f"no layer is named {pattern!r}; the model has {', '.join(layers)}")
        chosen.update(dict.fromkeys(matching, float(value)))
    found: dict[int, PrunedLayer] = {}
    for name, value in chosen.items():
        if value:
            found.setdefault(id(plain_weight(name, layers[name])), PrunedLayer(name, layers[name], value))
    if not found:
        raise InvalidArgument(
            f"nothing to prune: the model has {len(layers)} convolutions and linear layers, and the multipliers "
            f"{multipliers} leave none of them"
        )
    return list(found.values())


def held_by(optimizer: Optimizer, layers: Sequence[PrunedLayer]) -> list[PrunedLayer]:
    """The layers whose weights an optimizer holds and may move: those that require a gradient.

    Raises:
        InvalidArgument: where it holds none.
    """
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    mine = [layer for layer in layers if id(layer.weight) in held and layer.weight.requires_grad]
    if not mine:
        raise InvalidArgument(
            "the optimizer holds none of the pruned weights, or those are frozen: make it from the same model, after "
            "moving that model to its device"
        )
    return mine
