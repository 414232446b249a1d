"""Constant branches: whole branches that do not depend on the input become one number a channel.

A residual branch whose last convolution is zero adds the same constant everywhere (SSL's depth regularization, Wen et
al., NIPS 2016): the addition takes a stored constant instead, or goes when the constant is zero, and the layers that
computed the branch are dead code.
"""

import torch
from torch import fx

from spokeshave.structures.channel_classes import Coupling, number_of_axes
from spokeshave.structures.constant_channels import ChannelState
from spokeshave.structures.graph_forms import free_name
from spokeshave.structures.operation_kinds import Kind, kind_of, name_of

_ADDITIONS = ("add", "add_", "iadd")


def replace_constant_branches(
    graph: fx.GraphModule, coupling: Coupling, states: dict[fx.Node, ChannelState]
) -> list[str]:
    """Put stored constants where whole branches are constant, in place.

    Args:
        graph: canonical graph.
        coupling: its channels.
        states: its constants, from `find_constants`.

    Returns:
        names of the nodes whose value was replaced.
    """
    modules = dict(graph.named_modules())
    replaced: list[str] = []
    stored: dict[fx.Node, str] = {}
    for node in list(graph.graph.nodes):
        if node.op not in ("call_function", "call_method") or kind_of(node, modules) is not Kind.POINTWISE:
            continue
        for operand in node.all_input_nodes:
            if _is_constant(operand, states) and _others_keep_shape(node, operand):
                replaced.append(operand.name)
                _replace(graph, coupling, states[operand], node, operand, stored)
                break
    if replaced:
        graph.graph.eliminate_dead_code()
        graph.graph.lint()
        graph.recompile()
    return replaced


def _is_constant(node: fx.Node, states: dict[fx.Node, ChannelState]) -> bool:
    return node.op != "get_attr" and node in states and bool(states[node].foldable.all())


def _others_keep_shape(node: fx.Node, operand: fx.Node) -> bool:
    others = [other for other in node.all_input_nodes if other is not operand]
    shapes = [other.meta["shape"] for other in others if other.meta.get("shape") is not None]
    same_type = all(other.meta.get("dtype") in (None, operand.meta["dtype"]) for other in others)
    return same_type and bool(shapes) and tuple(torch.broadcast_shapes(*shapes)) == tuple(node.meta["shape"])


def _replace(
    graph: fx.GraphModule,
    coupling: Coupling,
    state: ChannelState,
    node: fx.Node,
    operand: fx.Node,
    stored: dict[fx.Node, str],
) -> None:
    """Let one call read the constant instead of a branch; `stored` names the constants that are already buffers."""
    others = [other for other in node.all_input_nodes if other is not operand]
    plain_sum = name_of(node) in _ADDITIONS and len(others) == 1 and not node.kwargs and len(node.args) == 2
    plain_sum = plain_sum and bool(state.known.all())
    if plain_sum and not state.values.any() and others[0].meta["shape"] == node.meta["shape"]:
        node.replace_all_uses_with(others[0])
        return
    axes = number_of_axes(operand)
    shape = [1] * axes
    shape[coupling.channels[operand].axis] = len(state.values)
    device = next((value.device for value in graph.state_dict().values()), torch.device("cpu"))
    if state.known.all() or state.plane is None:
        value = torch.as_tensor(state.values, dtype=operand.meta["dtype"], device=device).reshape(shape)
    else:
        value = state.plane.to(device, operand.meta["dtype"])
    if operand not in stored:
        stored[operand] = free_name(graph, f"constant_{operand.name}")
        graph.register_buffer(stored[operand], value)
    with graph.graph.inserting_before(node):
        constant = graph.graph.get_attr(stored[operand])
    constant.meta.update(shape=value.shape, dtype=value.dtype)
    node.replace_input_with(operand, constant)
