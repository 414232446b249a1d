"""Batch transform: what becomes of a batch of images before the network is trained on it, as the loop sees it.

`threats.multi_strength` has the implementation: attacked images beside, or in place of, clean ones.
"""

from typing import Any, Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class BatchTransform(Protocol):
    """What `training.train` asks of a transform; what it draws follows from the step."""

    def transform(self, step: int, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Give the batch that the network is trained on.

        Args:
            step: 0 for the first of the stage.
            inputs: of this process's batch.
            labels: of the inputs.

        Returns:
            Inputs and labels, of any number of images; the loss is the mean over them.
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
