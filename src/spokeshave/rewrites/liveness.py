"""Liveness: the smallest set of channel classes that the output of a network needs.

A class is needed when it is pinned, or when a needed row of some convolution or linear layer has a nonzero weight on
one of its channels whose value is not a known constant. Everything else can go. Grouped convolutions add one demand:
the groups that survive must stay equally large.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import fx

from spokeshave.structures.channel_classes import Coupling, Ids, MixingCall, number_of_axes
from spokeshave.structures.constant_channels import ChannelState, connections, mixing_state
from spokeshave.structures.operation_kinds import argument, name_of

Mask = NDArray[np.bool_]

LANES = 16
"""Channels a group that oneDNN's grouped convolutions run well on, in multiples of (one AVX-512 register of float32).
Measured with 2 groups, 3x3, 13x13: 92 or 88 channels a group take 3.5 or 1.9 times the time of 96, one or 16 images."""


@dataclass(frozen=True)
class Liveness:
    """Which channels stay.

    Attributes:
        classes: class of every channel variable.
        needed: whether each class stays, indexed by class.
    """

    classes: Ids
    needed: Mask

    def keep(self, ids: Ids) -> Mask:
        """Mask over the entries of a channel axis: True where the entry stays."""
        return self.needed[self.classes[ids]]


def find_live(graph: fx.Graph, coupling: Coupling, states: dict[fx.Node, ChannelState]) -> Liveness:
    """Least fixpoint of what the output needs.

    Args:
        graph: the traced network.
        coupling: its channels.
        states: constants, from `find_constants`.

    Returns:
        the classes that stay.
    """
    classes = coupling.classes()
    needed = coupling.pinned(classes)
    calls = [(call, connections(call.module), mixing_state(states, call)) for call in coupling.mixing]
    while True:
        _demand(calls, classes, needed)
        if _even_groups(calls, classes, needed):
            continue
        live = Liveness(classes, needed)
        hollow = [node for node in reachable(graph, coupling, live) if _is_hollow(node, coupling, live)]
        if not hollow:
            return live
        # what is still read, if only for its height and width, keeps one channel
        needed[classes[coupling.channels[hollow[0]].ids[0]]] = True


def _is_hollow(node: fx.Node, coupling: Coupling, live: Liveness) -> bool:
    channels = coupling.channels.get(node)
    return channels is not None and len(channels.ids) > 0 and not live.keep(channels.ids).any()


def emptied_operands(node: fx.Node, coupling: Coupling, live: Liveness) -> list[fx.Node]:
    """Operands of a concatenation along the channel axis that lose all their channels.

    Args:
        node: any node.
        coupling: channels of the network.
        live: which of them stay.

    Returns:
        the operands to leave out; none for other operations.
    """
    channels = coupling.channels.get(node)
    operands = argument(node, 0, "tensors")
    if node.op != "call_function" or name_of(node) not in ("cat", "concat", "concatenate") or channels is None:
        return []
    nodes = (
        [operand for operand in operands if isinstance(operand, fx.Node)] if isinstance(operands, (tuple, list)) else []
    )
    dim = argument(node, 1, "dim", argument(node, 1, "axis", 0))
    if len(nodes) < 2 or not isinstance(dim, int) or dim % number_of_axes(node) != channels.axis:
        return []
    return [operand for operand in nodes if operand in coupling.channels and _is_hollow(operand, coupling, live)]


def reachable(graph: fx.Graph, coupling: Coupling, live: Liveness) -> list[fx.Node]:
    """Nodes that the output still depends on once emptied operands are left out, in order.

    Args:
        graph: the traced network.
        coupling: its channels.
        live: which of them stay.

    Returns:
        the nodes.
    """
    found: set[fx.Node] = set()
    stack = [node for node in graph.nodes if node.op == "output"]
    while stack:
        node = stack.pop()
        if node not in found:
            found.add(node)
            left_out = emptied_operands(node, coupling, live)
            stack.extend(operand for operand in node.all_input_nodes if operand not in left_out)
    return [node for node in graph.nodes if node in found]


def _demand(calls: list[tuple[MixingCall, Mask, ChannelState]], classes: Ids, needed: Mask) -> None:
    """Needed rows ask for their inputs, until nothing changes; consumers first, so a chain takes one round."""
    before = -1
    while before != int(needed.sum()):
        before = int(needed.sum())
        for call, reach, state in reversed(calls):
            rows = needed[classes[call.outputs.ids]]
            if rows.any():
                columns = reach[rows].any(axis=0) & ~state.foldable
                needed[classes[call.inputs.ids[columns]]] = True


def _even_groups(calls: list[tuple[MixingCall, Mask, ChannelState]], classes: Ids, needed: Mask) -> bool:
    """Ask for more channels where a layer would be left without any, or with groups of unequal size."""
    before = int(needed.sum())
    for call, reach, _ in calls:
        inputs = classes[call.inputs.ids].reshape(call.groups, -1)
        outputs = classes[call.outputs.ids].reshape(call.groups, -1)
        if not needed[outputs].any():
            continue
        weights = reach.sum(axis=0).reshape(inputs.shape), reach.sum(axis=1).reshape(outputs.shape)
        alive = needed[inputs].any(axis=1) | needed[outputs].any(axis=1)
        for table, importance in zip((inputs, outputs), weights, strict=True):
            wanted = _in_lanes(max(1, int(needed[table[alive]].sum(axis=1).max())), *table.shape)
            for group in np.flatnonzero(alive):
                order = np.argsort(-importance[group], kind="stable")
                missing = wanted - int(needed[table[group]].sum())
                for place in order:
                    if missing <= 0:
                        break
                    if not needed[table[group, place]]:
                        needed[table[group, place]] = True
                        missing = wanted - int(needed[table[group]].sum())
    return int(needed.sum()) != before


def _in_lanes(wanted: int, groups: int, full: int) -> int:
    """Round a group's channels up where fewer would run slower; groups that never filled the lanes stay as they are."""
    if groups == 1 or full < 2 * LANES or full % LANES:
        return wanted
    return -(-wanted // LANES) * LANES
