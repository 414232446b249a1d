"""Gradient exchange: how workers make one gradient of theirs, as the training loop sees it.

`communication` has the implementations: a hook on DistributedDataParallel, and virtual workers in one process.
"""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn


@runtime_checkable
class GradientExchange(Protocol):
    """What `training.train` asks of an exchange; all that changes from step to step follows from the step."""

    def attach(self, network: nn.Module) -> None:
        """Take the network, before the first step.

        Args:
            network: the bare one in a process that runs alone, else wrapped by DistributedDataParallel.
        """
        ...

    def backward(
        self, step: int, inputs: Tensor, labels: Tensor, one_worker: Callable[[Tensor, Tensor], float]
    ) -> float:
        """Leave in `.grad`, which is empty, what the workers agreed on.

        Args:
            step: 0 for the first of the stage.
            inputs: of this process's batch.
            labels: of the inputs.
            one_worker: adds the gradient of a batch to `.grad`, and returns its loss.

        Returns:
            The loss to show.
        """
        ...

    def report(self) -> dict[str, Any]:
        """What to note at the end of an epoch, of its last step; JSON values."""
        ...

    def settings(self) -> dict[str, Any]:
        """What must be the same for a resumed run to be the same run; JSON values."""
        ...
