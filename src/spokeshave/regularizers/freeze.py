"""Freeze: zeros stay zero while the rest is fine-tuned (SSL's third stage, "connectivity_mode" of the authors' code).

Wen et al., NIPS 2016: train - SSL - freeze the zero groups and fine-tune the others, without the penalty. It is the
indicator penalty of the set of weights that are zero where they were zero when the freeze was made.
Departs from the paper: nothing known.
"""

from collections.abc import Mapping
from enum import Enum

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.optim import Optimizer

from spokeshave.errors import CheckpointError, InvalidArgument
from spokeshave.regularizers.optimizer_hooks import Attachment
from spokeshave.structures.groups import CONVOLUTIONS, Grouping, GroupKind


class Frozen(Enum):
    """Which zeros are kept."""

    GROUPS = "groups"
    """Weights in an all-zero row or column of the lowered matrix (the authors' DISCONNECTED_GRPWISE)."""
    ELEMENTS = "elements"
    """Every zero weight (the authors' DISCONNECTED_ELTWISE)."""


def alive_mask(module: nn.Module, frozen: Frozen = Frozen.GROUPS) -> Bool[Tensor, "..."]:
    """True where a weight may move.

    Args:
        module: a convolution or a linear layer.
        frozen: which zeros are kept.

    Returns:
        A mask of the weight's shape.

    Example:
        >>> layer = nn.Linear(2, 2, bias=False)
        >>> _ = layer.weight.data.copy_(torch.tensor([[0.0, 0.0], [0.0, 1.0]]))
        >>> alive_mask(layer).tolist()
        [[False, False], [False, True]]
    """
    weight = module.get_parameter("weight").detach()
    if frozen is Frozen.ELEMENTS:
        return weight != 0
    mask = torch.ones_like(weight, dtype=torch.bool)
    for kind in (GroupKind.FILTER, GroupKind.SHAPE):
        grouping = Grouping.of(module, kind)
        mask &= grouping.spread(~grouping.zero(weight))
    return mask


class Freeze:
    """Keeps the zeros of a model, as they are when this object is made, through any optimizer.

    Args:
        model: its convolutions and linear layers are looked at once, now.
        frozen: which zeros are kept.
        strength: 1 holds the zeros, 0 lets go of them.

    Raises:
        InvalidArgument: where there is no convolution or linear layer, or strength is neither 0 nor 1.
    """

    def __init__(self, model: nn.Module, frozen: Frozen = Frozen.GROUPS, strength: float = 1.0) -> None:
        if strength not in (0.0, 1.0):
            raise InvalidArgument(f"a freeze holds (strength 1) or lets go (0), got strength={strength}")
        self.strength = strength
        layers = {n: m for n, m in model.named_modules() if isinstance(m, (*CONVOLUTIONS, nn.Linear))}
        # A weight that a parametrization computes has no zeros of its own to hold.
        self._layers = {n: m for n, m in layers.items() if "weight" in m._parameters}
        if not self._layers:
            raise InvalidArgument("nothing to freeze: the model has no convolution and no linear layer")
        self.masks = {name: alive_mask(module, frozen) for name, module in self._layers.items()}

    def energy(self) -> Float[Tensor, ""]:
        """0 while every frozen weight is zero, infinite otherwise."""
        broken = any(bool((self._weight(name)[~mask] != 0).any()) for name, mask in self.masks.items())
        return torch.tensor(float("inf") if broken and self.strength else 0.0)

    @torch.no_grad()
    def pull(self) -> None:
        """Set the gradient of every frozen weight to zero."""
        for name, mask in self.masks.items():
            gradient = self._weight(name).grad
            if gradient is not None and self.strength:
                gradient.mul_(mask.to(gradient.device))

    def attach(self, optimizer: Optimizer) -> Attachment:
        """Hold the zeros at every step of an optimizer, whatever its momentum buffers hold.

        Returns:
            A handle; `handle.remove()` undoes the attachment.

        Raises:
            InvalidArgument: where the optimizer holds none of the weights.
        """
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        if not any(id(self._weight(name)) in held for name in self.masks):
            raise InvalidArgument("the optimizer holds none of the frozen weights: make it from the same model")
        return Attachment(optimizer, before=lambda _: self.pull(), after=lambda _: self._restore())

    def state_dict(self) -> dict[str, Tensor]:
        """The masks, by layer name."""
        return dict(self.masks)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over the masks of a checkpoint.

        Raises:
            CheckpointError: where the layers or shapes are not this model's.
        """
        expected = {name: tuple(mask.shape) for name, mask in self.masks.items()}
        got = {name: tuple(mask.shape) for name, mask in state.items()}
        if expected != got:
            raise CheckpointError(f"the freeze masks belong to another model: expected {expected}, got {got}")
        self.masks = {name: mask.bool() for name, mask in state.items()}

    @torch.no_grad()
    def _restore(self) -> None:
        for name, mask in self.masks.items():
            weight = self._weight(name)
            if self.strength:
                weight.masked_fill_(~mask.to(weight.device), 0.0)

    def _weight(self, name: str) -> Tensor:
        return self._layers[name].get_parameter("weight")
