"""Graph forms: the many ways to write one operation, brought to one form that survives the removal of channels.

In-place calls become plain ones, `view` and `reshape` with hard-coded sizes become `flatten` and `unflatten`, channel
shuffles become one `index_select`, layers get their arguments by position, dropout fixed at trace time becomes a module
that `.train()` switches on again.
Every change keeps the function that the graph computes.
"""

import inspect
import operator
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from spokeshave.structures.operation_kinds import Kind, argument, kind_of, name_of, source_of

INPLACE_OPERATORS = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
    operator.ipow: operator.pow,
}
_DROPOUTS = {
    F.dropout: (nn.Dropout, 2),
    F.dropout1d: (nn.Dropout1d, 2),
    F.dropout2d: (nn.Dropout2d, 2),
    F.dropout3d: (nn.Dropout3d, 2),
    F.alpha_dropout: (nn.AlphaDropout, 2),
    F.feature_alpha_dropout: (nn.FeatureAlphaDropout, 2),
    torch.dropout: (nn.Dropout, 2),
}
_RESHAPES = ("view", "reshape", "unflatten")


def canonicalise(graph: fx.GraphModule, measure_shapes: Callable[[], None]) -> None:
    """Bring a traced graph to canonical form, in place.

    Args:
        graph: traced network whose nodes carry `meta["shape"]`.
        measure_shapes: runs the graph again and renews the shapes; called where the graph has changed.
    """
    measured = str(graph.graph)

    def renew_shapes() -> None:
        nonlocal measured
        if str(graph.graph) != measured:  # a run of a large network takes long
            measure_shapes()
            measured = str(graph.graph)

    _call_by_position(graph)
    _undo_inplace(graph)
    _restore_dropout(graph)
    _name_shuffles(graph)
    renew_shapes()
    _name_reshapes(graph)
    graph.graph.eliminate_dead_code()
    graph.graph.lint()
    graph.recompile()
    renew_shapes()


def free_name(graph: nn.Module, wanted: str) -> str:
    """A name that the module does not use yet, for a new part of it.

    Args:
        graph: module that will hold the part.
        wanted: the name to take where it is free; a number is added where it is not.

    Returns:
        the name.

    Example:
        >>> free_name(nn.Linear(1, 1), "order"), free_name(nn.Linear(1, 1), "weight")
        ('order', 'weight_1')
    """
    name, count = wanted, 0
    while hasattr(graph, name):
        count += 1
        name = f"{wanted}_{count}"
    return name


def align(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]] | None:
    """Axes of a reshape, matched from the left into the smallest blocks of equal size.

    Args:
        before: shape of the input.
        after: shape of the output, same number of elements, no zeros.

    Returns:
        pairs (input axes, output axes), or None when a size is zero.

    Example:
        >>> align((2, 3, 4, 4), (2, 48))
        [([0], [0]), ([1, 2, 3], [1])]
    """
    if 0 in before or 0 in after:
        return None
    blocks: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(before) and j < len(after):
        left, right = [i], [j]
        sizes = [before[i], after[j]]
        i, j = i + 1, j + 1
        while sizes[0] != sizes[1]:
            if sizes[0] < sizes[1]:
                sizes[0] *= before[i]
                left.append(i)
                i += 1
            else:
                sizes[1] *= after[j]
                right.append(j)
                j += 1
        blocks.append((left, right))
    if blocks:
        blocks[-1][0].extend(range(i, len(before)))
        blocks[-1][1].extend(range(j, len(after)))
    return blocks


def _call_by_position(graph: fx.GraphModule) -> None:
    """`self.layer(input=x)` becomes `self.layer(x)`; modules with hooks, which may look at the keywords, do not."""
    modules = dict(graph.named_modules())
    for node in graph.graph.nodes:
        if node.op != "call_module" or not node.kwargs:
            continue
        module = modules[str(node.target)]
        if module._forward_hooks or module._forward_pre_hooks:
            continue
        try:
            bound = inspect.signature(module.forward).bind(*node.args, **node.kwargs)
        except (TypeError, ValueError):  # compiled modules show no signature
            continue
        node.args, node.kwargs = bound.args, bound.kwargs


def _undo_inplace(graph: fx.GraphModule) -> None:
    """In-place calls become plain ones; later reads of the overwritten tensor read the result instead."""
    modules = dict(graph.named_modules())
    order = {node: place for place, node in enumerate(graph.graph.nodes)}
    alias: dict[fx.Node, fx.Node] = {}
    for node in list(graph.graph.nodes):
        module = modules.get(str(node.target)) if node.op == "call_module" else None
        source = source_of(node)
        name = name_of(node)
        inplace = bool(getattr(module, "inplace", False))
        if isinstance(module, (nn.Identity, nn.modules.dropout._DropoutNd)) and not inplace and source is not None:
            alias[node] = alias.get(source, source)
        if node.op == "call_function" and node.target in INPLACE_OPERATORS:
            node.target = INPLACE_OPERATORS[node.target]  # type: ignore[index]
            inplace = True
        elif node.op == "call_function" and argument(node, _place_of_inplace(node.target), "inplace", False) is True:
            _clear_inplace_argument(node)
            inplace = True
        elif name.endswith("_") and not name.endswith("__") and (node.op == "call_method" or node.args):
            plain = name[:-1]
            if node.op == "call_method" and hasattr(torch.Tensor, plain):
                node.target = plain
                inplace = True
            elif node.op == "call_function" and (hasattr(torch, plain) or hasattr(F, plain)):
                node.target = getattr(torch, plain, None) or getattr(F, plain)
                inplace = True
        if not inplace or source is None or source.meta.get("shape") is None:
            continue
        if module is not None:
            module.inplace = False  # type: ignore[assignment]
        root = alias.get(source, source)
        same = {root} | {other for other, origin in alias.items() if origin is root}
        for overwritten in same:
            for user in list(overwritten.users):
                if order.get(user, 0) > order[node]:
                    user.replace_input_with(overwritten, node)


def _place_of_inplace(target: object) -> int:
    try:
        names = list(inspect.signature(target).parameters)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return 99
    return names.index("inplace") if "inplace" in names else 99


def _clear_inplace_argument(node: fx.Node) -> None:
    if "inplace" in node.kwargs:
        node.update_kwarg("inplace", False)
    else:
        node.update_arg(_place_of_inplace(node.target), False)


def _restore_dropout(graph: fx.GraphModule) -> None:
    """`F.dropout(x, p, self.training)` traced in eval mode is off for good: a module follows the mode again."""
    for count, node in enumerate(list(graph.graph.nodes)):
        if node.op != "call_function" or node.target not in _DROPOUTS:
            continue
        kind, place = _DROPOUTS[node.target]
        source, rate = source_of(node), argument(node, 1, "p", 0.5)
        if argument(node, place, "training", argument(node, place, "train", True)) is not False or source is None:
            continue
        if not isinstance(rate, (int, float)):
            continue
        name = free_name(graph, f"dropout_{count}")
        graph.add_submodule(name, kind(float(rate)).eval())
        with graph.graph.inserting_after(node):
            replacement = graph.graph.call_module(name, (source,))
        replacement.meta["shape"] = node.meta.get("shape")
        node.replace_all_uses_with(replacement)
        graph.graph.erase_node(node)


def _is_reshape(node: fx.Node) -> bool:
    return name_of(node) in (*_RESHAPES, "flatten", "transpose", "permute", "contiguous", "swapaxes", "swapdims")


def _apply_chain(chain: Sequence[fx.Node], tensor: Tensor) -> Tensor:
    for node in chain:
        arguments = map_arg(tuple(node.args[1:]), lambda n: n.meta.get("value"))
        keywords = map_arg(dict(node.kwargs), lambda n: n.meta.get("value"))
        name = name_of(node).replace("view", "reshape")
        tensor = getattr(tensor, name)(*arguments, **keywords)
    return tensor


def _name_shuffles(graph: fx.GraphModule) -> None:
    """A chain of reshape, transpose, reshape that only reorders channels becomes `index_select` on axis 1."""
    modules = dict(graph.named_modules())
    count = 0
    for node in list(graph.graph.nodes):
        order: Tensor | None = None
        source = source_of(node)
        groups = getattr(modules.get(str(node.target)), "groups", None) if node.op == "call_module" else None
        shape = node.meta.get("shape")
        if isinstance(modules.get(str(node.target)), nn.ChannelShuffle) and node.op == "call_module":
            order = _shuffled(shape[1], int(groups)) if shape is not None and groups is not None else None
        elif name_of(node) in ("channel_shuffle", "native_channel_shuffle"):
            parts = argument(node, 1, "groups")
            order = _shuffled(shape[1], parts) if shape is not None and isinstance(parts, int) else None
        elif _is_reshape(node) and shape is not None and len(shape) >= 2 and node.op == "call_method":
            source, order = _shuffle_chain(node)
        if order is None or source is None:
            continue
        name = free_name(graph, f"channel_order_{count}")
        count += 1
        graph.register_buffer(name, order.to(_device_of(graph)), persistent=True)
        with graph.graph.inserting_after(node):
            index = graph.graph.get_attr(name)
        with graph.graph.inserting_after(index):
            replacement = graph.graph.call_function(torch.index_select, (source, 1, index))
        replacement.meta["shape"] = shape
        node.replace_all_uses_with(replacement)


def _device_of(graph: nn.Module) -> torch.device:
    return next((tensor.device for tensor in graph.state_dict().values()), torch.device("cpu"))


def _shuffled(channels: int, groups: int) -> Tensor:
    return torch.arange(channels).reshape(groups, channels // groups).t().reshape(-1)


def _shuffle_chain(node: fx.Node) -> tuple[fx.Node | None, Tensor | None]:
    chain = [node]
    shape = node.meta["shape"]
    while True:
        source = source_of(chain[0])
        if source is None or source.meta.get("shape") is None:
            return None, None
        if len(chain) >= 3 and source.meta["shape"] == shape:
            break
        if not _is_reshape(source) or source.op != "call_method" or len(source.users) != 1 or len(chain) > 5:
            return None, None
        chain.insert(0, source)
    if not any(name_of(step) in ("transpose", "permute", "swapaxes", "swapdims") for step in chain):
        return None, None
    numbers = torch.arange(int(torch.Size(shape).numel())).reshape(shape)
    try:
        result = _apply_chain(chain, numbers)
    except (TypeError, RuntimeError):
        return None, None
    inner = int(torch.Size(shape[2:]).numel())
    order = result.reshape(shape[0], shape[1], inner)[0, :, 0] // inner
    if int(order.max()) >= shape[1] or order.unique().numel() != shape[1] or shape[1] < 2:
        return None, None
    return (source, order) if torch.equal(numbers.index_select(1, order), result) else (None, None)


def _sizes(node: fx.Node) -> Sequence[object] | None:
    """Target sizes as written in `x.view(...)`, or None where they are hidden in another value."""
    written: Sequence[object] = node.args[1:]
    named = node.kwargs.get("shape")
    if len(written) == 1 and isinstance(written[0], (tuple, list)):
        written = written[0]
    elif not written and isinstance(named, (tuple, list)):
        written = named
    return written if len(written) == len(node.meta["shape"]) else None


def _name_reshapes(graph: fx.GraphModule) -> None:
    """Hard-coded reshapes become flatten and unflatten, whose sizes follow the channels that are left."""
    modules = dict(graph.named_modules())
    for node in list(graph.graph.nodes):
        unflatten = node.op == "call_module" and type(modules[str(node.target)]) is nn.Unflatten
        reshape = name_of(node) in ("view", "reshape") and kind_of(node, modules) is Kind.BARRIER
        source = source_of(node)
        if not (unflatten or reshape) or source is None:
            continue
        before, after = source.meta.get("shape"), node.meta.get("shape")
        if before is None or after is None:
            continue
        blocks = align(before, after)
        if blocks is None or any(len(left) > 1 and len(right) > 1 for left, right in blocks):
            continue
        sizes = list(after) if unflatten else _sizes(node)
        if sizes is None and any(len(right) > 1 for _, right in blocks):
            continue
        current = source
        for left, right in reversed(blocks):
            with graph.graph.inserting_before(node):
                if len(left) > 1:
                    current = graph.graph.call_function(torch.flatten, (current, left[0], left[-1]))
                elif len(right) > 1 and sizes is not None:
                    rest = [after[axis] if sizes[axis] == -1 else sizes[axis] for axis in right[1:]]
                    current = graph.graph.call_function(torch.unflatten, (current, left[0], (-1, *rest)))  # type: ignore[arg-type]
        node.replace_all_uses_with(current)
