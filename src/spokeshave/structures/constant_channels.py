"""Constant channels: channels whose value does not depend on the input, and that value.

A filter of zeros sends its bias; batch normalisation, ReLU and pooling turn that into another constant. The network is
run once in float64; next to the numbers, a mask says which channels provably do not depend on the input and are the
same number at every position of every input size. The number itself is then read off the run. 0 x unknown = 0.
"""

import copy
import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from spokeshave.structures.channel_classes import Channels, Coupling, MixingCall, number_of_axes, pads_of_axis
from spokeshave.structures.channel_flow import FLOWS
from spokeshave.structures.example_inputs import map_tensors, with_batch
from spokeshave.structures.graph_tracing import quiet
from spokeshave.structures.operation_kinds import (
    AVERAGE_POOLS,
    Kind,
    argument,
    kind_of,
    name_of,
    source_of,
)

Mask = NDArray[np.bool_]
_MULTIPLICATIONS = ("mul", "multiply", "mul_")
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True)
class ChannelState:
    """What is known of the channels of one tensor, entry by entry along its channel axis.

    Attributes:
        independent: the entry does not depend on the values of the input.
        known: moreover it is one number, at every position and every input size.
        values: that number (0 where it is not known), float64.
        plane: the whole tensor for one image, where the size of the input is locked and an independent entry is not one
            number; else None.
    """

    independent: Mask
    known: Mask
    values: NDArray[np.float64]
    plane: Tensor | None = None

    @property
    def foldable(self) -> Mask:
        """Entries whose effect on a later layer can be stored."""
        return self.known if self.plane is None else self.independent

    def take(self, places: NDArray[np.int64]) -> "ChannelState":
        """States of selected entries, without the plane."""
        return ChannelState(self.independent[places], self.known[places], self.values[places])


def connections(module: nn.Module) -> Mask:
    """Which input channel reaches which output channel through a weight that is not zero.

    Args:
        module: linear, convolution or transposed convolution, grouped or not.

    Returns:
        mask [out, in] over all channels, False between conv groups.

    Example:
        >>> connections(nn.Conv2d(4, 2, 3, groups=2)).sum()
        np.int64(4)
    """
    weight = module.weight.detach()  # type: ignore[union-attr, operator]
    assert isinstance(weight, Tensor)
    groups = int(getattr(module, "groups", 1))  # type: ignore[arg-type]
    touched = weight.reshape(weight.shape[0], weight.shape[1], -1).ne(0).any(dim=2).cpu().numpy()
    if isinstance(module, _TRANSPOSED):
        rows = touched.shape[0] // groups
        blocks = [touched[g * rows : (g + 1) * rows].T for g in range(groups)]
    else:
        rows = touched.shape[0] // groups
        blocks = [touched[g * rows : (g + 1) * rows] for g in range(groups)]
    if groups == 1:
        return blocks[0]
    height, width = blocks[0].shape
    result = np.zeros((height * groups, width * groups), dtype=bool)
    for g, block in enumerate(blocks):
        result[g * height : (g + 1) * height, g * width : (g + 1) * width] = block
    return result


def spreads_border(module: nn.Module) -> bool:
    """Whether a constant input channel leaves a border in the output (zero padding, or a transposed convolution).

    Args:
        module: linear, convolution or transposed convolution.

    Returns:
        True where the constant cannot simply be added to the bias.
    """
    if isinstance(module, nn.Linear):
        return False
    if isinstance(module, _TRANSPOSED):
        return True
    padding = module.padding
    if module.padding_mode != "zeros":
        return False
    return padding == "same" if isinstance(padding, str) else any(int(p) > 0 for p in padding)  # type: ignore[union-attr]


def _none(table: Mask) -> Mask:
    """Rows of a table without a single True."""
    return ~np.asarray(table.any(axis=1))


class _Constants(fx.Interpreter):
    def __init__(self, graph: fx.GraphModule, coupling: Coupling, exact: bool, size_locked: bool) -> None:
        super().__init__(graph)
        self.coupling = coupling
        self.tolerance = 1e-10 if exact else 1e-5
        self.size_locked = size_locked
        self.states: dict[fx.Node, ChannelState] = {}
        self.pieces: dict[fx.Node, list[ChannelState]] = {}
        self.whole: set[fx.Node] = set()
        self.results: dict[fx.Node, Tensor] = {}

    def run_node(self, n: fx.Node) -> object:
        result = super().run_node(n)
        if isinstance(result, Tensor) and n.op == "get_attr":
            self.results[n] = result.detach()
            self.whole.add(n)
        if n.op not in ("placeholder", "output", "get_attr"):
            self._propagate(n, result)
        return result

    def at(self, node: fx.Node, axis: int) -> ChannelState:
        """State of a tensor along an axis, also where the coupling follows another one."""
        channels = self.coupling.channels.get(node)
        if channels is not None and channels.axis == axis % len(node.meta["shape"]) and node in self.states:
            return self.states[node]
        size = node.meta["shape"][axis]
        fixed = np.full(size, node in self.whole)
        if node.op == "get_attr" and node in self.results:
            return self._measured(self.results[node], axis, fixed, fixed)
        return ChannelState(fixed, np.zeros(size, dtype=bool), np.zeros(size))

    def _measured(self, result: Tensor, axis: int, independent: Mask, known: Mask) -> ChannelState:
        """Read the numbers off a run; entries that are not one finite number are not known."""
        rows = result.detach().movedim(axis, 0).reshape(result.shape[axis], -1).to(torch.float64)
        if rows.shape[1] == 0 or not known.any():
            return ChannelState(independent, np.zeros_like(known), np.zeros(len(known)))
        low, high = rows.amin(dim=1).cpu().numpy(), rows.amax(dim=1).cpu().numpy()
        with np.errstate(invalid="ignore"):
            same = np.isfinite(low) & np.isfinite(high) & (high - low <= self.tolerance * np.abs(high))
        known = known & same
        return ChannelState(independent, known, np.where(known, (low + high) / 2, 0.0))

    def _propagate(self, node: fx.Node, result: object) -> None:
        tensors = [operand for operand in node.all_input_nodes if operand.meta.get("shape") is not None]
        if tensors and all(self._is_whole(operand) for operand in tensors):
            self.whole.add(node)
        if node in self.coupling.pieces:
            self._propagate_pieces(node)
        channels = self.coupling.channels.get(node)
        if channels is None or not isinstance(result, Tensor):
            return
        kind = kind_of(node, self.submodules_by_name)
        if kind is Kind.MIXING:
            independent, known = self._mixing(node)
        elif kind is Kind.POINTWISE:
            independent, known = self._pointwise(node, channels)
        elif kind is Kind.CONCAT:
            independent, known = self._concat(node, channels)
        else:
            independent, known = self._moved(node, kind, channels)
        state = self._measured(result, channels.axis, independent, independent if self.size_locked else known)
        if self.size_locked and (state.independent & ~state.known).any() and channels.axis > 0:
            state = dataclasses.replace(state, plane=result.detach()[:1].double().clone())
        self.states[node] = state
        if independent.all():
            self.whole.add(node)

    @property
    def submodules_by_name(self) -> dict[str, nn.Module]:
        """Modules of the graph that runs."""
        if not hasattr(self, "_modules"):
            self._modules = dict(self.module.named_modules())
        return self._modules

    def _is_whole(self, node: fx.Node) -> bool:
        return node in self.whole

    def _mixing(self, node: fx.Node) -> tuple[Mask, Mask]:
        module = self.submodules_by_name[str(node.target)]
        source = source_of(node)
        assert source is not None
        state = self.at(source, -1 if isinstance(module, nn.Linear) else 1)
        reach = connections(module)
        usable = state.known & (state.values == 0) if spreads_border(module) else state.known
        return _none(reach & ~state.independent), _none(reach & ~usable)

    def _pointwise(self, node: fx.Node, channels: Channels) -> tuple[Mask, Mask]:
        size = len(channels.ids)
        states = []
        plain = True
        for operand in node.all_input_nodes:
            shape = operand.meta.get("shape")
            if shape is None:
                plain = False
                continue
            axis = channels.axis - len(node.meta["shape"]) + len(shape)
            if axis < 0:
                state = self.at(operand, 0) if len(shape) else None
                fixed = np.full(1, operand in self.whole)
                single = operand in self.whole and (state is None or bool(state.known.all()))
                state = ChannelState(fixed, fixed & single & (len(shape) == 0), np.full(1, np.nan))
            else:
                state = self.at(operand, axis)
            states.append(state)
        known = np.full(size, plain)
        independent = np.full(size, True)
        absorbed = np.zeros(size, dtype=bool)
        for state in states:
            known &= state.known
            independent &= state.independent
            absorbed |= state.known & (state.values == 0)
        if name_of(node) in _MULTIPLICATIONS and len(node.all_input_nodes) == 2:
            known, independent = known | absorbed, independent | absorbed
        return independent, known

    def _concat(self, node: fx.Node, channels: Channels) -> tuple[Mask, Mask]:
        operands = argument(node, 0, "tensors")
        assert isinstance(operands, (tuple, list))
        states = [self.at(operand, channels.axis) for operand in operands if isinstance(operand, fx.Node)]
        if sum(len(state.known) for state in states) == len(channels.ids) and len(states) > 1:
            return np.concatenate([s.independent for s in states]), np.concatenate([s.known for s in states])
        known = np.all([state.known for state in states], axis=0)
        return np.all([state.independent for state in states], axis=0), known

    def _propagate_pieces(self, node: fx.Node) -> None:
        source = source_of(node)
        assert source is not None
        channels = self.coupling.channels[source]
        state = self.at(source, channels.axis)
        start = 0
        self.pieces[node] = []
        for piece in self.coupling.pieces[node]:
            whole = len(piece.ids) == len(channels.ids)
            places = np.arange(len(piece.ids)) + (0 if whole else start)
            start += len(piece.ids)
            self.pieces[node].append(state.take(places))

    def _moved(self, node: fx.Node, kind: Kind, channels: Channels) -> tuple[Mask, Mask]:
        """State of an operation with one input, whose entries are entries of that input."""
        source = source_of(node)
        assert source is not None
        size = len(channels.ids)
        if source in self.pieces and isinstance(node.args[1], int):
            state = self.pieces[source][node.args[1]]
            return state.independent, state.known
        origin = self.coupling.channels.get(source)
        if origin is None:
            return np.full(size, node in self.whole), np.zeros(size, dtype=bool)
        state = self.at(source, origin.axis)
        if kind is Kind.UNFLATTEN and size != len(origin.ids):
            shape = (size, len(origin.ids) // size)
            return _none(~state.independent.reshape(shape)), _none(~state.known.reshape(shape))
        places = np.arange(len(origin.ids))
        if kind is Kind.PAD and size != len(places):
            return self._padded(node, state, size)
        if kind not in (Kind.PER_CHANNEL, Kind.EXPAND):
            follower = Coupling()
            follower.fresh(len(origin.ids))
            follower.channels[source] = Channels(origin.axis, places)
            FLOWS[kind](follower, node, self.submodules_by_name)
            places = follower.channels[node].ids
        moved = state.take(places)
        return moved.independent, moved.known & self._survives(node, kind, moved)

    def _padded(self, node: fx.Node, state: ChannelState, size: int) -> tuple[Mask, Mask]:
        """Padding along the channel axis: the new channels are constants."""
        pads = argument(node, 1, "pad")
        source = source_of(node)
        assert source is not None and isinstance(pads, (tuple, list))
        axes = number_of_axes(source)
        front = int(pads_of_axis(pads, axes - 1 - self.coupling.channels[source].axis)[0])  # type: ignore[call-overload]
        borders = any(int(pad) != 0 for place, pad in enumerate(pads) if place // 2 < axes - 2)  # type: ignore[call-overload]
        kept = state.known & (state.values == 0) if borders else state.known
        independent, known = np.ones(size, dtype=bool), np.ones(size, dtype=bool)
        independent[front : front + len(kept)] = state.independent
        known[front : front + len(kept)] = kept
        if borders and argument(node, 3, "value", 0):
            known[:] = False
        return independent, known

    def _survives(self, node: fx.Node, kind: Kind, state: ChannelState) -> Mask | bool:
        """Where one number stays one number that no input size changes."""
        name = name_of(node)
        module = self.submodules_by_name[str(node.target)] if node.op == "call_module" else None
        if kind is Kind.SOFTMAX:
            return False
        if kind is Kind.REDUCE:
            return name in ("mean", "amax", "amin") or state.values == 0
        if kind is Kind.PAD:
            constant = argument(node, 2, "mode", "constant") == "constant"
            return state.values == float(argument(node, 3, "value", 0) or 0) if constant else True  # type: ignore[arg-type]
        if kind is not Kind.SPATIAL:
            return True
        kind_name = type(module).__name__ if module is not None else name
        if kind_name.startswith(("ZeroPad", "ConstantPad")):
            return state.values == float(getattr(module, "value", 0) or 0)
        if isinstance(module, AVERAGE_POOLS):
            padded = np.any(np.asarray(module.padding) != 0) and module.count_include_pad
            return state.values == 0 if padded or getattr(module, "divisor_override", None) else True
        if name.startswith("avg_pool"):
            padded = argument(node, 3, "padding", 0) != 0 or argument(node, 6, "divisor_override") is not None
            return state.values == 0 if padded else True
        return state.values == 0 if kind_name.lower().startswith(("lppool", "lp_pool")) else True


def find_constants(
    graph: fx.GraphModule, coupling: Coupling, probe: tuple[object, ...], size_locked: bool = False
) -> tuple[dict[fx.Node, ChannelState], set[fx.Node]]:
    """Find the channels of a traced network that do not depend on its input.

    Args:
        graph: canonical graph in eval mode.
        coupling: its channels, from `couple`.
        probe: inputs that the graph was traced with.
        size_locked: the network runs at this height and width only, so maps over positions count as constants too.

    Returns:
        state of the channels of each tensor node that has channels, and the nodes that do not depend on the input at
        all (parameters among them).

    Example:
        >>> from spokeshave.structures.coupling import couple
        >>> from spokeshave.structures.graph_tracing import trace
        >>> net = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
        >>> with torch.no_grad():
        ...     _ = net[0].weight[1].zero_(), net[0].bias[1].fill_(2.0)
        >>> traced = trace(net, torch.ones(1, 4))
        >>> states, _ = find_constants(traced.graph, couple(traced.graph), traced.probe)
        >>> [state.values.tolist() for state in states.values()][-1]
        [0.0, 2.0, 0.0]
    """
    attempts = [(True, 1), (True, None), (False, None)]
    for place, (exact, batch) in enumerate(attempts):
        inputs = probe if batch is None else with_batch(probe, batch)
        runner = _copy_with_same_nodes(graph) if exact else graph
        if exact:
            runner.double()
            inputs = map_tensors(lambda tensor: tensor.double() if tensor.is_floating_point() else tensor, inputs)
        assert isinstance(inputs, tuple)
        finder = _Constants(graph, coupling, exact, size_locked)
        finder.module = runner
        finder.submodules = dict(runner.named_modules())
        try:
            with torch.no_grad(), quiet():
                finder.run(*inputs)
            return finder.states, finder.whole
        except (RuntimeError, ValueError, AssertionError):
            if place == len(attempts) - 1:
                raise
    return {}, set()


def _copy_with_same_nodes(graph: fx.GraphModule) -> nn.Module:
    """The modules and parameters of a graph, copied; the graph's own nodes then run on the copy."""
    holder = nn.Module()
    holder.__dict__["_modules"] = dict(graph._modules)
    holder.__dict__["_parameters"] = dict(graph._parameters)
    holder.__dict__["_buffers"] = dict(graph._buffers)
    return copy.deepcopy(holder)


def mixing_state(states: dict[fx.Node, ChannelState], call: MixingCall) -> ChannelState:
    """State of the input channels of a convolution or linear call; nothing is known of inputs without channels.

    Args:
        states: from `find_constants`.
        call: a call of the same graph.

    Returns:
        the state, one entry an input channel.
    """
    source = source_of(call.node)
    state = states.get(source) if source is not None else None
    size = len(call.inputs.ids)
    if state is None or len(state.known) != size:
        return ChannelState(np.zeros(size, dtype=bool), np.zeros(size, dtype=bool), np.zeros(size))
    return state
