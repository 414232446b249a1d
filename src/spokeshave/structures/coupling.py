"""Channel coupling: which channels of a network must be kept or removed together.

Every entry of the channel axis of every tensor carries a channel variable. Operations pass variables on, join them
(a residual addition), or start new ones (a convolution's filters); joined variables form one class, and a class is
removed everywhere or nowhere. Operations outside the table pin the classes that they touch, so they see all channels.

Departs from the paper: SSL (Wen et al., NIPS 2016) squeezes each layer alone; removal across layers is ours. Existing
dependency graphs treat unknown operations as element by element, which cannot promise exactness; here they pin.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx, nn

from spokeshave.structures.operation_kinds import Kind, kind_of, source_of

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Channels:
    """The channel axis of one tensor: `ids[i]` is the variable of entry i along `axis`."""

    axis: int
    ids: Ids


@dataclass(frozen=True)
class MixingCall:
    """One call of a convolution or linear layer."""

    node: fx.Node
    name: str
    module: nn.Module
    inputs: Channels
    outputs: Channels

    @property
    def groups(self) -> int:
        """Groups of a grouped convolution; 1 for linear layers."""
        return int(getattr(self.module, "groups", 1))  # type: ignore[arg-type]


@dataclass
class Coupling:
    """Variables of all tensors, joined into classes.

    Attributes:
        channels: tensor node -> its channel axis, where it has one.
        pieces: split or chunk node -> channels of each piece.
        mixing: every convolution and linear call.
        per_channel: calls of normalisations and PReLU: (node, name, module, channels).
        parameters: attribute name of a broadcast parameter or buffer -> its channel axis.
    """

    channels: dict[fx.Node, Channels] = field(default_factory=dict)
    pieces: dict[fx.Node, list[Channels]] = field(default_factory=dict)
    mixing: list[MixingCall] = field(default_factory=list)
    per_channel: list[tuple[fx.Node, str, nn.Module, Channels]] = field(default_factory=list)
    parameters: dict[str, Channels] = field(default_factory=dict)
    _parent: list[int] = field(default_factory=list)
    _pins: list[tuple[Ids, str]] = field(default_factory=list)

    def fresh(self, count: int) -> Ids:
        """New variables, each its own class."""
        start = len(self._parent)
        self._parent.extend(range(start, start + count))
        return np.arange(start, start + count, dtype=np.int64)

    def root(self, variable: int) -> int:
        """Class of one variable."""
        parent = self._parent
        while parent[variable] != variable:
            parent[variable] = parent[parent[variable]]
            variable = parent[variable]
        return variable

    def join(self, left: Ids, right: Ids) -> None:
        """Put the classes of two equally long vectors of variables together, entry by entry."""
        for a, b in zip(left.tolist(), right.tolist(), strict=True):
            a, b = self.root(a), self.root(b)
            if a != b:
                self._parent[max(a, b)] = min(a, b)

    def pin(self, node: fx.Node, reason: str) -> None:
        """Keep all channels of a tensor (or of all pieces of a split)."""
        for channels in [self.channels.get(node), *self.pieces.get(node, [])]:
            if channels is not None:
                self.pin_ids(channels.ids, reason)
        if node.op == "get_attr" and str(node.target) in self.parameters:
            self.pin_ids(self.parameters[str(node.target)].ids, reason)

    def pin_ids(self, ids: Ids, reason: str) -> None:
        """Keep these variables' classes."""
        self._pins.append((ids, reason))

    def classes(self) -> Ids:
        """Class of every variable, as an index vector: `classes()[channels.ids]`."""
        return np.array([self.root(variable) for variable in range(len(self._parent))], dtype=np.int64)

    def pinned(self, classes: Ids) -> NDArray[np.bool_]:
        """Whether each class has to stay, as a vector over variables that is valid at class indices."""
        result = np.zeros(len(self._parent), dtype=bool)
        for ids, _ in self._pins:
            result[classes[ids]] = True
        return result

    def pin_reasons(self, classes: Ids) -> dict[int, str]:
        """First reason why a class is pinned, by class."""
        reasons: dict[int, str] = {}
        for ids, reason in self._pins:
            for variable in classes[ids].tolist():
                reasons.setdefault(variable, reason)
        return reasons

    def at(self, node: fx.Node, axis: int, why: str) -> Channels:
        """Channels of a tensor along a wanted axis; a tensor without known channels there gets pinned ones."""
        shape = node.meta["shape"]
        axis = axis % len(shape)
        known = self.channels.get(node)
        if known is not None and known.axis == axis:
            return known
        if node.op == "get_attr" and node.meta["dtype"].is_floating_point:
            target = str(node.target)
            if target not in self.parameters:
                self.parameters[target] = Channels(axis, self.fresh(shape[axis]))
            if self.parameters[target].axis == axis:
                self.channels[node] = self.parameters[target]
                return self.channels[node]
        self.pin(node, why)
        ids = self.fresh(shape[axis])
        self.pin_ids(ids, why)
        return Channels(axis, ids)


def couple(graph: fx.GraphModule) -> Coupling:
    """Find the channel classes of a canonical graph.

    Args:
        graph: graph module from `graph_tracing.trace`.

    Returns:
        the coupling; its pinned classes must keep every channel.

    Example:
        >>> from spokeshave.structures.graph_tracing import trace
        >>> net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> found = couple(trace(net, torch.zeros(1, 4)).graph)
        >>> [int(found.pinned(found.classes())[call.outputs.ids].sum()) for call in found.mixing]
        [0, 2]
    """
    from spokeshave.structures.channel_flow import FLOWS, barrier

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
    """Layers called twice, and parameters with two owners, keep all channels: one change would hit both uses."""
    calls: dict[int, int] = {}
    owners: dict[int, set[int]] = {}
    for module in graph.modules():
        for parameter in [*module._parameters.values(), *module._buffers.values()]:
            if parameter is not None:
                owners.setdefault(id(parameter), set()).add(id(module))
    layers = [(c.module, c.name, [c.inputs, c.outputs]) for c in coupling.mixing]
    layers += [(module, name, [channels]) for _, name, module, channels in coupling.per_channel]
    for module, _, _ in layers:
        calls[id(module)] = calls.get(id(module), 0) + 1
    for module, name, sides in layers:
        tied = any(len(owners[id(parameter)]) > 1 for parameter in module.parameters())
        if calls[id(module)] > 1 or tied:
            reason = f"{name} is called more than once" if calls[id(module)] > 1 else f"{name} shares a parameter"
            for channels in sides:
                coupling.pin_ids(channels.ids, reason)
    for target, channels in coupling.parameters.items():
        value = _attribute(graph, target)
        if len(owners.get(id(value), ())) > 1:
            coupling.pin_ids(channels.ids, f"{target} has two owners")


def _attribute(graph: nn.Module, target: str) -> object:
    owner, _, name = target.rpartition(".")
    return getattr(graph.get_submodule(owner), name)


def number_of_axes(node: fx.Node) -> int:
    """Axes of a tensor node; 0 where the value is not a tensor."""
    shape = node.meta.get("shape")
    return len(shape) if isinstance(shape, torch.Size) else 0
