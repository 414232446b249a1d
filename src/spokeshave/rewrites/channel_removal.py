"""Channel removal: cut dead channels out of the parameters of a traced network, exactly.

Every layer keeps the rows and columns of the channels that stay. What removed constant channels sent into a layer goes
into its bias, or, where zero padding makes a border, into a `ConstantInput`. Splits, slices, expansions and channel
orders that name channel numbers are rewritten.
"""

import copy
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from spokeshave.rewrites.constant_input import ConstantInput, PositionBias
from spokeshave.rewrites.liveness import Liveness, emptied_operands, reachable
from spokeshave.structures.channel_classes import Channels, Coupling, MixingCall, number_of_axes, pads_of_axis
from spokeshave.structures.constant_channels import ChannelState, mixing_state, spreads_border
from spokeshave.structures.operation_kinds import BATCH_NORMS, Kind, argument, kind_of, name_of, source_of

Mask = NDArray[np.bool_]
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def remove_channels(
    graph: fx.GraphModule, coupling: Coupling, states: dict[fx.Node, ChannelState], live: Liveness
) -> None:
    """Cut the channels that are not live out of a graph, in place.

    Args:
        graph: canonical graph.
        coupling: its channels.
        states: its constants.
        live: what stays, from `find_live`.
    """
    modules = dict(graph.named_modules())
    kept = dict.fromkeys(reachable(graph.graph, coupling, live))
    calls = [(n, kind_of(n, modules)) for n in kept if n.op in ("call_function", "call_method")]
    for node, kind in calls:
        _rewrite_call(node, kind, coupling, live)
    for call in coupling.mixing:
        if call.node in kept:
            _cut_mixing(graph, call, mixing_state(states, call), live)
    for node, _, module, channels in coupling.per_channel:
        if node in kept:
            _cut_per_channel(module, live.keep(channels.ids))
    for target, channels in coupling.parameters.items():
        _cut_attribute(graph, target, channels, live)
    for node, kind in calls:  # last, because it changes who reads whom
        if kind is Kind.CONCAT:
            _drop_operands(node, emptied_operands(node, coupling, live))
    graph.graph.eliminate_dead_code()
    graph.delete_all_unused_submodules()
    _delete_unused_attributes(graph)
    graph.graph.lint()
    graph.recompile()


def _places(mask: Mask) -> Tensor:
    return torch.from_numpy(np.flatnonzero(mask))


def _cut(tensor: Tensor, axis: int, mask: Mask) -> Tensor:
    if mask.all():
        return tensor
    return tensor.index_select(axis, _places(mask).to(tensor.device)).contiguous()


def _set(module: nn.Module, name: str, value: Tensor) -> None:
    old = getattr(module, name)
    if isinstance(old, nn.Parameter):
        setattr(module, name, nn.Parameter(value.detach(), requires_grad=old.requires_grad))
    else:
        setattr(module, name, value.detach())


def _rewrite_call(node: fx.Node, kind: Kind, coupling: Coupling, live: Liveness) -> None:
    """Calls whose arguments count channels."""
    source = source_of(node)
    channels = coupling.channels.get(source) if source is not None else None
    if channels is None or source is None:
        return
    mask = live.keep(channels.ids)
    if kind is Kind.PAD and node in coupling.channels:
        _cut_padding(node, channels, live.keep(coupling.channels[node].ids), number_of_axes(source))
    if mask.all():
        return
    if kind is Kind.SPLIT and node in coupling.pieces:
        pieces = coupling.pieces[node]
        if sum(len(piece.ids) for piece in pieces) == len(channels.ids):
            node.op, node.target = "call_function", torch.split
            node.args = (source, [int(live.keep(piece.ids).sum()) for piece in pieces], channels.axis)
            node.kwargs = {}
    elif kind is Kind.INDEX and node in coupling.channels and source not in coupling.pieces:
        node.update_arg(1, _shifted(node.args[1], channels, mask, len(source.meta["shape"])))  # type: ignore[arg-type]
    elif kind is Kind.EXPAND and name_of(node) == "expand":
        sizes = list(node.args[1]) if isinstance(node.args[1], (tuple, list)) else list(node.args[1:])
        sizes[coupling.channels[node].axis] = -1
        node.args = (source, *sizes)
    elif kind is Kind.SELECT and node in coupling.channels:
        graph, index = node.graph.owning_module, argument(node, 2, "index")
        assert graph is not None and isinstance(index, fx.Node)
        path, _, name = str(index.target).rpartition(".")
        owner = graph.get_submodule(path)
        order = getattr(owner, name)
        places = np.cumsum(mask) - 1
        old = order.cpu().numpy()
        setattr(owner, name, torch.from_numpy(places[old[mask[old]]]).to(order.device))


def _cut_padding(node: fx.Node, channels: Channels, mask: Mask, axes: int) -> None:
    pads = argument(node, 1, "pad")
    assert isinstance(pads, (tuple, list))
    place = axes - 1 - channels.axis
    front, _ = pads_of_axis(pads, place)
    if len(mask) == len(channels.ids) or not isinstance(front, int):
        return
    new = list(pads)
    new[2 * place] = int(mask[:front].sum())
    new[2 * place + 1] = int(mask[front + len(channels.ids) :].sum())
    if "pad" in node.kwargs:
        node.update_kwarg("pad", new)
    else:
        node.update_arg(1, new)


def _drop_operands(node: fx.Node, emptied: list[fx.Node]) -> None:
    if not emptied:
        return
    operands = argument(node, 0, "tensors")
    assert isinstance(operands, (tuple, list))
    left = [operand for operand in operands if operand not in emptied]
    if len(left) == 1 and isinstance(left[0], fx.Node):
        node.replace_all_uses_with(left[0])
    elif "tensors" in node.kwargs:
        node.update_kwarg("tensors", left)
    else:
        node.update_arg(0, left)


def _shifted(index: object, channels: Channels, mask: Mask, axes: int) -> object:
    """The same slice of the channel axis, counted in the channels that are left."""
    entries = list(index) if isinstance(index, tuple) else [index]
    count = sum(entry is not None and entry is not Ellipsis for entry in entries)
    axis = 0
    for place, entry in enumerate(entries):
        if entry is Ellipsis:
            axis += axes - count
        elif entry is not None:
            if axis == channels.axis and isinstance(entry, slice) and (entry.start, entry.stop) != (None, None):
                start, stop, _ = entry.indices(len(mask))
                entries[place] = slice(int(mask[:start].sum()), int(mask[:stop].sum()))
            axis += 1
    return tuple(entries) if isinstance(index, tuple) else entries[0]


def _cut_mixing(graph: fx.GraphModule, call: MixingCall, state: ChannelState, live: Liveness) -> None:
    rows, columns = live.keep(call.outputs.ids), live.keep(call.inputs.ids)
    module = call.module
    bias_map = _bias_map(module, state, ~columns & state.foldable, call.inputs.axis, rows)
    folded = ~columns & state.known & (state.values != 0)
    weight = module.weight.detach()  # type: ignore[union-attr, operator]
    kernel = _cut(_constant_kernel(module, weight, folded, state.values), 0, rows) if folded.any() else None
    if not rows.all() or not columns.all():
        _set(module, "weight", _cut_weight(module, weight, rows, columns, call.groups))
        if module.bias is not None:
            _set(module, "bias", _cut(module.bias.detach(), 0, rows))  # type: ignore[arg-type]
        _set_sizes(module, rows, columns, call.groups)
    owner, _, name = call.name.rpartition(".")
    if bias_map is not None:
        setattr(graph.get_submodule(owner), name, PositionBias(module, bias_map.to(weight.dtype)))
        return
    if kernel is None or not kernel.any():
        return
    if spreads_border(module):
        shape = (1, len(kernel)) if isinstance(module, _TRANSPOSED) else (len(kernel), 1)
        kernel = kernel.to(weight.dtype).reshape(*shape, *kernel.shape[1:])
        wrapped = ConstantInput(module, kernel, tuple(call.node.all_input_nodes[0].meta["shape"][2:]))  # type: ignore[arg-type]
        setattr(graph.get_submodule(owner), name, wrapped)
        return
    constant = kernel.reshape(len(kernel), -1).sum(dim=1)
    if module.bias is None:
        module.bias = nn.Parameter(constant.to(weight.dtype), requires_grad=module.weight.requires_grad)  # type: ignore[union-attr]
    else:
        _set(module, "bias", (module.bias.detach().double() + constant).to(weight.dtype))  # type: ignore[operator, union-attr]


def _bias_map(module: nn.Module, state: ChannelState, dropped: Mask, axis: int, rows: Mask) -> Tensor | None:
    """What dropped channels send that are constant but not one number everywhere: (1, *output), float64."""
    if state.plane is None or not (dropped & ~state.known).any():
        return None
    axis = axis % state.plane.ndim
    shape = [1] * state.plane.ndim
    shape[axis] = len(dropped)
    chosen = torch.from_numpy(dropped).to(state.plane.device).reshape(shape)
    plain = copy.deepcopy(module).double()
    plain.register_parameter("bias", None)
    return _cut(plain(torch.where(chosen, state.plane, 0.0)), axis, rows)


def _constant_kernel(module: nn.Module, weight: Tensor, folded: Mask, values: NDArray[np.float64]) -> Tensor:
    """sum over folded inputs c of value_c * W[:, c]: (out, *kernel), float64."""
    groups = int(getattr(module, "groups", 1))  # type: ignore[arg-type]
    constants = torch.from_numpy(np.where(folded, values, 0.0)).to(weight.device).reshape(groups, -1)
    wide = weight.double()
    if isinstance(module, _TRANSPOSED):
        wide = wide.reshape(groups, -1, *weight.shape[1:])
        return torch.einsum("gi,gio...->go...", constants, wide).flatten(0, 1)
    wide = wide.reshape(groups, -1, *weight.shape[1:])
    return torch.einsum("gi,goi...->go...", constants, wide).flatten(0, 1)


def _cut_weight(module: nn.Module, weight: Tensor, rows: Mask, columns: Mask, groups: int) -> Tensor:
    first, second = (columns, rows) if isinstance(module, _TRANSPOSED) else (rows, columns)
    blocks = []
    for block, left, right in zip(
        weight.chunk(groups), first.reshape(groups, -1), second.reshape(groups, -1), strict=True
    ):
        if left.any() and right.any():
            blocks.append(_cut(_cut(block, 0, left), 1, right))
    return torch.cat(blocks)


def _set_sizes(module: nn.Module, rows: Mask, columns: Mask, groups: int) -> None:
    if isinstance(module, nn.Linear):
        module.in_features, module.out_features = int(columns.sum()), int(rows.sum())
        return
    module.in_channels, module.out_channels = int(columns.sum()), int(rows.sum())  # type: ignore[assignment]
    module.groups = int((rows.reshape(groups, -1).any(axis=1)).sum())  # type: ignore[assignment]


def _cut_per_channel(module: nn.Module, mask: Mask) -> None:
    if mask.all():
        return
    if isinstance(module, nn.PReLU):
        if module.num_parameters > 1:
            _set(module, "weight", _cut(module.weight.detach(), 0, mask))
            module.num_parameters = int(mask.sum())
        return
    for name in ("weight", "bias", "running_mean", "running_var"):
        value = getattr(module, name, None)
        if value is not None:
            _set(module, name, _cut(value.detach(), 0, mask))
    assert isinstance(module, (*BATCH_NORMS, nn.modules.instancenorm._InstanceNorm))
    module.num_features = int(mask.sum())  # type: ignore[assignment]


def _cut_attribute(graph: nn.Module, target: str, channels: Channels, live: Liveness) -> None:
    mask = live.keep(channels.ids)
    if mask.all():
        return
    owner, _, name = target.rpartition(".")
    module = graph.get_submodule(owner)
    _set(module, name, _cut(getattr(module, name).detach(), channels.axis, mask))


def _delete_unused_attributes(graph: fx.GraphModule) -> None:
    """Parameters and buffers that only dead code read."""
    read = {str(node.target) for node in graph.graph.nodes if node.op == "get_attr"}
    called: Mapping[str, nn.Module] = {
        str(node.target): graph.get_submodule(str(node.target))
        for node in graph.graph.nodes
        if node.op == "call_module"
    }
    inside = {id(module) for module in called.values() for module in module.modules()}
    for prefix, module in list(graph.named_modules()):
        if id(module) in inside:
            continue
        for table in (module._parameters, module._buffers):
            for name in list(table):
                if (f"{prefix}.{name}" if prefix else name) not in read:
                    del table[name]
