"""Guided L1: single weights are pulled to zero while a network is trained, in the layers where that makes it faster.

Park et al., ICLR 2017, section 2.3 (element-wise lasso with guidance, "GESL"):

    E(W) = E_D(W) + lambda * sum over layers l of  m_l * |W_l|

Departs from the paper: the default solver is a proximal step, a soft threshold of step * lambda * m_l, which needs no
threshold of its own and works with Adam too; `L1Solver.PAPER` is the released code's rule.
"""

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from spokeshave.errors import InvalidArgument
from spokeshave.regularizers.guidance import Guide
from spokeshave.regularizers.optimizer_hooks import Attachment, add_to_gradient
from spokeshave.regularizers.proximal_step import step_metric
from spokeshave.structures.pruned_layers import Multipliers, PrunedLayer, held_by, pruned_layers
from spokeshave.structures.sparsity import LayerSparsity, layer_sparsity


class L1Solver(Enum):
    """How the penalty acts on the weights."""

    PROXIMAL = "proximal"
    """A soft threshold after each optimizer step; zeros are exact and may revive."""
    PAPER = "paper"
    """The released code's: lambda * sign(W) is added to the gradient, then small weights become zero."""


def soft_threshold(
    weight: Float[Tensor, "..."], threshold: float, metric: Float[Tensor, "..."] | None = None
) -> Float[Tensor, "..."]:
    """sign(w) * max(|w| - threshold / metric, 0), the proximal step of the L1 norm.

    Args:
        weight: after the optimizer's step.
        threshold: step length * lambda, at least 0.
        metric: diagonal metric of an adaptive optimizer; None for ones.

    Example:
        >>> soft_threshold(torch.tensor([3.0, -0.5]), 1.0).tolist()
        [2.0, -0.0]
    """
    shift = threshold if metric is None else threshold / metric
    return weight.sign() * (weight.abs() - shift).clamp_min(0.0)


def paper_threshold(
    update: Float[Tensor, "..."], threshold: float = 1e-4, factor: float = 10.0
) -> Float[Tensor, "..."]:
    """th0 / (|d| + 1/f): weights that still move fast have a lower threshold; th0 for a factor below 2.

    Args:
        update: d, what the optimizer just took off each weight (its momentum included).
        threshold: th0.
        factor: f, the most by which the threshold grows.

    Example:
        >>> [round(t, 6) for t in paper_threshold(torch.tensor([0.0, 0.9])).tolist()]  # 10 and 1 times th0
        [0.001, 0.0001]
    """
    if factor < 2:
        return torch.full_like(update, threshold)
    return threshold / (update.abs() + 1 / factor)


class GuidedL1:
    """Pulls single weights of a model to zero while it is trained, in any training loop.

    Args:
        model: its weights are watched, not changed by making this object.
        strength: lambda of the equation above, at least 0; may be changed at any time.
        layers: m_l, for all layers or by a pattern on their names.
        solver: how the penalty acts.
        threshold: th0 of `L1Solver.PAPER`, at least 0.
        factor: f of `L1Solver.PAPER`, at least 0.
        guide: decides on the fly which layers are pulled; None pulls all.

    Raises:
        InvalidArgument: for a number out of its range, a pattern that no layer matches, or nothing to watch.
        UnsupportedLayer: for a layer whose weight is computed by a parametrization.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False))
        >>> _ = model[0].weight.data.fill_(-0.5)
        >>> GuidedL1(model, strength=3.0).energy().item()
        3.0
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        strength: float = 1.0,
        layers: Multipliers = 1.0,
        solver: L1Solver = L1Solver.PROXIMAL,
        threshold: float = 1e-4,
        factor: float = 10.0,
        guide: Guide | None = None,
    ) -> None:
        for name, value in (("strength", strength), ("threshold", threshold), ("factor", factor)):
            if not 0 <= value < float("inf"):
                raise InvalidArgument(f"{name} must be a finite number of at least 0, got {value}")
        self.strength, self.solver, self.threshold, self.factor = float(strength), solver, threshold, factor
        self.guide = guide
        self.step = 0
        self._layers = pruned_layers(model, layers)
        if guide is not None:
            guide.watch(layer.name for layer in self._layers)
        self._earlier: dict[str, Tensor] = {}

    def energy(self) -> Float[Tensor, ""]:
        """The penalty over the layers that are pulled now; differentiable."""
        terms = [layer.multiplier * layer.weight.abs().sum() for layer in self._pulled(self._layers)]
        return self.strength * torch.stack([torch.zeros(()), *(term.cpu() for term in terms)]).sum()

    @torch.no_grad()
    def pull(self) -> None:
        """Add the gradient of `energy` to `.grad` of every weight that is pulled now (made where it is None)."""
        for layer in self._pulled(self._layers):
            add_to_gradient(layer.weight, self.strength * layer.multiplier * layer.weight.sign())

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
        if self.solver is L1Solver.PROXIMAL:
            step_metric(optimizer, mine[0].weight)
        return Attachment(
            optimizer, before=lambda _: self._before(mine), after=lambda stepped: self._after(stepped, mine)
        )

    def statistics(self) -> dict[str, LayerSparsity]:
        """Shares of exact zeros of each watched layer."""
        return {layer.name: layer_sparsity(layer.module) for layer in self._layers}

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold: strength, step, and the guide's state."""
        own = {"strength": torch.tensor(self.strength, dtype=torch.float64), "step": torch.tensor(self.step)}
        guide = {} if self.guide is None else self.guide.state_dict()
        return own | {f"guide.{name}": value for name, value in guide.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave.

        Raises:
            CheckpointError: where it belongs to another model.
        """
        self.strength, self.step = float(state["strength"]), int(state["step"])
        if self.guide is not None:
            self.guide.load_state_dict({n[6:]: value for n, value in state.items() if n.startswith("guide.")})

    def _pulled(self, layers: Sequence[PrunedLayer]) -> list[PrunedLayer]:
        return [layer for layer in layers if self.guide is None or self.guide.pulls(layer.name)]

    @torch.no_grad()
    def _before(self, layers: Sequence[PrunedLayer]) -> None:
        if self.guide is not None:
            self.guide.observe(self.step)
        if self.solver is L1Solver.PAPER:
            self.pull()
            self._earlier = {layer.name: layer.weight.clone() for layer in self._pulled(layers)}

    @torch.no_grad()
    def _after(self, optimizer: Optimizer, layers: Sequence[PrunedLayer]) -> None:
        for layer in self._pulled(layers):
            weight = layer.weight
            if self.solver is L1Solver.PAPER:
                update = self._earlier[layer.name] - weight
                weight.masked_fill_(weight.abs() < paper_threshold(update, self.threshold, self.factor), 0.0)
            else:
                step, metric = step_metric(optimizer, weight)
                weight.copy_(soft_threshold(weight, step * self.strength * layer.multiplier, metric))
        if self.guide is not None:
            self.guide.hold()
        self.step += 1
