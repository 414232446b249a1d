"""Attaching to an optimizer: something done before and after each of its steps, a handle, who does it."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

from torch import Tensor
from torch.optim import Optimizer


def add_to_gradient(weight: Tensor, force: Tensor) -> None:
    """Add to `.grad` of a weight, made where it is None; a frozen one gets none, or an optimizer would move it."""
    if weight.requires_grad:
        weight.grad = force if weight.grad is None else weight.grad.add_(force)


class Attachment:
    """Hooks on one optimizer.

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
            self._handles.append(optimizer.register_step_pre_hook(_adapt(before)))
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


def _adapt(action: Callable[[Optimizer], None]) -> Callable[..., None]:
    def hook(optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        action(optimizer)

    return hook
