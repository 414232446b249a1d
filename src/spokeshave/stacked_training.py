"""Training members as one stacked network: the one training loop, and a history for each member.

The loop sees a single network and a single loss; what each member lost and scored is counted beside it.
"""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from spokeshave.batch_transform import BatchTransform
from spokeshave.data import Batches
from spokeshave.errors import InvalidArgument, TrainingDiverged
from spokeshave.evaluation import Evaluation
from spokeshave.structures.member_stack import MemberStack
from spokeshave.train_settings import TrainSettings
from spokeshave.training import History, train


def train_stack(
    stack: MemberStack,
    transform: BatchTransform,
    batches: Batches,
    validation: Batches,
    settings: TrainSettings,
    run_dir: Path | None = None,
    resume: bool = False,
    names: Sequence[str] = (),
    log: Callable[[int, dict[str, Any]], None] | None = None,
) -> list[History]:
    """Train all members of a stack at once, in place.

    Args:
        stack: on the batches' device.
        transform: gives the images of all members for those of a batch, and reports on each under "members".
        batches: of the training split; every member sees each.
        validation: of a split held out of the training set.
        settings: of each member.
        run_dir: where checkpoints go; None for none.
        resume: go on from the checkpoint in `run_dir`, if there is one.
        names: of the members, for messages; empty for their numbers.
        log: called with the position of a member and each row of its history.

    Returns:
        A history a member. `sparsity` is empty in its rows.

    Raises:
        InvalidArgument: where the settings have what cannot be done for each member: keep_best, clip_norm,
            channels_last.
        TrainingDiverged: where the loss of a member became NaN or infinite; names the member.
    """
    refused = refused_by_stack(settings)
    if refused:
        raise InvalidArgument(
            f"{', '.join(refused)}: cannot be had for each member where all are trained as one network; leave it off, "
            "or train the members in turn or in processes"
        )
    names = names or [f"member {number + 1}" for number in range(stack.count)]
    scored = _ForEachMember(validation, stack)
    tally = _Tally(stack, transform, scored, settings.label_smoothing)
    handle = stack.register_forward_hook(tally.count)

    def tell(row: dict[str, Any]) -> None:
        for member in range(stack.count):
            if log is not None:
                log(member, _row_of(row, member))

    try:
        label = f"{stack.count} members as one"
        history = train(
            stack, batches, scored, settings, (), run_dir, resume, label, log=tell, transform=tally
        )  # fmt: skip
    except TrainingDiverged as error:
        lost = [name for name, loss in zip(names, tally.losses.tolist(), strict=True) if not math.isfinite(loss)]
        raise TrainingDiverged(f"{', '.join(lost) or 'unknown member'}: {error}") from error
    finally:
        handle.remove()
    return [_history_of(history, member) for member in range(stack.count)]


def refused_by_stack(settings: TrainSettings) -> list[str]:
    """Names of the settings that cannot be had for each member of a stack.

    Example:
        >>> refused_by_stack(TrainSettings(clip_norm=1.0))
        ['clip_norm']
    """
    return [name for name in ("keep_best", "clip_norm", "channels_last") if getattr(settings, name)]


def _history_of(history: History, member: int) -> History:
    rows = [_row_of(row, member) for row in history.rows]
    best = max(rows, key=lambda row: row["validation_accuracy"], default=None)  # the first of equal ones
    return History(rows, -1 if best is None else best["epoch"])


def _row_of(row: dict[str, Any], member: int) -> dict[str, Any]:
    return {**row, **row["transform"]["members"][member]}


class _ForEachMember(Batches):
    """Batches whose images come once for each member; what each member scored on them is counted meanwhile."""

    def __init__(self, batches: Batches, stack: MemberStack) -> None:
        vars(self).update(vars(copy.copy(batches)))
        self.stack = stack
        self.scores: list[Evaluation] = []

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        members, seen = self.stack.count, []
        correct, losses, images = torch.zeros(members), torch.zeros(members, dtype=torch.float64), 0
        handle = self.stack.register_forward_hook(lambda _module, _inputs, scores: seen.append(scores))
        try:
            for inputs, labels in super().__iter__():
                targets = labels.repeat(members)
                yield inputs.repeat(members, *[1] * (inputs.dim() - 1)), targets
                scores = seen.pop().float()
                correct += (scores.argmax(1) == targets).view(members, -1).sum(1).cpu()
                found = functional.cross_entropy(scores, targets, reduction="none")
                losses += found.view(members, -1).sum(1).double().cpu()
                images += len(labels)
        finally:
            handle.remove()
        self.scores = [
            Evaluation(right / images, loss / images, images)
            for right, loss in zip(correct.tolist(), losses.tolist(), strict=True)
        ]


class _Tally:
    """The transform, and what each member lost since the last report."""

    def __init__(
        self, stack: MemberStack, transform: BatchTransform, validation: _ForEachMember, smoothing: float
    ) -> None:
        self.stack, self.inner, self.validation, self.smoothing = stack, transform, validation, smoothing
        self.losses = torch.zeros(stack.count, dtype=torch.float64)
        self.steps = 0
        self.labels = torch.zeros(0)

    def transform(self, step: int, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """As the members' own; its labels are kept for the losses."""
        made, self.labels = self.inner.transform(step, inputs, labels)
        return made, self.labels

    @torch.no_grad()
    def count(self, stack: nn.Module, _inputs: object, scores: Tensor) -> None:
        """Count the losses of a training step; attacks and validation are in evaluation mode."""
        if not stack.training:
            return
        found = functional.cross_entropy(
            scores.detach().float(), self.labels, label_smoothing=self.smoothing, reduction="none"
        )
        self.losses += found.view(self.stack.count, -1).mean(1).double().cpu()
        self.steps += 1

    def report(self) -> dict[str, Any]:
        """A row's numbers of each member."""
        reports = self.inner.report()["members"]
        rows = [
            {
                "train_loss": loss / max(1, self.steps),
                "validation_accuracy": score.accuracy,
                "validation_loss": score.loss,
                "transform": report,
            }
            for loss, score, report in zip(self.losses.tolist(), self.validation.scores, reports, strict=True)
        ]
        self.losses.zero_()
        self.steps = 0
        return {"members": rows}

    def settings(self) -> dict[str, Any]:
        """As the members' own."""
        return self.inner.settings()

    def state_dict(self) -> dict[str, Tensor]:
        """The members' states, and the losses so far."""
        return {**self.inner.state_dict(), "tally": torch.cat([self.losses, torch.tensor([float(self.steps)])])}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state_dict` gave."""
        self.losses, self.steps = state["tally"][:-1].clone(), int(state["tally"][-1])
        self.inner.load_state_dict({name: value for name, value in state.items() if name != "tally"})
