"""Training objective: what a step makes small, as the training loop sees it.

The cross entropy of a batch, or what `adaptation` makes of it beside images of another domain.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor
from torch.nn import functional


@runtime_checkable
class Objective(Protocol):
    """What `training.train` asks of an objective; what it draws follows from the step."""

    def loss(self, forward: Callable[..., Any], step: int, steps: int, inputs: Tensor, labels: Tensor) -> Tensor:
        """Give the loss of one batch.

        Args:
            forward: the model that is trained, or what shares it out to processes.
            step: 0 for the first of the stage.
            steps: of the whole stage.
            inputs: of this process's batch.
            labels: of the inputs.

        Returns:
            A scalar with a gradient.
        """
        ...

    def report(self) -> dict[str, Any]:
        """What to note at the end of an epoch; JSON values."""
        ...

    def settings(self) -> dict[str, Any]:
        """What must be the same for a resumed run to be the same run; JSON values."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """What a resumed run needs to go on alike."""
        ...

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over what `state_dict` gave."""
        ...


@dataclass(frozen=True)
class CrossEntropy:
    """The mean cross entropy of a batch.

    Attributes:
        label_smoothing: 0..1.
    """

    label_smoothing: float = 0.0

    def loss(self, forward: Callable[..., Any], step: int, steps: int, inputs: Tensor, labels: Tensor) -> Tensor:
        """Of the scores that the model gives."""
        return functional.cross_entropy(forward(inputs).float(), labels, label_smoothing=self.label_smoothing)

    def report(self) -> dict[str, Any]:
        """Nothing beside the loss."""
        return {}

    def settings(self) -> dict[str, Any]:
        """Nothing that the settings of the training do not say."""
        return {}

    def state_dict(self) -> dict[str, Tensor]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Nothing to take over."""
