"""Progress of a training on the terminal: a bar where a person looks on, a line an epoch where a log is written."""

from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar


class Progress:
    """A bar that counts steps.

    Args:
        label: shown at the left.
        total: steps in all.
        done: steps done before, by a run that is resumed.
        quiet: show nothing.
    """

    def __init__(self, label: str, total: int, done: int = 0, quiet: bool = False) -> None:
        self._console = Console(quiet=quiet)
        self._label = label
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f} steps  loss {task.fields[loss]}"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=quiet or not self._console.is_terminal,
        )
        self._task = self._bar.add_task(label, total=total, completed=done, loss="-")

    def advance(self, loss: float) -> None:
        """Count one step."""
        self._bar.update(self._task, advance=1, loss=f"{loss:.4f}")

    def row(self, row: dict[str, Any]) -> None:
        """Print what an epoch gave."""
        zero = {layer: max(s["filters"], s["shapes"]) for layer, s in row["sparsity"].items()}
        sparse = "  ".join(f"{layer} {share:.0%}" for layer, share in zero.items() if share)
        self._console.print(
            f"{self._label}  epoch {row['epoch']:>3}  loss {row['train_loss']:.4f}  "
            f"validation {row['validation_accuracy']:.2%}" + (f"  zero groups: {sparse}" if sparse else ""),
            highlight=False,
            soft_wrap=True,
        )

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
