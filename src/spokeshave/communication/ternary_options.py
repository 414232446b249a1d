"""Ternary options: how gradients are made ternary, and which parameters' are; hook and virtual workers share it.

TernGrad, Wen et al., NIPS 2017: clipping at c * sigma with c = 2.5, a scaler a layer, the maximum over the workers
(eq. 4); the last layer stays in floating point for AlexNet (`skip_last_layer`), not for MNIST and CIFAR-10.
Departs from the paper: tensors of fewer than `min_numel` elements travel as floats by default: a bias costs little and
is often not spread around zero. A "layer" is a parameter tensor, as in the authors' code: a bias has its own scaler.
"""

import math
from dataclasses import dataclass
from enum import Enum
from typing import Any

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from spokeshave.communication.ternary_codes import Deviation
from spokeshave.communication.wire_bytes import GradientSize
from spokeshave.errors import InvalidArgument


class Granularity(Enum):
    """What shares a scaler: a layer, that is a parameter tensor, or all layers of a bucket of DDP."""

    LAYER = "layer"
    BUCKET = "bucket"


@dataclass(frozen=True)
class TernaryOptions:
    """How gradients become codes; the same on every worker.

    Attributes:
        clip_factor: c of the clipping at c * sigma, positive; None for none.
        deviation: sigma about what.
        granularity: what has a scaler of its own.
        share_scaler: all workers take the largest scaler, so that their codes can be added as integers; else each its
            own.
        min_numel: parameters of fewer elements travel as floats; 1 or less for none.
        skip: names of parameters, or of modules with all that is in them, whose gradients travel as floats.
        skip_last_layer: the same for the last module, in the order of `model.modules()`, that has a weight.
        seed: of the random numbers.

    Raises:
        InvalidArgument: for a factor that is not positive and finite, or a name that is empty.

    Example:
        >>> TernaryOptions(clip_factor=None, skip=("fc10",)).skip
        ('fc10',)
    """

    clip_factor: float | None = 2.5
    deviation: Deviation = Deviation.ABOUT_ZERO
    granularity: Granularity = Granularity.LAYER
    share_scaler: bool = True
    min_numel: int = 1024
    skip: tuple[str, ...] = ()
    skip_last_layer: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        factor = self.clip_factor
        if factor is not None and not (math.isfinite(factor) and factor > 0):
            raise InvalidArgument(f"clip_factor must be positive and finite, or None for no clipping, got {factor}")
        if isinstance(self.skip, str) or not all(self.skip):
            raise InvalidArgument(f"skip must hold names of parameters or modules, got {self.skip!r}")

    def to_dict(self) -> dict[str, Any]:
        """Options as JSON values."""
        options = {key: value.value if isinstance(value, Enum) else value for key, value in vars(self).items()}
        return options | {"skip": list(self.skip)}


def compressed_parameters(model: nn.Module, options: TernaryOptions) -> dict[str, bool]:
    """Say which parameters' gradients become ternary.

    Args:
        model: the bare one, not wrapped for several processes.
        options: what is skipped.

    Returns:
        name -> whether, for all parameters in the order of `model.named_parameters()`; the number of a parameter in
        the random streams is its place here. Frozen ones are sorted too: they may be trained later.

    Raises:
        InvalidArgument: where `skip` names no parameter, and no module with one; the message names the modules.

    Example:
        >>> model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 32))
        >>> compressed_parameters(model, TernaryOptions(skip=("2",)))
        {'0.weight': True, '0.bias': False, '2.weight': False, '2.bias': False}
    """
    names = list(model.named_parameters(remove_duplicate=False))  # a tied one goes by all of its names
    parts = set(options.skip)
    if options.skip_last_layer:
        weighted = [name for name, module in model.named_modules(remove_duplicate=False) if _has_weight(module)]
        if not weighted:
            raise InvalidArgument("skip_last_layer: no module of the model has a parameter called weight")
        parts.add(weighted[-1])
    skipped: set[int] = set()
    for part in sorted(parts):
        # A model that is one layer has the empty name, a prefix of all its parameters.
        found = {id(one) for name, one in names if not part or name == part or name.startswith(f"{part}.")}
        if not found:
            modules = sorted(
                name for name, module in model.named_modules() if name and next(module.parameters(), None) is not None
            )
            raise InvalidArgument(
                f"skip: no parameter or module of the model is called {part}; its modules are {', '.join(modules)}"
            )
        skipped |= found
    return {
        name: parameter.numel() >= options.min_numel and id(parameter) not in skipped
        for name, parameter in model.named_parameters()
    }


def gradient_size(model: nn.Module, options: TernaryOptions) -> GradientSize:
    """Elements of a model's gradient that become codes, and of those that do not.

    Args:
        model: the bare one.
        options: what is skipped.

    Example:
        >>> gradient_size(nn.Linear(64, 32), TernaryOptions())
        GradientSize(ternary=2048, floats=32, layers=1)
    """
    compressed = compressed_parameters(model, options)
    sizes = {name: one.numel() for name, one in model.named_parameters() if one.requires_grad}
    codes = sum(count for name, count in sizes.items() if compressed[name])
    return GradientSize(codes, sum(sizes.values()) - codes, sum(compressed[name] for name in sizes))


def _has_weight(module: nn.Module) -> bool:
    return isinstance(getattr(module, "weight", None), nn.Parameter) or is_parametrized(module, "weight")
