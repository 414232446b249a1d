"""Force regularization: filters of a layer attract each other, so that a few directions hold them all.

Wen, Xu, Wu, Wang, Chen, Li: Coordinating Filters for Faster Deep Neural Networks, ICCV 2017, equations 4 to 8. With
unit vectors w_i = W_i / ||W_i|| of the N filters of a layer,

    L2: f_ji = w_j - w_i        L1: f_ji = (w_j - w_i) / ||w_j - w_i||
    dW_i = ||W_i|| * sum_j (f_ji - (f_ji . w_i) w_i)        dE/dW_i is lowered by strength * dW_i

The sum over j is taken in closed form: O(N D) for L2, one N x N product for L1.
The update is not the gradient of an energy: it is ||W_i||^2 / 2 times minus the gradient of
R_L2 = 1/2 sum_ij ||w_j - w_i||^2 or R_L1 = sum_ij ||w_j - w_i||, which `energy` gives.
Departs from the paper: pairs are skipped below sqrt(8 eps) of the number format instead of 1e-4.
"""

import math
from collections.abc import Mapping
from enum import Enum

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from spokeshave.errors import CheckpointError, InvalidArgument, UnsupportedLayer
from spokeshave.regularizers.optimizer_hooks import Attachment, Rounds
from spokeshave.structures.pruned_layers import Multipliers, PrunedLayer, held_by, pruned_layers
from spokeshave.structures.tiles import CONVOLUTIONS, crossbar_matrices, from_crossbar_matrices


class Pull(Enum):
    """How a pair of filters attracts each other."""

    L2 = "l2"
    """In proportion to their distance; draws all layers evenly (the authors' "Degradation")."""
    L1 = "l1"
    """The same at every distance; collapses some layers to very low rank (the authors' "Constant")."""


class Components(Enum):
    """Which components of the force act."""

    ALL = "all"
    SAME = "same"
    """Those that do not oppose the gradient of the loss."""


class Scale(Enum):
    """What strength is measured in."""

    FIXED = "fixed"
    """The paper's equation."""
    ADAPTIVE = "adaptive"
    """The force of a layer has `strength` times the norm of the gradient of its loss."""


def filter_forces(
    filters: Float[Tensor, "... filters taps"], pull: Pull = Pull.L2
) -> Float[Tensor, "... filters taps"]:
    """dW of the equation above, for every filter.

    Args:
        filters: one a row; leading dimensions are sets of filters that do not see each other.
        pull: how pairs attract.

    Returns:
        The forces: each is at right angles to its filter; 0 for a filter of zeros, which exerts none either.

    Example:
        >>> filter_forces(torch.tensor([[3.0, 0.0], [0.0, 2.0]])).tolist()  # each is drawn straight to the other
        [[0.0, 3.0], [2.0, 0.0]]
    """
    norms = torch.linalg.vector_norm(filters, dim=-1, keepdim=True)
    alive = norms > torch.finfo(filters.dtype).tiny
    units = torch.where(alive, filters / torch.where(alive, norms, 1.0), 0.0)
    if pull is Pull.L2:
        towards = units.sum(-2, keepdim=True).expand_as(units)
    else:
        inverse = _inverse_distances(units, alive)
        towards = inverse @ units - inverse.sum(-1, keepdim=True) * units
    tangent = towards - (towards * units).sum(-1, keepdim=True) * units
    return torch.where(alive, norms * tangent, 0.0)


def filter_energy(filters: Float[Tensor, "... filters taps"], pull: Pull = Pull.L2) -> Float[Tensor, ""]:
    """R of the equation above, over all pairs; differentiable, also where filters are zero or equal."""
    norms = torch.linalg.vector_norm(filters, dim=-1, keepdim=True)
    alive = norms > torch.finfo(filters.dtype).tiny
    units = filters / torch.where(alive, norms, 1.0)
    squares = (2 - 2 * units @ units.transpose(-1, -2)).clamp_min(0)
    counted = (alive & alive.transpose(-1, -2)).to(squares)
    if pull is Pull.L2:
        return 0.5 * (squares * counted).sum()
    apart = squares > _nearest(filters.dtype)
    return (torch.where(apart, squares, 1.0).sqrt() * apart * counted).sum()


class Force:
    """Pulls the filters of each layer toward each other while a model is trained, in any training loop.

    Args:
        model: its weights are watched, not changed by making this object.
        strength: lambda_s of the paper: any finite number; below 0 filters repel each other.
        kind: how pairs attract.
        layers: factors on strength, for all layers or by a pattern on their names (convolutions and linear layers, not
            transposed ones). None is every convolution. The authors leave out a ResNet's first convolution and its
            shortcuts.
        components: which components of the force act.
        scale: what strength is measured in.
        steps: the force ends after so many steps; None is never.

    Raises:
        InvalidArgument: for a number out of its range, a pattern that no layer matches, or nothing to watch.
        UnsupportedLayer: for a layer whose weight is computed by a parametrization, or a transposed convolution.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 2, (1, 2), bias=False))
        >>> _ = model[0].weight.data.copy_(torch.tensor([[3.0, 0.0], [0.0, 2.0]]).view(2, 1, 1, 2))
        >>> Force(model, strength=1.0).energy().item()  # unit vectors at right angles: 1/2 (2 + 2)
        2.0
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        strength: float = 1e-3,
        kind: Pull = Pull.L2,
        layers: Multipliers | None = None,
        components: Components = Components.ALL,
        scale: Scale = Scale.FIXED,
        steps: int | None = None,
    ) -> None:
        if not math.isfinite(strength):
            raise InvalidArgument(f"strength must be finite (below 0 filters repel each other), got {strength}")
        if steps is not None and steps < 0:
            raise InvalidArgument(f"steps must be at least 0, or None for no end, got {steps}")
        if layers is None:
            layers = {name: 1.0 for name, module in model.named_modules() if isinstance(module, CONVOLUTIONS)}
            if not layers:
                raise InvalidArgument("nothing to pull: the model has no convolution; name linear layers with layers=")
        self.strength, self.kind, self.components, self.scale, self.steps = strength, kind, components, scale, steps
        self.step = 0
        self._rounds = Rounds()
        try:
            self._layers = pruned_layers(model, layers)
        except UnsupportedLayer as error:
            raise UnsupportedLayer(str(error).split(", so nothing")[0] + "; leave it out of layers=") from error
        for layer in self._layers:
            crossbar_matrices(layer.name, layer.module)  # refuses, by name, what has no filters in rows

    def energy(self) -> Float[Tensor, ""]:
        """R over all watched layers, times strength; differentiable. The head of the file says how `pull` differs."""
        terms = [layer.multiplier * filter_energy(_filters(layer), self.kind) for layer in self._layers]
        return self.strength * torch.stack([term.to(terms[0].device) for term in terms]).sum()

    @torch.no_grad()
    def pull(self) -> None:
        """Take strength times the force off `.grad` of every watched weight (made where it is None)."""
        self._pull(self._layers)

    def attach(self, optimizer: Optimizer) -> Attachment:
        """Let the force act at every step of an optimizer.

        Returns:
            A handle; `handle.remove()` undoes the attachment.

        Raises:
            InvalidArgument: where the optimizer holds none of the watched weights.
        """
        mine = held_by(optimizer, self._layers)
        self._rounds.restart()

        def before(stepping: Optimizer) -> None:
            if self.steps is None or self.step < self.steps:
                self._pull(mine)
            self.step += self._rounds.begin_with(stepping)

        return Attachment(optimizer, before=before)

    def state_dict(self) -> dict[str, Tensor]:
        """Steps so far."""
        return {"step": torch.tensor(self.step)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over the steps of a checkpoint.

        Raises:
            CheckpointError: where it holds none.
        """
        if set(state) != {"step"}:
            raise CheckpointError(f"expected the steps of a force, got {sorted(state) or 'nothing'}")
        self.step = int(state["step"])

    @torch.no_grad()
    def _pull(self, layers: list[PrunedLayer]) -> None:
        if self.strength == 0:
            return
        for layer in layers:
            weight = layer.weight
            if not weight.requires_grad:  # with a gradient, an optimizer would move what is frozen
                continue
            forces = from_crossbar_matrices(filter_forces(_filters(layer), self.kind).transpose(1, 2), weight)
            change = -self.strength * layer.multiplier * forces
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
            if self.scale is Scale.ADAPTIVE:
                length = torch.linalg.vector_norm(forces)
                change *= torch.where(length > 0, torch.linalg.vector_norm(weight.grad) / length, 0.0)
            if self.components is Components.SAME:
                change *= change * weight.grad >= 0
            weight.grad.add_(change)


def _filters(layer: PrunedLayer) -> Float[Tensor, "groups filters taps"]:
    return crossbar_matrices(layer.name, layer.module).transpose(1, 2)


def _inverse_distances(units: Tensor, alive: Tensor) -> Tensor:
    squares = 2 - 2 * units @ units.transpose(-1, -2)
    pairs = (squares > _nearest(units.dtype)) & alive & alive.transpose(-1, -2)
    return torch.where(pairs, squares, 1.0).rsqrt() * pairs


def _nearest(dtype: torch.dtype) -> float:
    """Square of the smallest distance of two unit vectors that is told from rounding."""
    return 8 * torch.finfo(dtype).eps
