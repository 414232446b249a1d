"""Quantization regularization: weights are pulled to their nearest level while a network is trained.

Wang, Wen, Song, Li: One-level Precision Synapses, ASP-DAC 2017:

    E(W) = E_D(W) + lambda_q * sum |w - Q(w)|,        force  sgn(w - Q(w)), with Q taken as constant

where Q(w) is the nearest of -g, 0, +g, and g the layer's own (distribution-aware).
Departs from the paper: g is searched again every `refresh` steps; `LevelSolver.PROXIMAL` has weights reach their levels
exactly; the strength may rise over the steps. The paper's lambda_q is not known.
"""

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from spokeshave.errors import CheckpointError, InvalidArgument
from spokeshave.regularizers.guided_l1 import soft_threshold
from spokeshave.regularizers.optimizer_hooks import Attachment, Rounds, add_to_gradient
from spokeshave.regularizers.proximal_step import step_metric
from spokeshave.structures.levels import Multiples, best_scale, multiples_of, nearest_level
from spokeshave.structures.magnitude_mask import Scope
from spokeshave.structures.pruned_layers import PrunedLayer, held_by, pruned_layers

RISE = 1000.0
"""Factor by which the strength grows over the steps of `ramp`."""


class LevelSolver(Enum):
    """How the penalty acts on the weights."""

    PAPER = "paper"
    """lambda * sgn(w - Q(w)) is added to the gradient; weights swing about their level by a step's length."""
    PROXIMAL = "proximal"
    """After each optimizer step, a soft threshold toward the level: weights reach it exactly and may leave it again."""


def level_force(weight: Float[Tensor, "..."], scale: float, multiples: Multiples = (1.0,)) -> Float[Tensor, "..."]:
    """sgn(w - Q(w)), 0 at a level: the gradient of |w - Q(w)| with Q taken as constant.

    Example:
        >>> level_force(torch.tensor([0.1, 0.4, 0.5, 0.9, -0.9]), 0.5).tolist()
        [1.0, -1.0, 0.0, 1.0, -1.0]
    """
    return (weight - nearest_level(weight, scale, multiples)).sign()


class LayerScales:
    """g of every layer, one for each or one for all, searched again now and then.

    Args:
        layers: that are quantized.
        multiples: from `multiples_of`.
        scope: LAYER for one g a layer, GLOBAL for one that all share.
    """

    def __init__(self, layers: Sequence[PrunedLayer], multiples: Multiples, scope: Scope) -> None:
        self._layers, self._multiples, self._scope = layers, multiples, scope
        self.values: dict[str, float] = {}
        self.search()

    def search(self, layers: Sequence[PrunedLayer] | None = None) -> None:
        """Find them for the weights as they are now.

        Args:
            layers: where there is one scale a layer, search those of these alone.

        Raises:
            InvalidArgument: for a layer with weights that are not finite.
        """
        for layer in self._layers:
            if not bool(layer.weight.isfinite().all()):
                raise InvalidArgument(f"{layer.name}: its weights must be finite to find their levels; did it diverge?")
        if self._scope is Scope.GLOBAL:
            together = torch.cat([layer.weight.detach().flatten().cpu() for layer in self._layers])
            self.values = dict.fromkeys((layer.name for layer in self._layers), best_scale(together, self._multiples))
        else:
            chosen = self._layers if layers is None else layers
            self.values |= {layer.name: best_scale(layer.weight, self._multiples) for layer in chosen}

    def quantized(self, layer: PrunedLayer) -> Tensor:
        """Q(w) of a layer."""
        return nearest_level(layer.weight.detach(), self.values[layer.name], self._multiples)

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint must hold."""
        return {f"scale.{name}": torch.tensor(value, dtype=torch.float64) for name, value in self.values.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave.

        Raises:
            CheckpointError: where it belongs to other layers.
        """
        found = {name[6:]: float(value) for name, value in state.items() if name.startswith("scale.")}
        if set(found) != set(self.values):
            raise CheckpointError(
                f"the levels belong to another model: expected {sorted(self.values)}, got {sorted(found)}"
            )
        self.values = found


def quantized_layers(model: nn.Module, exclude: Sequence[str]) -> list[PrunedLayer]:
    """All convolutions and linear layers but those whose names match a pattern.

    Raises:
        InvalidArgument: for a pattern that no layer matches, or no layer left.
        UnsupportedLayer: for a layer whose weight is computed by a parametrization.
    """
    return pruned_layers(model, {"*": 1.0, **dict.fromkeys(exclude, 0.0)})


class OneLevel:
    """Pulls the weights of a model to a few levels while it is trained, in any training loop.

    Args:
        model: its convolutions and linear layers are watched, not changed by making this object. Biases are not.
        strength: lambda_q, at least 0; may be changed at any time.
        exclude: patterns on names of layers that are left alone.
        levels: how many nonzero magnitudes, evenly spaced; or these magnitudes, in any unit.
        scope: `Scope.LAYER` searches g for each layer by itself, `Scope.GLOBAL` one for all of them together.
        refresh: steps between searches of g, which start at the first step; 0 keeps the g of the start.
        solver: how the penalty acts.
        ramp: steps over which the strength rises from a thousandth of it, by the same factor each step: weights are
            caught at their levels one after the other, while those that are free make up for it. 0 for no rise.
        relative: the strength of a layer is strength * g, so that layers with large weights, the last ones mostly, are
            pulled as firmly as the others; the paper has one lambda_q for all.

    Raises:
        InvalidArgument: for a number out of its range, a pattern that no layer matches, or nothing to watch.
        UnsupportedLayer: for a layer whose weight is computed by a parametrization.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 1, bias=False))
        >>> _ = model[0].weight.data.copy_(torch.tensor([[1.0, -2.0, 0.25]]))  # g = 1.5
        >>> OneLevel(model, strength=2.0).energy().item()  # 2 (0.5 + 0.5 + 0.25)
        2.5
    """

    def __init__(
        self,
        model: nn.Module,
        strength: float = 1e-4,
        *,
        exclude: Sequence[str] = (),
        levels: int | Sequence[float] = 1,
        scope: Scope = Scope.LAYER,
        refresh: int = 50,
        solver: LevelSolver = LevelSolver.PAPER,
        ramp: int = 0,
        relative: bool = False,
    ) -> None:
        if not 0 <= strength < float("inf") or refresh < 0 or ramp < 0:
            raise InvalidArgument(
                "strength must be finite and at least 0, refresh and ramp at least 0, got "
                f"{strength}, {refresh} and {ramp}"
            )
        self.strength, self.refresh, self.solver, self.ramp, self.step = float(strength), refresh, solver, ramp, 0
        self.relative, self.levels, self.scope = relative, levels, scope
        self._rounds = Rounds()
        self._layers = quantized_layers(model, exclude)
        self._multiples = multiples_of(levels)
        self._scales = LayerScales(self._layers, self._multiples, scope)

    @property
    def scales(self) -> dict[str, float]:
        """g of each layer, as it is now."""
        return dict(self._scales.values)

    def energy(self) -> Float[Tensor, ""]:
        """strength * sum |w - Q(w)| over all layers; differentiable, with Q taken as constant."""
        terms = [
            self._strength_of(layer) * (layer.weight - self._scales.quantized(layer)).abs().sum()
            for layer in self._layers
        ]
        return torch.stack([term.to(terms[0].device) for term in terms]).sum()

    @torch.no_grad()
    def pull(self) -> None:
        """Add the gradient of `energy` to `.grad` of every watched weight (made where it is None)."""
        self._pull(self._layers)

    def attach(self, optimizer: Optimizer) -> Attachment:
        """Let the penalty act at every step of an optimizer.

        Args:
            optimizer: must hold at least one watched weight.

        Returns:
            A handle; `handle.remove()` undoes the attachment.

        Raises:
            InvalidArgument: where it holds none of them, or the proximal solver does not know its kind.
        """
        mine = held_by(optimizer, self._layers)
        self._rounds.restart()
        if self.solver is LevelSolver.PROXIMAL:
            step_metric(optimizer, mine[0].weight)
        return Attachment(
            optimizer, before=lambda _: self._before(mine), after=lambda stepped: self._after(stepped, mine)
        )

    def distances(self) -> dict[str, float]:
        """Mean |w - Q(w)| of each layer in units of its g; 0 where all weights are at a level."""
        found = {}
        for layer in self._layers:
            apart = float((layer.weight.detach() - self._scales.quantized(layer)).abs().mean())
            found[layer.name] = apart / self._scales.values[layer.name] if apart else 0.0
        return found

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold: strength, step, g of each layer."""
        return {
            "strength": torch.tensor(self.strength, dtype=torch.float64),
            "step": torch.tensor(self.step),
            **self._scales.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave.

        Raises:
            CheckpointError: where it belongs to another model.
        """
        self._scales.load_state_dict(state)
        self.strength, self.step = float(state["strength"]), int(state["step"])

    def _strength_of(self, layer: PrunedLayer) -> float:
        rise = RISE ** (min(1.0, self.step / self.ramp) - 1) if self.ramp else 1.0
        strength = self.strength * rise
        return strength * self._scales.values[layer.name] if self.relative else strength

    def _pull(self, layers: Sequence[PrunedLayer]) -> None:
        for layer in layers if self.strength else ():
            force = level_force(layer.weight.detach(), self._scales.values[layer.name], self._multiples)
            add_to_gradient(layer.weight, self._strength_of(layer) * force)

    @torch.no_grad()
    def _before(self, layers: Sequence[PrunedLayer]) -> None:
        if self.refresh and self.step % self.refresh == 0:
            self._scales.search()
        if self.solver is LevelSolver.PAPER:
            self._pull(layers)

    @torch.no_grad()
    def _after(self, optimizer: Optimizer, layers: Sequence[PrunedLayer]) -> None:
        if self.solver is LevelSolver.PROXIMAL and self.strength:
            for layer in layers:
                weight, level = layer.weight, self._scales.quantized(layer)
                step, metric = step_metric(optimizer, weight)
                apart = soft_threshold(weight - level, step * self._strength_of(layer), metric)
                # A weight that arrives takes the level's own bits, not a sum that rounds.
                weight.copy_(torch.where(apart == 0, level, level + apart))
        self.step += self._rounds.begin_with(optimizer)
