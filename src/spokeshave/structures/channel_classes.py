"""Channel classes: the variables that stand for the channels of a network's tensors, joined where they depend.

Every entry of a channel axis carries a variable; joined variables form one class, which is kept or removed as one
(union-find). A pinned class stays. No paper: this is the bookkeeping under `coupling`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx, nn

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


def number_of_axes(node: fx.Node) -> int:
    """Axes of a tensor node; 0 where the value is not a tensor."""
    shape = node.meta.get("shape")
    return len(shape) if isinstance(shape, torch.Size) else 0


def follow_index(channels: Channels, index: object, axes: int) -> Channels | None:
    """Channels after `x[index]`, or None where the channel axis is not simply kept or cut by a slice of step 1.

    Args:
        channels: channels of x.
        index: what stands in the brackets.
        axes: number of axes of x.

    Returns:
        channels of the result.
    """
    entries = list(index) if isinstance(index, tuple) else [index]
    if any(not (entry is None or entry is Ellipsis or isinstance(entry, (int, slice))) for entry in entries):
        return None
    if Ellipsis in entries:
        place = entries.index(Ellipsis)
        missing = axes - sum(entry is not None and entry is not Ellipsis for entry in entries)
        entries[place : place + 1] = [slice(None)] * missing
    axis = out_axis = 0
    for entry in entries:
        if entry is None:
            out_axis += 1
            continue
        if axis == channels.axis:
            return _cut(channels, entry, out_axis)
        axis += 1
        out_axis += not isinstance(entry, int)
    return Channels(channels.axis - axis + out_axis, channels.ids)


def _cut(channels: Channels, entry: object, axis: int) -> Channels | None:
    if not isinstance(entry, slice) or entry.step not in (None, 1):
        return None
    if any(not isinstance(bound, (int, type(None))) for bound in (entry.start, entry.stop)):
        return None
    return Channels(axis, channels.ids[entry])


def pads_of_axis(pads: Sequence[object], from_last: int) -> tuple[object, object]:
    """Padding of one axis in the order of `torch.nn.functional.pad`.

    Args:
        pads: (last front, last back, second last front, ...).
        from_last: 0 for the last axis, 1 for the one before.

    Returns:
        padding in front and behind; 0 where none is given.

    Example:
        >>> pads_of_axis((0, 0, 0, 0, 2, 3), 2)
        (2, 3)
    """
    return (pads[2 * from_last], pads[2 * from_last + 1]) if len(pads) > 2 * from_last else (0, 0)
