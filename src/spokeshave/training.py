"""The one training loop: any model, any regularizers, checkpoints that resume bit for bit, CPU, GPU or `torchrun`.

Everything that changes from step to step is either a pure function of the step (batches, learning rate) or in the
checkpoint (weights, optimizer, random state, best weights so far, history), so a run killed at any moment and resumed
ends with the same bytes as one that was not, in one process on a CPU with the same number of threads. Under `torchrun`
call `processes.join_processes()` first and give each process its share; the first one writes the checkpoints.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from spokeshave.batch_transform import BatchTransform
from spokeshave.checkpoints import Checkpoint, has_checkpoint, load_checkpoint, save_checkpoint
from spokeshave.data import Batches
from spokeshave.divergence import first_non_finite
from spokeshave.errors import CheckpointError, TrainingDiverged
from spokeshave.evaluation import evaluate
from spokeshave.gradient_exchange import GradientExchange
from spokeshave.processes import is_first, wait_for_all
from spokeshave.progress import Progress
from spokeshave.regularizers import Regularizer
from spokeshave.regularizers.optimizer_hooks import settings_of
from spokeshave.structures.factorized_layer import FactorizedLayer
from spokeshave.structures.sparsity import sparsity
from spokeshave.train_settings import Precision, TrainSettings, make_optimizer, rate_at
from spokeshave.training_objective import CrossEntropy, Objective


@dataclass
class History:
    """What happened, an epoch a row.

    Attributes:
        rows: JSON values: epoch, step, train_loss, validation_accuracy, validation_loss, learning_rate, sparsity
            ({layer: {elements, filters, channels, shapes}}), wall_s; exchange, transform, objective, ranks where there
            are such.
        best_epoch: of the best validation accuracy so far, with `keep_best` among those of the model's last form (rank
            clipping changes it); -1 before the first.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = -1

    @property
    def best_accuracy(self) -> float:
        """Best validation accuracy so far, 0 before the first epoch."""
        return max((row["validation_accuracy"] for row in self.rows), default=0.0)


def train(
    model: nn.Module,
    batches: Batches,
    validation: Batches,
    settings: TrainSettings,
    regularizers: Sequence[Regularizer] = (),
    run_dir: Path | None = None,
    resume: bool = False,
    label: str = "training",
    log: Callable[[dict[str, Any]], None] | None = None,
    exchange: GradientExchange | None = None,
    transform: BatchTransform | None = None,
    objective: Objective | None = None,
) -> History:
    """Train a classifier in place.

    Args:
        model: on the batches' device; ends with the last epoch's weights, or the best ones with `keep_best`.
        batches: of the training split.
        validation: of a split held out of the training set.
        settings: of this stage.
        regularizers: attached to the optimizer for this stage.
        run_dir: where checkpoints go; None for none.
        resume: go on from the checkpoint in `run_dir`, if there is one; a finished stage is loaded, not run again.
        label: shown beside the progress bar.
        log: called with each row of the history.
        exchange: how workers make one gradient of theirs; None for the plain mean under `torchrun`, and for the
            gradient of the whole batch in one process.
        transform: of every batch before the network is trained on it, such as `MixedMAT`; None for none.
        objective: what is made small, such as `Adaptation`; None for the cross entropy.

    Returns:
        The history, whole, also of what ran before a resume.

    Raises:
        TrainingDiverged: where the loss became NaN or infinite; names step, layer and last good checkpoint.
        CheckpointError: where the checkpoint is damaged or was made with other settings, or `run_dir` holds one and
            `resume` is false.
        FileError: where a checkpoint cannot be written; the one before it is kept.
    """
    state = _State(model, batches, validation, settings, regularizers, run_dir, label, exchange, transform, objective)
    found = run_dir is not None and has_checkpoint(run_dir)
    wait_for_all()  # no process may write a checkpoint before every process has looked for one
    if found:
        if not resume:
            raise CheckpointError(
                f"{run_dir} already holds a run: resume it, or name another folder; nothing was changed"
            )
        state.load()
    try:
        total = settings.total_steps(len(batches))
        with Progress(label, total, state.step, quiet=not is_first()) as progress:
            while state.step < total:
                progress.advance(state.train_step())
                ended = state.step % len(batches) == 0 or state.step == total
                row = state.end_epoch() if ended else None
                every = settings.checkpoint_every
                due = ended and every <= len(batches)  # not at every one of many short epochs
                if due or state.step == total or (every and state.step % every == 0):
                    state.save()
                if row is not None:
                    progress.row(row)
                    if log is not None:
                        log(row)
    finally:
        state.detach()
    if settings.keep_best and state.best:
        model.load_state_dict(state.best)
    return state.history


class _State:
    """What a training run is made of, between two steps."""

    def __init__(
        self,
        model: nn.Module,
        batches: Batches,
        validation: Batches,
        settings: TrainSettings,
        regularizers: Sequence[Regularizer],
        run_dir: Path | None,
        label: str,
        exchange: GradientExchange | None,
        transform: BatchTransform | None,
        objective: Objective | None,
    ) -> None:
        self.model, self.batches, self.validation, self.settings = model, batches, validation, settings
        self.exchange, self.transform = exchange, transform
        self.objective = objective or CrossEntropy(settings.label_smoothing)
        self.total = settings.total_steps(len(batches))
        self.precision = settings.precision.on(batches.device)
        self.regularizers, self.run_dir, self.label = regularizers, run_dir, label
        if settings.channels_last:
            model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.optimizer = make_optimizer(model, settings)
        self.data = batches.digest() if run_dir is not None else ""
        self.pulls = [settings_of(regularizer) for regularizer in regularizers]
        self.attachments = [regularizer.attach(self.optimizer) for regularizer in regularizers]
        self.step = 0
        self.loss_sum = torch.zeros((), dtype=torch.float64)
        self.history = History()
        self.best: dict[str, Tensor] = {}
        self.started = time.perf_counter()
        self.earlier_s = 0.0
        self.scaler = torch.amp.GradScaler(
            batches.device.type, enabled=self.precision is Precision.FLOAT16 and batches.device.type == "cuda"
        )
        shares = distributed.is_available() and distributed.is_initialized()
        self.forward: nn.Module = DistributedDataParallel(model) if shares else model
        self.shared = list(model.parameters()) if shares else []
        if exchange is not None:
            exchange.attach(self.forward)
        torch.manual_seed(settings.seed)

    def train_step(self) -> float:
        """Do one step; return its loss."""
        epoch, index = divmod(self.step, len(self.batches))
        rate = rate_at(self.settings, self.step, len(self.batches))
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("share", 1.0)
        inputs, labels = self.batches.batch(epoch, index)
        if self.transform is not None:
            inputs, labels = self.transform.transform(self.step, inputs, labels)
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        if self.exchange is None:
            value = self.backward(inputs, labels)
        else:
            value = self.exchange.backward(self.step, inputs, labels, self.backward)
        if self.settings.clip_norm:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.share_again()
        self.step += 1
        self.loss_sum += value
        return value

    def share_again(self) -> None:
        """Wrap the model anew where a regularizer has put other parameters into it (rank clipping)."""
        if self.shared and not all(a is b for a, b in zip(self.shared, self.model.parameters(), strict=True)):
            self.forward = DistributedDataParallel(self.model)
            self.shared = list(self.model.parameters())
            if self.exchange is not None:
                self.exchange.attach(self.forward)

    def backward(self, inputs: Tensor, labels: Tensor) -> float:
        """Add the gradient of one batch to `.grad`; return its loss."""
        dtype = torch.float16 if self.precision is Precision.FLOAT16 else torch.bfloat16
        mixed = self.precision is not Precision.FLOAT32
        with torch.autocast(inputs.device.type, dtype, enabled=mixed):
            loss = self.objective.loss(self.forward, self.step, self.total, inputs, labels)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise self._diverged(inputs, value)
        self.scaler.scale(loss).backward()
        return value

    def end_epoch(self) -> dict[str, Any]:
        """Validate, and note a row."""
        score = evaluate(self.model, self.validation)
        steps = (self.step - 1) % len(self.batches) + 1  # fewer where `settings.steps` end inside an epoch
        row = {
            "epoch": -(-self.step // len(self.batches)),
            "step": self.step,
            "train_loss": float(self.loss_sum) / steps,
            "validation_accuracy": score.accuracy,
            "validation_loss": score.loss,
            "learning_rate": rate_at(self.settings, self.step - 1, len(self.batches)),
            "precision": self.precision.value,
            "sparsity": {name: asdict(layer) for name, layer in sparsity(self.model).items()},
            "wall_s": self.earlier_s + time.perf_counter() - self.started,
        }
        if self.exchange is not None:
            row["exchange"] = self.exchange.report()
        if self.transform is not None:
            row["transform"] = self.transform.report()
        if noted := self.objective.report():
            row["objective"] = noted
        ranks = {name: m.rank for name, m in self.model.named_modules() if isinstance(m, FactorizedLayer)}
        if ranks:
            row["ranks"] = ranks
        if score.accuracy > self.best_accuracy():
            self.history.best_epoch = row["epoch"]
            if self.settings.keep_best:
                self.best = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
        self.history.rows.append(row)
        self.loss_sum.zero_()
        return row

    def best_accuracy(self) -> float:
        """Of the best epoch so far; -1 before the first, and where the best weights no longer fit the model's form."""
        state = self.model.state_dict()
        if any(tensor.shape != state[name].shape for name, tensor in self.best.items()):
            return -1.0
        best = (row for row in self.history.rows if row["epoch"] == self.history.best_epoch)
        return next((row["validation_accuracy"] for row in best), -1.0)

    def save(self) -> None:
        """Write a checkpoint of a state that is finite."""
        if self.run_dir is None or not is_first():
            return
        for name, parameter in self.model.named_parameters():
            if not torch.isfinite(parameter).all():
                raise self._diverged(self.batches.batch(0, 0)[0], float("nan"), name)
        tensors = {f"model.{n}": t for n, t in self.model.state_dict().items()}
        tensors |= {f"best.{n}": t for n, t in self.best.items()}
        for index, parameter in enumerate(self._parameters()):
            for key, value in self.optimizer.state.get(parameter, {}).items():
                if value is not None:
                    tensors[f"optimizer.{index}.{key}"] = torch.as_tensor(value)
        for index, regularizer in enumerate(self.regularizers):
            tensors |= {f"regularizer.{index}.{n}": t for n, t in regularizer.state_dict().items()}
        if self.transform is not None:
            tensors |= {f"transform.{n}": t for n, t in self.transform.state_dict().items()}
        tensors |= {f"objective.{n}": t for n, t in self.objective.state_dict().items()}
        tensors["rng.cpu"] = torch.get_rng_state()
        if self.batches.device.type == "cuda":
            tensors["rng.cuda"] = torch.cuda.get_rng_state(self.batches.device)
        tensors["loss_sum"] = self.loss_sum
        facts = {
            "step": self.step,
            "identity": self._identity(),
            "rows": self.history.rows,
            "best_epoch": self.history.best_epoch,
            "scaler": self.scaler.state_dict(),
            "wall_s": self.earlier_s + time.perf_counter() - self.started,
        }
        save_checkpoint(self.run_dir, Checkpoint(tensors, facts))

    def load(self) -> None:
        """Take over the latest checkpoint."""
        assert self.run_dir is not None
        saved = load_checkpoint(self.run_dir)
        # Checkpoints of old did not note them.
        earlier = {"regularizers": self.pulls, "data": self.data, **saved.facts["identity"]}
        identity = self._identity()
        changed = [k for k in {**earlier, **identity} if earlier.get(k) != identity.get(k)]
        if changed:
            was = {k: earlier.get(k) for k in changed}
            now = {k: identity.get(k) for k in changed}
            raise CheckpointError(
                f"{self.run_dir} was made with other settings: {was} there, {now} now; "
                "use the same settings to resume, or another folder to start anew"
            )
        for index, regularizer in enumerate(self.regularizers):  # first: rank clipping brings the model into its form
            regularizer.load_state_dict(saved.part(f"regularizer.{index}"))
        try:
            self.model.load_state_dict(saved.part("model"))
        except RuntimeError as error:
            raise CheckpointError(f"{self.run_dir} holds another model's checkpoint: {error}") from error
        if self.transform is not None:
            self.transform.load_state_dict(saved.part("transform"))
        self.objective.load_state_dict(saved.part("objective"))
        self.best = saved.part("best")
        optimizer = saved.part("optimizer")
        for index, parameter in enumerate(self._parameters()):
            state = {n.split(".", 1)[1]: t for n, t in optimizer.items() if n.split(".", 1)[0] == str(index)}
            if state:
                self.optimizer.state[parameter] = {
                    # Adam's step counter stays on the CPU; what has the weight's shape goes where the weight is.
                    key: value.to(parameter.device) if value.shape == parameter.shape else value
                    for key, value in state.items()
                }
        self.share_again()
        torch.set_rng_state(saved.tensors["rng.cpu"])
        if "rng.cuda" in saved.tensors and self.batches.device.type == "cuda":
            torch.cuda.set_rng_state(saved.tensors["rng.cuda"], self.batches.device)
        self.loss_sum = saved.tensors["loss_sum"]
        self.step, self.earlier_s = saved.facts["step"], saved.facts["wall_s"]
        self.history = History(saved.facts["rows"], saved.facts["best_epoch"])
        self.scaler.load_state_dict(saved.facts["scaler"])

    def detach(self) -> None:
        """Take the regularizers off the optimizer."""
        for attachment in self.attachments:
            attachment.remove()

    def _parameters(self) -> list[Tensor]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def _identity(self) -> dict[str, Any]:
        """What must be the same for a resumed run to be the same run; JSON values."""
        settings = {k: list(v) if isinstance(v, tuple) else v for k, v in self.settings.to_dict().items()}
        settings.pop("checkpoint_every")
        batches = {"images": len(self.batches.split), "batch_size": self.batches.batch_size, "order": self.batches.seed}
        exchange = {} if self.exchange is None else {"exchange": self.exchange.settings()}
        transform = {} if self.transform is None else {"transform": self.transform.settings()}
        objective = {"objective": aim} if (aim := self.objective.settings()) else {}
        return {
            "label": self.label,
            "data": self.data,
            **batches,
            **settings,
            **exchange,
            **transform,
            **objective,
            "regularizers": self.pulls,
        }

    def _diverged(self, inputs: Tensor, loss: float, weight: str | None = None) -> TrainingDiverged:
        where = f"the weight {weight}" if weight else first_non_finite(self.model, inputs)
        kept = "no checkpoint was kept (no run_dir)"
        if self.run_dir is not None:
            kept = "no checkpoint had been written yet"
            if has_checkpoint(self.run_dir):
                good = load_checkpoint(self.run_dir).facts["step"]
                kept = f"the last good checkpoint is in {self.run_dir}, step {good}"
        return TrainingDiverged(
            f"{self.label}: the loss became {loss} at step {self.step} (epoch {self.step // len(self.batches) + 1}); "
            f"first non-finite: {where}; {kept}. Lower learning_rate ({self.settings.learning_rate:g}) or the "
            "regularizer's strength, or set clip_norm"
        )
