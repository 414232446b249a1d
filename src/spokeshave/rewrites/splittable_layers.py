"""Splittable layers: which layers of a network may be split in two without changing what else it computes, and why not.

A layer stays whole where its weight is somebody else's too (tied, parametrized, read by code outside the layer) or its
class may compute something of its own. Attention gets its projections as layers first.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import TypeVar

from torch import nn
from torch.nn.utils import parametrize

from spokeshave.errors import InvalidArgument
from spokeshave.structures.groups import CONVOLUTIONS
from spokeshave.structures.layer_calls import LayerCalls, layer_calls
from spokeshave.structures.projected_attention import PROJECTIONS, ProjectedAttention

_Value = TypeVar("_Value")


@dataclass
class SplittableLayer:
    """One convolution, linear layer, or attention that was left as it was.

    Attributes:
        name: in the model; `NAME.q_proj` and so on for the projections of an attention.
        module: the layer.
        seen: its calls in the run on the example.
        why_whole: what speaks against splitting it, '' where nothing does.
    """

    name: str
    module: nn.Module
    seen: LayerCalls
    why_whole: str = ""


def put_in_place(model: nn.Module, replaced: Mapping[nn.Module, nn.Module]) -> nn.Module:
    """The model with some modules exchanged wherever they are used; the model itself may be one of them.

    Args:
        model: changed in place.
        replaced: module -> what stands for it.
    """
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if child is not None and child in replaced:
                parent._modules[name] = replaced[child]
    return replaced.get(model, model)


def by_pattern(what: str, names: Sequence[str], values: Mapping[str, _Value]) -> dict[str, _Value]:
    """Values of the layers that patterns name; the last pattern that matches counts.

    Args:
        what: is given, for the error.
        names: of layers.
        values: pattern (`fnmatch`) -> value.

    Raises:
        InvalidArgument: where a pattern matches no layer.

    Example:
        >>> by_pattern("ranks", ["conv1", "conv2", "fc"], {"conv*": 8, "conv2": 4})
        {'conv1': 8, 'conv2': 4}
    """
    found: dict[str, _Value] = {}
    for pattern, value in values.items():
        matching = [name for name in names if fnmatch(name, pattern)]
        if not matching:
            raise InvalidArgument(f"{what}: no layer is named {pattern!r}; the model has {', '.join(names) or 'none'}")
        found |= dict.fromkeys(matching, value)
    return found


def open_attention(model: nn.Module) -> tuple[nn.Module, dict[nn.Module, nn.Module], dict[str, str]]:
    """Give every attention of torch its projections as layers.

    Args:
        model: changed in place.

    Returns:
        The model; what stands for an attention -> the attention; name -> why, of attentions left as they were.
    """
    owners = owners_of(model)
    opened: dict[nn.Module, nn.Module] = {}
    refused: dict[str, str] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.MultiheadAttention):
            why = obstacle(module, nn.MultiheadAttention, owners) or obstacle(module.out_proj, None, owners)
            if why:
                refused[name] = why
            else:
                opened[module] = ProjectedAttention(module)
    return put_in_place(model, opened), {new: old for old, new in opened.items()}, refused


def close_attention(model: nn.Module, opened: Mapping[nn.Module, nn.Module]) -> nn.Module:
    """Put an attention back where none of its projections was split.

    Args:
        model: changed in place.
        opened: as `open_attention` gave it.
    """
    untouched = {
        new: old
        for new, old in opened.items()
        if all(isinstance(getattr(new, projection), nn.Linear) for projection in PROJECTIONS)
    }
    return put_in_place(model, untouched)


def splittable_layers(
    model: nn.Module, inputs: tuple[object, ...], refused: Mapping[str, str]
) -> list[SplittableLayer]:
    """All layers that could be split by their kind, in the model's order.

    Args:
        model: after `open_attention`.
        inputs: arguments of its forward.
        refused: attentions that were left as they were, and why.

    Raises:
        InvalidArgument: where the model fails on the inputs.
    """
    inside = {id(part) for name in refused for part in model.get_submodule(name).modules()}
    inside -= {id(model.get_submodule(name)) for name in refused}
    layers = {
        name: module
        for name, module in model.named_modules()
        if (name in refused or isinstance(module, (*CONVOLUTIONS, nn.Linear))) and id(module) not in inside
    }
    owners, seen = owners_of(model), layer_calls(model, inputs, layers)
    found = []
    for name, module in layers.items():
        why = refused.get(name) or obstacle(module, (*CONVOLUTIONS, nn.Linear), owners) or _unseen(seen[name])
        found.append(SplittableLayer(name, module, seen[name], why))
    return found


def owners_of(model: nn.Module) -> dict[int, set[int]]:
    """Parameter -> modules that hold it themselves."""
    owners: dict[int, set[int]] = {}
    for module in model.modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                owners.setdefault(id(parameter), set()).add(id(module))
    return owners


def obstacle(
    module: nn.Module, kinds: type[nn.Module] | tuple[type[nn.Module], ...] | None, owners: Mapping[int, set[int]]
) -> str:
    """Why a module must stay as it is; '' where nothing speaks against a change."""
    if parametrize.is_parametrized(module):
        return "its weight is computed by a parametrization"
    exact = kinds if isinstance(kinds, tuple) else (kinds,)
    if kinds is not None and type(module) not in exact:
        return f"{type(module).__name__} may compute something else than its base class"
    hooks: Sequence[Callable[[], object]] = [
        *module._forward_hooks.values(), *module._forward_pre_hooks.values(),
        *module._backward_hooks.values(), *module._backward_pre_hooks.values(),
    ]  # fmt: skip
    if hooks:
        return "the module has hooks, such as a pruning mask"
    for name, parameter in module._parameters.items():
        if parameter is None:
            continue
        if len(owners[id(parameter)]) > 1:
            return f"its {name} is tied to that of another module"
        if not parameter.is_floating_point() or parameter.is_meta or not parameter.numel():
            return f"its {name} is {parameter.dtype} on {parameter.device} with {parameter.numel()} entries"
    return ""


def _unseen(seen: LayerCalls) -> str:
    if not seen.plainly:
        return "it is called with more than its input"
    return "" if seen.calls else "it is not called in the run on the example; its weight may be used elsewhere"
