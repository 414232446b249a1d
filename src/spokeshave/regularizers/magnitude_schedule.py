"""Magnitude schedule: a network is pruned to a given sparsity while it is trained, in small bites that get smaller.

Zhu and Gupta: To prune, or not to prune, 2017, equation 1, with s_i = 0:

    s(t) = s_f * (1 - (1 - (t - t_0) / n)^3)

Departs from the paper: pruned weights are trained on out of sight and may come back until the last bite (the paper's
keep their value); the smallest weights may be looked for in all layers together.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from spokeshave.errors import CheckpointError, InvalidArgument
from spokeshave.regularizers.guidance import Guide
from spokeshave.regularizers.hidden_weights import HidesWeights
from spokeshave.regularizers.optimizer_hooks import Attachment
from spokeshave.structures.magnitude_mask import Scope, scoped_masks
from spokeshave.structures.pruned_layers import Multipliers, PrunedLayer, held_by, pruned_layers


def cubic_ramp(share: float) -> float:
    """1 - (1 - t)^3 for t in 0..1, 0 before and 1 after: how much of the target is reached.

    Example:
        >>> [cubic_ramp(t) for t in (-1.0, 0.0, 0.5, 1.0)]
        [0.0, 0.0, 0.875, 1.0]
    """
    return 1 - (1 - min(max(share, 0.0), 1.0)) ** 3


class MagnitudeSchedule(HidesWeights):
    """Prunes the smallest weights of a model to a target while it is trained, in any training loop.

    Args:
        model: its weights are watched, not changed by making this object.
        sparsity: share of zeros at the end, 0..1: of all layers, or by a pattern on their names.
        steps: optimizer steps from the first to the last bite, at least 1.
        begin: optimizer steps before the first, at least 0.
        every: steps between bites, at least 1.
        scope: where the smallest weights are looked for: in each layer, or in all with the same target together.
        strength: 1 prunes, 0 lets go.
        guide: decides on the fly which layers are pruned; None prunes all.

    Raises:
        InvalidArgument: for a number out of its range, a pattern that no layer matches, or nothing to prune.
        UnsupportedLayer: for a layer whose weight is computed by a parametrization.

    Example:
        >>> schedule = MagnitudeSchedule(nn.Linear(4, 2), 0.8, steps=100, begin=50)
        >>> [round(schedule.target(step), 3) for step in (50, 100, 150, 900)]
        [0.0, 0.875, 1.0, 1.0]
    """

    def __init__(
        self,
        model: nn.Module,
        sparsity: Multipliers,
        *,
        steps: int,
        begin: int = 0,
        every: int = 50,
        scope: Scope = Scope.LAYER,
        strength: float = 1.0,
        guide: Guide | None = None,
    ) -> None:
        if steps < 1 or begin < 0 or every < 1 or strength not in (0.0, 1.0):
            raise InvalidArgument(
                "expected steps and every of at least 1, begin of at least 0 and a strength of 1 (prunes) or 0 (does "
                f"not), got {steps}, {every}, {begin} and {strength}"
            )
        super().__init__(pruned_layers(model, sparsity, most=1.0), strength, guide)
        self.begin, self.steps, self.every, self.scope = begin, steps, every, scope
        self.masks: dict[str, Tensor] = {}

    def target(self, step: int) -> float:
        """Share of the final sparsity that is reached after a number of steps, 0..1."""
        return cubic_ramp((step - self.begin) / self.steps)

    def energy(self) -> Float[Tensor, ""]:
        """0: pruning by magnitude has no penalty."""
        return torch.zeros(())

    def pull(self) -> None:
        """Nothing: there is no penalty to pull by."""

    def attach(self, optimizer: Optimizer) -> Attachment:
        """Prune at the steps of an optimizer. Attach it after regularizers that act on all weights, such as L1.

        Returns:
            A handle; `handle.remove()` undoes the attachment. What was pruned stays zero until it is trained.

        Raises:
            InvalidArgument: where it holds none of the weights.
        """
        mine = held_by(optimizer, self._layers)
        return Attachment(optimizer, before=lambda _: self._before(mine), after=lambda _: self._after(mine))

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold: strength, step, masks, the pruned weights' values, the guide's state."""
        return super().state_dict() | {f"mask.{name}": mask for name, mask in self.masks.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave.

        Raises:
            CheckpointError: where it belongs to another model.
        """
        shapes = {layer.name: layer.weight.shape for layer in self._layers}
        masks = {name[5:]: mask.bool() for name, mask in state.items() if name.startswith("mask.")}
        foreign = [name for name, mask in masks.items() if shapes.get(name) != mask.shape]
        if foreign:
            raise CheckpointError(f"the masks of {foreign} belong to another model; this one has {shapes}")
        super().load_state_dict(state)
        self.masks = masks

    def _before(self, layers: Sequence[PrunedLayer]) -> None:
        if self.guide is not None:
            self.guide.observe(self.step)
        for layer in layers:
            if not self._pulls(layer):
                self._hidden.forget(layer.name)
                self.masks.pop(layer.name, None)
            self._hidden.show(layer.name, layer.weight)

    def _after(self, layers: Sequence[PrunedLayer]) -> None:
        self.step += 1
        since, last = self.step - self.begin, self.step >= self.begin + self.steps
        pruned = [layer for layer in layers if self._pulls(layer)]
        if self.strength and (since == self.steps or (0 <= since < self.steps and since % self.every == 0)):
            reached = self.target(self.step)
            weights = {layer.name: layer.weight for layer in pruned}
            shares = {layer.name: reached * layer.multiplier for layer in pruned}
            self.masks |= scoped_masks(weights, shares, self.scope)
        for layer in pruned:
            if self.strength and layer.name in self.masks:
                self._hidden.hide(layer.name, layer.weight, self.masks[layer.name].to(layer.weight.device))
                if last:
                    self._hidden.forget(layer.name)
        if self.guide is not None:
            self.guide.hold()
