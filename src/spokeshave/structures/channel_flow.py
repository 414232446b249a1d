"""Channel flow: how each kind of operation passes the channel variables of its inputs to its output.

One function a `Kind`. A function that meets a case it does not know calls `barrier`: inputs and outputs keep all their
channels, so what is not understood is never changed.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import fx, nn
from torch.fx.node import map_arg

from spokeshave.structures.channel_classes import (
    Channels,
    Coupling,
    Ids,
    MixingCall,
    follow_index,
    number_of_axes,
    pads_of_axis,
)
from spokeshave.structures.graph_forms import align
from spokeshave.structures.operation_kinds import Kind, argument, name_of, source_of

Modules = Mapping[str, nn.Module]
Flow = Callable[[Coupling, fx.Node, Modules], None]


def barrier(coupling: Coupling, node: fx.Node, modules: Modules) -> None:
    """Pin every input; the output has no channels of its own until a later call asks for pinned ones."""
    label = str(node.target) if node.op == "call_module" else str(getattr(node.target, "__name__", node.target))
    if node.op == "call_module":
        label += f" ({type(modules[label]).__name__})"
    for operand in node.all_input_nodes:
        coupling.pin(operand, f"{label} needs all channels")


def _tensor_operands(node: fx.Node) -> list[fx.Node]:
    return [operand for operand in node.all_input_nodes if isinstance(operand.meta.get("shape"), torch.Size)]


def _mixing(coupling: Coupling, node: fx.Node, modules: Modules) -> None:
    source = source_of(node)
    name = str(node.target)
    module = modules[name]
    assert source is not None
    linear = isinstance(module, nn.Linear)
    batched = linear or number_of_axes(source) == len(module.kernel_size) + 2  # type: ignore[arg-type]
    if not batched or len(node.all_input_nodes) > 1 or len(node.args) + len(node.kwargs) > 1:
        return barrier(coupling, node, modules)
    inputs = coupling.at(source, -1 if linear else 1, f"{name} reads it whole")
    outputs = Channels(inputs.axis, coupling.fresh(node.meta["shape"][inputs.axis]))
    coupling.channels[node] = outputs
    coupling.mixing.append(MixingCall(node, name, module, inputs, outputs))


def _per_channel(coupling: Coupling, node: fx.Node, modules: Modules) -> None:
    source = source_of(node)
    name = str(node.target)
    assert source is not None
    unbatched = isinstance(modules[name], nn.modules.instancenorm._InstanceNorm) and number_of_axes(source) != 2 + int(
        type(modules[name]).__name__[-2]
    )
    if number_of_axes(source) < 2 or unbatched:
        return barrier(coupling, node, modules)
    channels = coupling.at(source, 1, f"{name} reads it whole")
    coupling.channels[node] = channels
    coupling.per_channel.append((node, name, modules[name], channels))


def _pointwise(coupling: Coupling, node: fx.Node, modules: Modules) -> None:
    shape = node.meta.get("shape")
    operands = _tensor_operands(node)
    if not isinstance(shape, torch.Size) or not operands:
        return barrier(coupling, node, modules)
    if tuple(torch.broadcast_shapes(*(operand.meta["shape"] for operand in operands))) != tuple(shape):
        return barrier(coupling, node, modules)
    known = [(operand, coupling.channels[operand]) for operand in operands if operand in coupling.channels]
    variable = [pair for pair in known if pair[0].op != "get_attr"] or known
    if not variable:
        return barrier(coupling, node, modules)
    axes = {channels.axis + len(shape) - number_of_axes(operand) for operand, channels in variable}
    if len(axes) != 1:
        return barrier(coupling, node, modules)
    axis = axes.pop()
    full: Ids | None = None
    for operand in operands:
        own_axis = axis - len(shape) + number_of_axes(operand)
        if own_axis < 0:
            continue
        if operand.meta["shape"][own_axis] == shape[axis]:
            ids = coupling.at(operand, own_axis, "it is combined with a tensor whose channels must stay").ids
            if full is not None:
                coupling.join(full, ids)
            full = ids
        else:
            coupling.pin(operand, "it is broadcast over the channels")
    if full is not None:
        coupling.channels[node] = Channels(axis, full)


def _same(coupling: Coupling, node: fx.Node, modules: Modules) -> None:
    """Work inside each channel: the channel axis is 1 and does not change."""
    source = source_of(node)
    assert source is not None
    channels = coupling.channels.get(source)
    shape = node.meta.get("shape")
    if len(_tensor_operands(node)) != 1 or channels is None or shape is None:
        return barrier(coupling, node, modules)
    spatial = number_of_axes(source) - 2
    named = _spatial_axes(node, modules)
    if channels.axis != 1 or len(shape) != spatial + 2 or spatial < 1 or (named is not None and named != spatial):
        return barrier(coupling, node, modules)
    coupling.channels[node] = Channels(1, channels.ids)


def _spatial_axes(node: fx.Node, modules: Modules) -> int | None:
    name = type(modules[str(node.target)]).__name__ if node.op == "call_module" else name_of(node)
    return int(name[-2]) if name.endswith(("1d", "2d", "3d")) else None


def _pad(coupling: Coupling, node: fx.Node, modules: Modules) -> None:
    source = source_of(node)
    pads = argument(node, 1, "pad")
    assert source is not None
    channels = coupling.channels.get(source)
    if channels is None or not isinstance(pads, (tuple, list)):
        return barrier(coupling, node, modules)
    constant = argument(node, 2, "mode", "constant") == "constant"
    front, back = pads_of_axis(pads, number_of_axes(source) - 1 - channels.axis)
    if not constant and (channels.axis != 1 or front != 0 or back != 0):
        return barrier(coupling, node, modules)
    if not isinstance(front, int) or not isinstance(back, int) or front < 0 or back < 0:
        return barrier(coupling, node, modules)
    ids = np.concatenate([coupling.fresh(front), channels.ids, coupling.fresh(back)])
    coupling.channels[node] = Channels(channels.axis, ids)


def _concat(coupling: Coupling, node: fx.Node, modules: Modules) -> None:
    operands = argument(node, 0, "tensors")
    dim = argument(node, 1, "dim", argument(node, 1, "axis", 0))
    shape = node.meta.get("shape")
    if not isinstance(operands, (tuple, list)) or not isinstance(dim, int) or shape is None:
        return barrier(coupling, node, modules)
    nodes = [operand for operand in operands if isinstance(operand, fx.Node)]
    axes = {coupling.channels[operand].axis for operand in nodes if operand in coupling.channels}
    usable = all(operand.meta.get("shape") is not None and number_of_axes(operand) == len(shape) for operand in nodes)
    if len(nodes) != len(operands) or len(axes) != 1 or not usable:
        return barrier(coupling, node, modules)
    axis = axes.pop()
    parts = [
        coupling.at(operand, axis, "it is concatenated with a tensor whose channels must stay") for operand in nodes
    ]
    if dim % len(shape) == axis:
        coupling.channels[node] = Channels(axis, np.concatenate([part.ids for part in parts]))
        return
    for part in parts[1:]:
        coupling.join(parts[0].ids, part.ids)
    coupling.channels[node] = Channels(axis, parts[0].ids)


def _reshape(coupling: Coupling, node: fx.Node, modules: Modules) -> None:
    source = source_of(node)
    assert source is not None
    channels = coupling.channels.get(source)
    shape = node.meta.get("shape")
    if channels is None or shape is None:
        return barrier(coupling, node, modules)
    before = source.meta["shape"]
    for left, right in align(before, shape) or []:
        if channels.axis not in left:
            continue
        if len(left) > 1 and len(right) == 1 and 0 not in left:
            spread = [1] * len(left)
            spread[left.index(channels.axis)] = len(channels.ids)
            sizes = [before[axis] for axis in left]
            ids = np.broadcast_to(channels.ids.reshape(spread), sizes).reshape(-1)
            coupling.channels[node] = Channels(right[0], ids)
            return
        if len(left) == 1 and len(right) > 1:
            table = channels.ids.reshape(shape[right[0]], -1)
            for column in range(1, table.shape[1]):
                coupling.join(table[:, 0], table[:, column])
            coupling.channels[node] = Channels(right[0], table[:, 0])
            return
        if len(left) == 1 and len(right) == 1:
            coupling.channels[node] = Channels(right[0], channels.ids)
            return
    barrier(coupling, node, modules)


def _permute(coupling: Coupling, node: fx.Node, modules: Modules) -> None:
    source = source_of(node)
    assert source is not None
    channels = coupling.channels.get(source)
    arguments = map_arg(tuple(node.args[1:]), lambda n: n.meta.get("value"))
    keywords = map_arg({k: v for k, v in node.kwargs.items() if k != "input"}, lambda n: n.meta.get("value"))
    if channels is None:
        return barrier(coupling, node, modules)
    labels = torch.empty([axis + 2 for axis in range(number_of_axes(source))], device="meta")
    moved = getattr(labels, name_of(node))(*arguments, **keywords)
    coupling.channels[node] = Channels([size - 2 for size in moved.shape].index(channels.axis), channels.ids)


def _reduce(coupling: Coupling, node: fx.Node, modules: Modules) -> None:
    source = source_of(node)
    assert source is not None
    channels = coupling.channels.get(source)
    dims = argument(node, 1, "dim", argument(node, 1, "axis"))
    count = number_of_axes(source)
    dims = [dims] if isinstance(dims, int) else dims
    if channels is None or not isinstance(dims, (tuple, list)) or not all(isinstance(dim, int) for dim in dims):
        return barrier(coupling, node, modules)
    reduced = {int(dim) % count for dim in dims}  # type: ignore[arg-type]
    if channels.axis in reduced or not reduced or node.meta.get("shape") is None:
        return barrier(coupling, node, modules)
    kept = number_of_axes(node) == count
    axis = channels.axis if kept else channels.axis - sum(dim < channels.axis for dim in reduced)
    coupling.channels[node] = Channels(axis, channels.ids)


def _softmax(coupling: Coupling, node: fx.Node, modules: Modules) -> None:
    source = source_of(node)
    assert source is not None
    channels = coupling.channels.get(source)
    dim = modules[str(node.target)].dim if node.op == "call_module" else argument(node, 1, "dim")
    if channels is None or not isinstance(dim, int) or dim % number_of_axes(source) == channels.axis:
        return barrier(coupling, node, modules)
    coupling.channels[node] = channels


def _unsqueeze(coupling: Coupling, node: fx.Node, modules: Modules) -> None:
    source, dim = source_of(node), argument(node, 1, "dim")
    channels = coupling.channels.get(source) if source is not None else None
    if channels is None or not isinstance(dim, int):
        return barrier(coupling, node, modules)
    dim = dim % number_of_axes(node)
    coupling.channels[node] = Channels(channels.axis + (dim <= channels.axis), channels.ids)


def _squeeze(coupling: Coupling, node: fx.Node, modules: Modules) -> None:
    source, dims = source_of(node), argument(node, 1, "dim")
    channels = coupling.channels.get(source) if source is not None else None
    dims = [dims] if isinstance(dims, int) else dims
    if channels is None or source is None or not isinstance(dims, (tuple, list)) or len(channels.ids) == 1:
        return barrier(coupling, node, modules)
    shape = source.meta["shape"]
    gone = {int(dim) % len(shape) for dim in dims if shape[int(dim)] == 1}  # type: ignore[arg-type, call-overload]
    if channels.axis in {int(dim) % len(shape) for dim in dims}:  # type: ignore[arg-type, call-overload]
        return barrier(coupling, node, modules)
    coupling.channels[node] = Channels(channels.axis - sum(dim < channels.axis for dim in gone), channels.ids)


def _expand(coupling: Coupling, node: fx.Node, modules: Modules) -> None:
    source = source_of(node)
    assert source is not None
    channels = coupling.channels.get(source)
    shape = node.meta.get("shape")
    if channels is None or shape is None:
        return barrier(coupling, node, modules)
    axis = channels.axis + len(shape) - number_of_axes(source)
    if shape[axis] != len(channels.ids):
        return barrier(coupling, node, modules)
    if name_of(node) == "expand_as":
        other = argument(node, 1, "other")
        if not isinstance(other, fx.Node):
            return barrier(coupling, node, modules)
        coupling.join(channels.ids, coupling.at(other, axis, "its size is copied").ids)
    coupling.channels[node] = Channels(axis, channels.ids)


def _select(coupling: Coupling, node: fx.Node, modules: Modules) -> None:
    source, dim, index = source_of(node), argument(node, 1, "dim"), argument(node, 2, "index")
    channels = coupling.channels.get(source) if source is not None else None
    if channels is None or not isinstance(dim, int) or not isinstance(index, fx.Node) or source is None:
        return barrier(coupling, node, modules)
    readers = [other for other in node.graph.nodes if other.op == "get_attr" and other.target == index.target]
    if readers != [index] or len(index.users) > 1 or "channel_order" not in str(index.target) or dim != channels.axis:
        return barrier(coupling, node, modules)
    owner, _, name = str(index.target).rpartition(".")
    order = getattr(modules[owner], name).cpu().numpy()
    coupling.channels[node] = Channels(dim, channels.ids[order])


def _split(coupling: Coupling, node: fx.Node, modules: Modules) -> None:
    source = source_of(node)
    dim = argument(node, 2, "dim", 0)
    channels = coupling.channels.get(source) if source is not None else None
    how = argument(node, 1, "split_size_or_sections", argument(node, 1, "split_size", argument(node, 1, "chunks")))
    if channels is None or not isinstance(dim, int) or source is None or not isinstance(how, (int, tuple, list)):
        return barrier(coupling, node, modules)
    shape = source.meta["shape"]
    labels = torch.arange(shape[dim])
    sizes = [len(piece) for piece in getattr(torch, name_of(node))(labels, how)]
    if dim % len(shape) != channels.axis:
        coupling.pieces[node] = [channels] * len(sizes)
        return
    cuts = np.cumsum(sizes)[:-1]
    coupling.pieces[node] = [Channels(channels.axis, ids) for ids in np.split(channels.ids, cuts)]


def _index(coupling: Coupling, node: fx.Node, modules: Modules) -> None:
    source, index = source_of(node), node.args[1]
    assert source is not None
    if source in coupling.pieces:
        if isinstance(index, int):
            coupling.channels[node] = coupling.pieces[source][index]
        else:
            barrier(coupling, node, modules)
        return
    if source.meta.get("shape") is None or source not in coupling.channels:
        return barrier(coupling, node, modules)
    result = follow_index(coupling.channels[source], index, number_of_axes(source))
    if result is None:
        return barrier(coupling, node, modules)
    coupling.channels[node] = result


def _shape(coupling: Coupling, node: fx.Node, modules: Modules) -> None:
    """Reading the size of the channel axis pins it; reading other sizes does not."""
    source = source_of(node)
    assert source is not None
    channels = coupling.channels.get(source)
    if channels is None:
        return
    axes = number_of_axes(source)
    direct = argument(node, 1, "dim") if name_of(node) == "size" else None
    if isinstance(direct, int):
        if direct % axes == channels.axis:
            coupling.pin(source, "the model reads its number of channels")
        return
    for user in node.users:
        read = user.args[1] if user.op == "call_function" and name_of(user) == "getitem" else slice(None)
        places = range(axes)[read] if isinstance(read, (int, slice)) else range(axes)
        if channels.axis in ([places] if isinstance(places, int) else places):
            coupling.pin(source, "the model reads its number of channels")


def _inert(coupling: Coupling, node: fx.Node, modules: Modules) -> None:
    return None


FLOWS: dict[Kind, Flow] = {
    Kind.MIXING: _mixing,
    Kind.PER_CHANNEL: _per_channel,
    Kind.POINTWISE: _pointwise,
    Kind.SPATIAL: _same,
    Kind.PAD: _pad,
    Kind.CONCAT: _concat,
    Kind.FLATTEN: _reshape,
    Kind.UNFLATTEN: _reshape,
    Kind.PERMUTE: _permute,
    Kind.REDUCE: _reduce,
    Kind.SOFTMAX: _softmax,
    Kind.UNSQUEEZE: _unsqueeze,
    Kind.SQUEEZE: _squeeze,
    Kind.SPLIT: _split,
    Kind.INDEX: _index,
    Kind.SELECT: _select,
    Kind.EXPAND: _expand,
    Kind.SHAPE: _shape,
    Kind.INERT: _inert,
    Kind.BARRIER: barrier,
}
