"""TensorBoard: the history of a training as scalars, for those who watch runs there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from spokeshave.optional import require


def tensorboard_log(folder: Path, stage: str) -> Callable[[dict[str, Any]], None]:
    """Make a `log` for `train` that writes each epoch's row as TensorBoard scalars.

    Args:
        folder: of the event files; several stages and runs may share it.
        stage: first part of every tag, as in "ssl/train_loss".

    Returns:
        The function to hand to `train`.

    Raises:
        MissingExtra: where tensorboard is not installed.
    """
    require("tensorboard", "logging to TensorBoard")
    from torch.utils.tensorboard import SummaryWriter

    def log(row: dict[str, Any]) -> None:
        # Opened for each row: a killed run loses nothing, and no file stays open between epochs.
        with SummaryWriter(str(folder)) as writer:
            for name in ("train_loss", "validation_accuracy", "validation_loss", "learning_rate"):
                writer.add_scalar(f"{stage}/{name}", row[name], row["step"])
            for layer, shares in row["sparsity"].items():
                for kind, share in shares.items():
                    writer.add_scalar(f"{stage}/zero_{kind}/{layer}", share, row["step"])

    return log
