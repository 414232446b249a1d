"""Attaching to an optimizer: something done before and after each of its steps, and a handle that undoes it."""

from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer


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

    def remove(self) -> None:
        """Take the hooks off; calling it again does nothing."""
        while self._handles:
            self._handles.pop().remove()


def _adapt(action: Callable[[Optimizer], None]) -> Callable[..., None]:
    def hook(optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        action(optimizer)

    return hook
