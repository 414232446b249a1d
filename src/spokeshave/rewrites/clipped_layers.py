"""Clipped layers: which layers of a network rank clipping makes into products, with the numbers of each.

Wang, Wen et al., Group Scissor, DAC 2017: all layers but the classifier.
Departs from the paper: layers, errors and least ranks may be given by patterns on names.
"""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatch

from torch import nn

from spokeshave.errors import InvalidArgument, UnsupportedLayer
from spokeshave.rewrites.splittable_layers import by_pattern, obstacle, owners_of
from spokeshave.structures.factorization import Basis
from spokeshave.structures.factorized_layer import CONVOLUTIONS, FactorizedLayer


def known_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Convolutions, linear layers and products of a model, by name; the factors of products are not layers here."""
    inside = {
        id(part) for m in model.modules() if isinstance(m, FactorizedLayer) for part in m.modules() if part is not m
    }
    return {
        name: module
        for name, module in model.named_modules()
        if type(module) in (*CONVOLUTIONS, nn.Linear, FactorizedLayer) and id(module) not in inside
    }


def clipped_layers(model: nn.Module, layers: Sequence[str] | None, exclude: Sequence[str]) -> dict[str, nn.Module]:
    """Convolutions, linear layers and products that are to be clipped, by name.

    Args:
        model: left as it is.
        layers: patterns of names; None is every one but the last linear layer.
        exclude: patterns of those to leave whole.

    Raises:
        InvalidArgument: for a pattern that no layer matches, or no layer left.
        UnsupportedLayer: for a layer that cannot become a product; the message says why.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Linear(3, 4), nn.Linear(4, 2))
        >>> list(clipped_layers(net, None, ()))
        ['0', '1']
    """
    known = known_layers(model)
    for pattern in (*(layers or ()), *exclude):
        if not any(fnmatch(name, pattern) for name in known):
            raise InvalidArgument(f"no layer is named {pattern!r}; the model has {', '.join(known) or 'none'}")
    linear = [name for name, module in known.items() if isinstance(module, nn.Linear)]
    usual = {name for name in known if name not in linear[-1:]}
    named = {name for name in known if any(fnmatch(name, pattern) for pattern in layers)} if layers else usual
    found = {
        name: module
        for name, module in known.items()
        if name in named and not any(fnmatch(name, pattern) for pattern in exclude)
    }
    if not found or "" in found:
        raise InvalidArgument(
            f"nothing to clip: the model has {', '.join(known) or 'no convolution and no linear layer'}; the last "
            "linear layer is left whole unless it is named, and a layer must be inside a model to be replaced"
        )
    owners = owners_of(model)
    for name, module in found.items():
        why = _why_not(module, owners)
        if why:
            raise UnsupportedLayer(
                f"{name} ({type(module).__name__}): {why}, so it cannot become a product that is trained; leave it "
                f"out with exclude=({name!r},)"
            )
    return found


def full_rank(name: str, module: nn.Module) -> FactorizedLayer:
    """A layer as a product of full rank, with the layer's own bias, so that an optimizer need not be told of that."""
    weight = module.get_parameter("weight")
    rank = min(weight.shape[0] // getattr(module, "groups", 1), weight[0].numel())
    product = FactorizedLayer.of(name, module, rank, Basis.PCA)
    if module.bias is not None:
        product.combination.register_parameter("bias", module.get_parameter("bias"))
    return product


def errors_of(max_error: float | Mapping[str, float], layers: Sequence[str], known: Sequence[str]) -> dict[str, float]:
    """The error that each layer may lose at a clip.

    Args:
        max_error: of all layers, or by pattern.
        layers: names of those that are clipped.
        known: names of all layers, which a pattern must match one of.

    Raises:
        InvalidArgument: for an error outside its range, a layer without one, or a pattern that no layer matches.
    """
    patterns = max_error if isinstance(max_error, Mapping) else {"*": max_error}
    errors = by_pattern("max_error", known, patterns)
    for name in layers:
        if name not in errors or not 0 <= errors[name] < 1:
            raise InvalidArgument(
                f"max_error of {name}: expected a share of the squared norm, at least 0 and below 1, got "
                f"{errors.get(name)}"
            )
    return {name: errors[name] for name in layers}


def least_of(least: int | Mapping[str, int], layers: Sequence[str], known: Sequence[str]) -> dict[str, int]:
    """The rank that each layer keeps; 1 where no pattern matches. Arguments as for `errors_of`.

    Raises:
        InvalidArgument: for a rank that is no whole number of at least 1, or a pattern that no layer matches.
    """
    patterns = least if isinstance(least, Mapping) else {"*": least}
    ranks = dict.fromkeys(known, 1) | by_pattern("least", known, patterns)
    for name in layers:
        rank = ranks[name]
        if not isinstance(rank, int) or rank < 1:
            raise InvalidArgument(f"least of {name}: expected a whole number of at least 1, got {rank}")
    return {name: ranks[name] for name in layers}


def _why_not(module: nn.Module, owners: Mapping[int, set[int]]) -> str:
    if not isinstance(module, FactorizedLayer):
        frozen = not module.get_parameter("weight").requires_grad if "weight" in module._parameters else False
        return obstacle(module, (*CONVOLUTIONS, nn.Linear), owners) or ("its weight is frozen" if frozen else "")
    if not isinstance(module.basis, (*CONVOLUTIONS, nn.Linear)):
        return "it is a transposed convolution"
    parts = (module.basis, module.combination)
    if not all(part.get_parameter("weight").requires_grad for part in parts):
        return "its weights are frozen"
    return next(filter(None, (obstacle(part, None, owners) for part in parts)), "")
