"""Channel coupling: which channels of a network must be kept or removed together.

Every entry of the channel axis of every tensor carries a channel variable. Operations pass variables on, join them
(a residual addition), or start new ones (a convolution's filters); joined variables form one class, and a class is
removed everywhere or nowhere. Operations outside the table pin the classes that they touch, so they see all channels.

Departs from the paper: SSL (Wen et al., NIPS 2016) squeezes each layer alone; removal across layers is ours. Existing
dependency graphs treat unknown operations as element by element, which cannot promise exactness; here they pin.
"""

from collections import Counter

from torch import fx, nn

from spokeshave.structures.channel_classes import Coupling
from spokeshave.structures.channel_flow import FLOWS, barrier
from spokeshave.structures.operation_kinds import Kind, kind_of, source_of


def couple(graph: fx.GraphModule) -> Coupling:
    """Find the channel classes of a canonical graph.

    Args:
        graph: graph module from `graph_tracing.trace`.

    Returns:
        the coupling; its pinned classes must keep every channel.

    Example:
        >>> import torch
        >>> from spokeshave.structures.graph_tracing import trace
        >>> net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> found = couple(trace(net, torch.zeros(1, 4)).graph)
        >>> [int(found.pinned(found.classes())[call.outputs.ids].sum()) for call in found.mixing]
        [0, 2]
    """
    coupling = Coupling()
    modules = dict(graph.named_modules())
    for node in graph.graph.nodes:
        if node.op == "placeholder":
            continue
        if node.op == "output":
            for operand in node.all_input_nodes:
                coupling.pin(operand, "it is the output of the model")
        elif node.op == "get_attr":
            _start_parameter(coupling, node)
        else:
            kind = kind_of(node, modules)
            flow = FLOWS.get(kind, barrier)
            if source_of(node) is None and kind not in (Kind.CONCAT, Kind.POINTWISE):
                flow = barrier
            flow(coupling, node, modules)
    _pin_shared(coupling, graph)
    return coupling


def _start_parameter(coupling: Coupling, node: fx.Node) -> None:
    shape = node.meta.get("shape")
    if shape is None or not node.meta["dtype"].is_floating_point:
        return
    long_axes = [axis for axis, size in enumerate(shape) if size > 1]
    if len(long_axes) == 1:
        coupling.at(node, long_axes[0], "a parameter")


def _pin_shared(coupling: Coupling, graph: fx.GraphModule) -> None:
    """Layers and parameters with a second use keep all channels: one change would hit both uses.

    A second use is another call, a second owner of a parameter, a part that is kept whole and calls the layer too, or a
    forward that reads the parameter itself, as `F.linear(x, self.layer.weight.t())` does.
    """
    owners: dict[int, set[int]] = {}
    for module in graph.modules():
        for parameter in [*module._parameters.values(), *module._buffers.values()]:
            if parameter is not None:
                owners.setdefault(id(parameter), set()).add(id(module))
    layers = [(c.module, c.name, [c.inputs, c.outputs]) for c in coupling.mixing]
    layers += [(module, name, [channels]) for _, name, module, channels in coupling.per_channel]
    calls = Counter(id(module) for module, _, _ in layers)
    called = {graph.get_submodule(str(node.target)) for node in graph.graph.nodes if node.op == "call_module"}
    inside = {id(part) for whole in called for part in whole.modules() if part is not whole}
    targets = {str(node.target) for node in graph.graph.nodes if node.op == "get_attr"}
    read = {target: id(graph.get_submodule(target.rpartition(".")[0])) for target in targets}
    for module, name, sides in layers:
        second_uses = {
            f"{name} is called more than once": calls[id(module)] > 1,
            f"{name} is also called inside a part that is kept whole": id(module) in inside,
            f"{name} shares a parameter": any(len(owners[id(parameter)]) > 1 for parameter in module.parameters()),
            f"forward reads a parameter of {name}": id(module) in read.values(),
        }
        for reason in (reason for reason, holds in second_uses.items() if holds):
            for channels in sides:
                coupling.pin_ids(channels.ids, reason)
    for target, channels in coupling.parameters.items():
        if len(owners.get(id(_attribute(graph, target)), ())) > 1:
            coupling.pin_ids(channels.ids, f"{target} has two owners")
        if read.get(target) in calls:
            coupling.pin_ids(channels.ids, f"{target} belongs to a layer")


def _attribute(graph: nn.Module, target: str) -> object:
    owner, _, name = target.rpartition(".")
    return getattr(graph.get_submodule(owner), name)
