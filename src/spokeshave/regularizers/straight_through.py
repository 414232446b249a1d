"""Straight-through training: the network runs on quantized weights, updates go to hidden float weights.

Courbariaux, Bengio, David: BinaryConnect, NIPS 2015; Li, Zhang, Liu: Ternary Weight Networks, 2016, for three values:

    w <- w - lr * dL/dQ(w),        the loss sees Q(w)

Departs from the papers: g of each layer is the exact minimum of the squared error, searched again every few steps; the
hidden weights are not clipped; the last layer is quantized too, as one-level synapses want it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from spokeshave.errors import InvalidArgument
from spokeshave.regularizers.hidden_weights import HidesWeights
from spokeshave.regularizers.one_level import LayerScales, quantized_layers
from spokeshave.regularizers.optimizer_hooks import Attachment, Rounds
from spokeshave.structures.levels import multiples_of
from spokeshave.structures.magnitude_mask import Scope
from spokeshave.structures.pruned_layers import PrunedLayer, held_by


class StraightThrough(HidesWeights):
    """Trains a model whose weights are at their levels in every forward pass, in any training loop.

    The first step is taken from the weights as they are; from then on they are Q(w), and stay so at the end. Weight
    decay and momentum act on the hidden weights. Where a layer's weights were changed between two steps, such as by
    loading better ones, training goes on from these, and the hidden ones are dropped.

    Args:
        model: its convolutions and linear layers are watched, not changed by making this object. Biases are not.
        levels: how many nonzero magnitudes, evenly spaced; or these magnitudes, in any unit.
        exclude: patterns on names of layers that are left alone.
        scope: `Scope.LAYER` searches g for each layer by itself, `Scope.GLOBAL` one for all of them together.
        refresh: steps between searches of g, at least 1.
        strength: 0..1, how far weights go to their levels: w + strength (Q(w) - w) is what the loss sees.

    Raises:
        InvalidArgument: for a number out of its range, a pattern that no layer matches, or nothing to watch.
        UnsupportedLayer: for a layer whose weight is computed by a parametrization.

    Example:
        >>> net = nn.Sequential(nn.Linear(3, 1, bias=False))
        >>> _ = net[0].weight.data.copy_(torch.tensor([[1.5, -2.0, 0.25]]))
        >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.25)
        >>> _ = StraightThrough(net).attach(optimizer)
        >>> net(torch.tensor([[1.0, 0.0, 0.0]])).sum().backward()
        >>> optimizer.step()  # hidden: 1.25, -2, 0.25; g = (1.25 + 2) / 2
        >>> net[0].weight.tolist()
        [[1.625, -1.625, 0.0]]
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        levels: int | Sequence[float] = 1,
        exclude: Sequence[str] = (),
        scope: Scope = Scope.LAYER,
        refresh: int = 10,
        strength: float = 1.0,
    ) -> None:
        if not 0 <= strength <= 1 or refresh < 1:
            raise InvalidArgument(f"strength must be in 0..1 and refresh at least 1, got {strength} and {refresh}")
        super().__init__(quantized_layers(model, exclude), strength, None)
        self.refresh, self.levels, self.scope = refresh, levels, scope
        self._scales = LayerScales(self._layers, multiples_of(levels), scope)
        self._rounds = Rounds()
        self._to_search: set[str] = set()

    @property
    def scales(self) -> dict[str, float]:
        """g of each layer, as it is now."""
        return dict(self._scales.values)

    def energy(self) -> Float[Tensor, ""]:
        """0: weights are replaced, not pulled."""
        return torch.zeros(())

    def pull(self) -> None:
        """Nothing: weights are replaced, not pulled."""

    def attach(self, optimizer: Optimizer) -> Attachment:
        """Swap weights around every step of an optimizer.

        Returns:
            A handle; `handle.remove()` undoes the attachment. The weights stay at their levels.

        Raises:
            InvalidArgument: where it holds none of the weights.
        """
        mine = held_by(optimizer, self._layers)
        self._rounds.restart()
        return Attachment(
            optimizer, before=lambda _: self._before(mine), after=lambda stepped: self._after(stepped, mine)
        )

    @torch.no_grad()
    def finish(self) -> dict[str, float]:
        """Give the hidden weights up: what is left are the weights at their levels, also where strength is below 1.

        Weights that were loaded since the last step stay as they are.

        Returns:
            g of each layer.
        """
        for layer in self._layers:
            if self._hidden.stands(layer.name, layer.weight):
                layer.weight.copy_(self._scales.quantized(layer))
            self._hidden.forget(layer.name)
        return self.scales

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold: strength, step, hidden weights, g of each layer."""
        return super().state_dict() | self._scales.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave.

        Raises:
            CheckpointError: where it belongs to another model.
        """
        super().load_state_dict(state)
        self._scales.load_state_dict(state)

    def _before(self, layers: Sequence[PrunedLayer]) -> None:
        for layer in layers:
            self._hidden.take_back(layer.name, layer.weight)

    @torch.no_grad()
    def _after(self, optimizer: Optimizer, layers: Sequence[PrunedLayer]) -> None:
        if self._rounds.begin_with(optimizer):
            if self.step % self.refresh == 0:
                self._to_search = {layer.name for layer in self._layers}
            self.step += 1
        # Of several optimizers, each has its own layers searched, while their hidden weights are there to be seen.
        if due := [layer for layer in layers if layer.name in self._to_search]:
            self._scales.search(due)
            self._to_search -= {layer.name for layer in due}
        if self.strength:
            for layer in layers:
                shown = self._scales.quantized(layer)
                if self.strength < 1:
                    shown = torch.lerp(layer.weight, shown, self.strength)
                self._hidden.replace(layer.name, layer.weight, shown)
