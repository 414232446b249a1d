"""Attaching to an optimizer: something done before and after each of its steps, a handle, who does it."""

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.optim import Optimizer


def add_to_gradient(weight: Tensor, force: Tensor) -> None:
    """Add to `.grad` of a weight, made where it is None; a frozen one gets none, or an optimizer would move it."""
    if weight.requires_grad:
        weight.grad = force if weight.grad is None else weight.grad.add_(force)


class Attachment:
    """Hooks on one optimizer.

    A `GradScaler` leaves it to a fused optimizer to divide the gradients by the scale of the loss and to skip a step
    with gradients that are not finite. Here both come first: `before` finds gradients in the loss's units, and neither
    hook is called in a step that is skipped, as with any other optimizer.

    Args:
        optimizer: any torch optimizer.
        before: called with the optimizer before each step, gradients ready.
        after: called with the optimizer after each step.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        before: Callable[[Optimizer], None] | None = None,
        after: Callable[[Optimizer], None] | None = None,
    ) -> None:
        self._handles = []
        if before is not None:
            self._handles.append(optimizer.register_step_pre_hook(_adapt(before, first=_unscale)))
        if after is not None:
            self._handles.append(optimizer.register_step_post_hook(_adapt(after)))

    @property
    def active(self) -> bool:
        """Whether the hooks are on."""
        return bool(self._handles)

    def remove(self) -> None:
        """Take the hooks off; calling it again does nothing."""
        while self._handles:
            self._handles.pop().remove()


class Rounds:
    """Tells which steps of several optimizers count as one: a round ends where one that stepped in it steps again.

    Example:
        >>> import torch
        >>> rounds, weights = Rounds(), [torch.zeros(1)]
        >>> first, second = torch.optim.SGD(weights), torch.optim.SGD(weights)
        >>> [rounds.begin_with(stepping) for stepping in (first, second, first, second)]
        [True, False, True, False]
    """

    def __init__(self) -> None:
        self._stepped: list[Optimizer] = []

    def restart(self) -> None:
        """Let the next step begin a round."""
        self._stepped = []

    def begin_with(self, optimizer: Optimizer) -> bool:
        """Note a step, and say whether a round begins with it."""
        begins = not self._stepped or any(optimizer is stepped for stepped in self._stepped)
        self._stepped = [optimizer] if begins else [*self._stepped, optimizer]
        return begins


@runtime_checkable
class Regularizer(Protocol):
    """What every regularizer has, so that any training loop can use and checkpoint it."""

    strength: float

    def energy(self) -> Tensor:
        """The penalty, a scalar."""
        ...

    def pull(self) -> None:
        """Add the gradient of the penalty to `.grad` of the watched weights."""
        ...

    def attach(self, optimizer: Optimizer) -> Attachment:
        """Act at every step of an optimizer."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Tensors that a checkpoint must hold."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        ...


def settings_of(regularizer: object) -> dict[str, Any]:
    """What tells a regularizer that has not acted yet from one of the same class made with other arguments.

    Returns:
        Its class and its public attributes, as far as they are JSON values.

    Example:
        >>> from torch import nn
        >>> from spokeshave.regularizers import Force
        >>> found = settings_of(Force(nn.Conv2d(1, 2, 1), strength=0.5))
        >>> found["class"], found["strength"], found["kind"]
        ('Force', 0.5, 'l2')
    """
    attributes = getattr(regularizer, "__dict__", {})  # of somebody's own class, there may be none
    public = {name: _plain(value) for name, value in attributes.items() if not name.startswith("_")}
    return {"class": type(regularizer).__name__, **{n: value for n, value in public.items() if value is not _OTHER}}


_OTHER = object()


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        items = {str(key): _plain(item) for key, item in value.items()}
        return _OTHER if any(item is _OTHER for item in items.values()) else items
    if isinstance(value, (list, tuple)):
        entries = [_plain(item) for item in value]
        return _OTHER if any(item is _OTHER for item in entries) else entries
    return value if value is None or isinstance(value, (bool, int, float, str)) else _OTHER


def _adapt(
    action: Callable[[Optimizer], None], first: Callable[[Optimizer], None] | None = None
) -> Callable[..., None]:
    def hook(optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        overflow = getattr(optimizer, "found_inf", None)
        if overflow is not None and bool(overflow):
            return
        if first is not None:
            first(optimizer)
        action(optimizer)

    return hook


@torch.no_grad()
def _unscale(optimizer: Optimizer) -> None:
    scale = getattr(optimizer, "grad_scale", None)
    if scale is None:
        return
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                parameter.grad.div_(scale.to(parameter.grad.device))
    optimizer.__dict__["grad_scale"] = None  # the step would divide again
