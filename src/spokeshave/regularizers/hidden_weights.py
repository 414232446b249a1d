"""Hidden weights: pruned or quantized weights keep a value out of sight, are trained on, and may come back.

Guo, Yao, Chen: Dynamic Network Surgery for Efficient DNNs, NIPS 2016, equation 3: W <- W - lr * dL/d(W * T), where T is
the mask: the loss sees W * T, the update moves W.
Departs from the paper: nothing known.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from spokeshave.errors import CheckpointError
from spokeshave.regularizers.guidance import Guide
from spokeshave.structures.pruned_layers import PrunedLayer
from spokeshave.structures.sparsity import LayerSparsity, layer_sparsity


class HiddenWeights:
    """What masks or levels took off the weights of layers; not checked against these, that is their owner's part.

    Example:
        >>> hidden, weight = HiddenWeights(), torch.tensor([1.0, 2.0])
        >>> hidden.hide("layer", weight, torch.tensor([True, False]))
        >>> weight.tolist()
        [1.0, 0.0]
        >>> hidden.show("layer", weight)
        >>> weight.tolist()
        [1.0, 2.0]
    """

    def __init__(self) -> None:
        self._values: dict[str, Tensor] = {}
        self._shown: dict[str, Tensor] = {}

    @torch.no_grad()
    def hide(self, name: str, weight: Tensor, mask: Tensor) -> None:
        """Set a weight to zero where its mask is False, and remember what stood there."""
        self._values[name] = weight.masked_fill(mask, 0.0)
        weight.masked_fill_(~mask, 0.0)

    @torch.no_grad()
    def show(self, name: str, weight: Tensor) -> None:
        """Put back what `hide` took; nothing where it took nothing."""
        values = self._values.pop(name, None)
        if values is not None:
            weight.add_(values.to(weight))  # exact: one of the two is zero

    @torch.no_grad()
    def replace(self, name: str, weight: Tensor, shown: Tensor) -> None:
        """Put other values in a weight's place, and remember all of what stood there; `take_back` undoes it."""
        self._values[name], self._shown[name] = weight.detach().clone(), shown
        weight.copy_(shown)

    @torch.no_grad()
    def take_back(self, name: str, weight: Tensor) -> None:
        """Put back what `replace` remembered; nothing where it replaced nothing, or the weight was changed since."""
        if self.stands(name, weight):
            weight.copy_(self._values[name])
        self.forget(name)

    @torch.no_grad()
    def stands(self, name: str, weight: Tensor) -> bool:
        """Whether a weight is what `replace` put in its place; as far as is known, where a checkpoint was read."""
        shown = self._shown.get(name)
        return name in self._values and (shown is None or torch.equal(weight, shown.to(weight)))

    def forget(self, name: str) -> None:
        """Give up what `hide` or `replace` took off a weight."""
        self._values.pop(name, None)
        self._shown.pop(name, None)

    def state_dict(self) -> dict[str, Tensor]:
        """The hidden values, by layer."""
        return dict(self._values)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over the values of a checkpoint."""
        self._values, self._shown = dict(state), {}


class HidesWeights:
    """What the regularizers that hide weights have in common: layers, a step counter, a guide, a checkpoint's part.

    Args:
        layers: that are watched.
        strength: of the regularizer.
        guide: decides on the fly which layers are pruned; None prunes all.
    """

    def __init__(self, layers: Sequence[PrunedLayer], strength: float, guide: Guide | None) -> None:
        self.strength, self.guide, self.step = float(strength), guide, 0
        self._layers = layers
        if guide is not None:
            guide.watch(layer.name for layer in layers)
        self._hidden = HiddenWeights()

    def statistics(self) -> dict[str, LayerSparsity]:
        """Shares of exact zeros of each watched layer."""
        return {layer.name: layer_sparsity(layer.module) for layer in self._layers}

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold: strength, step, the hidden values, the guide's state."""
        state: dict[str, Any] = {
            "strength": torch.tensor(self.strength, dtype=torch.float64),
            "step": torch.tensor(self.step),
        }
        state |= {f"hidden.{name}": value for name, value in self._hidden.state_dict().items()}
        guide = {} if self.guide is None else self.guide.state_dict()
        return state | {f"guide.{name}": value for name, value in guide.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave.

        Raises:
            CheckpointError: where it belongs to another model.
        """
        hidden = {n[7:]: value for n, value in state.items() if n.startswith("hidden.")}
        shapes = {layer.name: layer.weight.shape for layer in self._layers}
        for name, value in hidden.items():
            if shapes.get(name) != value.shape:
                raise CheckpointError(
                    f"hidden.{name} belongs to another model: it has shape {tuple(value.shape)}, the layer "
                    f"{tuple(shapes[name]) if name in shapes else 'is not there'}"
                )
        self.strength, self.step = float(state["strength"]), int(state["step"])
        self._hidden.load_state_dict(hidden)
        if self.guide is not None:
            self.guide.load_state_dict({n[6:]: value for n, value in state.items() if n.startswith("guide.")})

    def _pulls(self, layer: PrunedLayer) -> bool:
        return self.guide is None or self.guide.pulls(layer.name)
