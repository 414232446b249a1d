"""The road to a smaller network: train, pull, truncate, freeze and fine-tune, shrink.

Recipes and `spokeshave compress` say what to pull and for how long; this is the walk, and `run_output` writes what it
found. Every stage has its own folder of checkpoints, so a killed run goes on where it was. The test split is looked at
once a seed, by the finished networks.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spokeshave.data import Augmentation, Batches, Normalization, Split, Splits
from spokeshave.errors import InvalidArgument, NothingChanged
from spokeshave.evaluation import Evaluation, evaluate
from spokeshave.processes import join_processes
from spokeshave.regularizers import Freeze, Frozen, Regularizer
from spokeshave.regularizers.guidance import guide_notes
from spokeshave.rewrites import shrink
from spokeshave.rewrites.shrink_report import ShrinkReport
from spokeshave.structures.graph_tracing import trace
from spokeshave.structures.truncation import Keep, KeepBlocks, truncate
from spokeshave.tensorboard_log import tensorboard_log
from spokeshave.train_settings import TrainSettings
from spokeshave.training import train

STAGES = ("baseline", "ssl", "finetune", "control-ssl", "control-finetune", "prune", "control-prune")
"""The place of a stage is part of the seed of its order of images."""
CONTROL = "control"
PRUNED_NOTE = "single weights were pruned: the network keeps its form, and its zeros are skipped by to_sparse"


@dataclass(frozen=True)
class Stretch:
    """What a pull may want to know of the stage it acts in.

    Attributes:
        example: two normalized images.
        steps: of the stage.
    """

    example: Tensor
    steps: int


@dataclass(frozen=True)
class Plan:
    """What to do to a network.

    Attributes:
        network: makes the untrained network; called after seeding.
        pull: makes the regularizer of the second stage for a network.
        baseline: first stage, from scratch.
        ssl: second stage, from the baseline, under the pull.
        finetune: third stage, from the truncated network with its zeros frozen.
        keeps: groups kept after the pull; empty keeps what the pull left.
        batch_size: images a step, over all processes.
        validation: images held out of the training split.
        augment: of the training images, in every stage.
        normalize: made from the training split.
        dropout: probability of every `nn.Dropout` while under the pull; None leaves them as they are.
        prune: in place of `pull`: makes regularizers of single weights for a network. The third stage then freezes
            single zeros, and the small network is the sparse one as it is, since zeros are skipped where it runs.
        may_stay: a network in which no group became zero is kept as it is, with a note, in place of an error.
    """

    network: Callable[[], nn.Module]
    pull: Callable[[nn.Module], Regularizer] | None
    baseline: TrainSettings
    ssl: TrainSettings
    finetune: TrainSettings
    keeps: Sequence[Keep | KeepBlocks] = ()
    batch_size: int = 128
    validation: int = 5000
    augment: Augmentation | None = None
    normalize: Callable[[Split], Normalization] = Normalization.per_channel
    dropout: float | None = None
    prune: Callable[[nn.Module, Stretch], Sequence[Regularizer]] | None = None
    may_stay: bool = False

    def __post_init__(self) -> None:
        if (self.pull is None) == (self.prune is None):
            raise InvalidArgument("a plan pulls groups (pull) or prunes single weights (prune): give one of the two")

    @property
    def second(self) -> str:
        """Name of the second stage."""
        return "ssl" if self.prune is None else "prune"

    @property
    def stages(self) -> dict[str, TrainSettings]:
        """Settings by the name of the stage."""
        return {"baseline": self.baseline, self.second: self.ssl, "finetune": self.finetune}

    def regularizers(self, network: nn.Module, stretch: Stretch) -> Sequence[Regularizer]:
        """Those of the second stage."""
        if self.prune is not None:
            return self.prune(network, stretch)
        assert self.pull is not None
        return (self.pull(network),)


@dataclass(frozen=True)
class Shaped:
    """What one seed gave.

    Attributes:
        seed: of it.
        baseline: the network before.
        sparse: the fine-tuned network, its zero groups still in place.
        small: the same function with the zero groups gone.
        report: what shrinking changed.
        baseline_test: score of the baseline on the test split.
        small_test: score of the small network on the test split.
        validation: score of the small network on the validation split.
        history: of the stages.
        control_test: score on the test split of the baseline trained on for as many epochs with nothing pulled.
    """

    seed: int
    baseline: nn.Module
    sparse: nn.Module
    small: nn.Module
    report: ShrinkReport
    baseline_test: Evaluation
    small_test: Evaluation
    validation: Evaluation
    history: dict[str, list[dict[str, Any]]]
    control_test: Evaluation | None = None


def shape(
    plan: Plan,
    splits: Splits,
    seed: int,
    run_dir: Path,
    resume: bool = False,
    device: str = "cpu",
    tensorboard: bool = False,
    control: bool = False,
) -> Shaped:
    """Walk the road once.

    Args:
        plan: what to do.
        splits: the data.
        seed: of initial weights, order, augmentation, dropout. The validation split does not depend on it.
        run_dir: where checkpoints of this seed go.
        resume: go on from them.
        device: of the training; the result is on the CPU.
        tensorboard: also write the histories to `run_dir`/tensorboard.
        control: also train the baseline on through the later stages with nothing pulled, cut or frozen: what the same
            budget gives a dense network.

    Returns:
        The networks and their scores.

    Raises:
        TrainingDiverged: where a loss became NaN.
        CheckpointError: where `run_dir` holds another run.
        NothingChanged: where the pull left no zero group, `keeps` is empty and the plan's network may not stay.
    """
    rank, world_size = join_processes()
    training, validation = splits.hold_out(min(plan.validation, len(splits.train) // 5), seed=0)
    normalize = plan.normalize(training)

    def evaluation(split: Split) -> Batches:
        return Batches(split, 500, 0, normalize, device=device, channels_last=plan.baseline.channels_last)

    def stage(
        name: str,
        settings: TrainSettings,
        network: nn.Module,
        make: Callable[[nn.Module, Stretch], Sequence[Regularizer]] = lambda network, stretch: (),
    ) -> Sequence[Regularizer]:
        order = 1000 * seed + STAGES.index(name)
        batches = Batches(
            training, plan.batch_size // world_size, order, normalize, plan.augment, device,
            channels_last=settings.channels_last, rank=rank, world_size=world_size,
        )  # fmt: skip
        pulls = make(network, Stretch(example.to(device), settings.epochs * len(batches)))
        settings = replace(settings, seed=order)
        log = tensorboard_log(run_dir / "tensorboard", name) if tensorboard and rank == 0 else None
        rows = train(network, batches, held_out, settings, pulls, run_dir / name, resume, f"{name} (seed {seed})", log)
        history[name] = rows.rows
        return pulls

    history: dict[str, list[dict[str, Any]]] = {}
    held_out = evaluation(validation)
    example = normalize(training.images[:2])
    torch.manual_seed(seed)
    network = plan.network().to(device)
    stage("baseline", plan.baseline, network)
    baseline = copy.deepcopy(network)
    dropouts = [module for module in network.modules() if isinstance(module, nn.Dropout)]
    usual = [module.p for module in dropouts]
    for module in dropouts:
        module.p = module.p if plan.dropout is None else plan.dropout
    decisions = guide_notes(stage(plan.second, plan.ssl, network, plan.regularizers))
    for module, probability in zip(dropouts, usual, strict=True):
        module.p = probability
    truncate(network, plan.keeps)
    frozen = Frozen.GROUPS if plan.prune is None else Frozen.ELEMENTS
    stage("finetune", plan.finetune, network, lambda network, stretch: (Freeze(network, frozen),))
    dense = copy.deepcopy(baseline) if control else None
    if dense is not None:
        stage(f"control-{plan.second}", plan.ssl, dense)
        stage("control-finetune", plan.finetune, dense)
    plain = {"device": "cpu", "memory_format": torch.contiguous_format}  # what others run the networks with
    sparse, baseline = network.to(**plain).eval(), baseline.to(**plain).eval()
    if plan.prune is None:
        small, report = _shrunk(sparse, example, plan.may_stay)
    else:
        small, report = _as_it_is(sparse, example, PRUNED_NOTE, *decisions)
    device = "cpu"
    test = evaluation(splits.test)
    return Shaped(
        seed, baseline, sparse, small, report, evaluate(baseline, test), evaluate(small, test),
        evaluate(small, evaluation(validation)), history,
        None if dense is None else evaluate(dense.to(**plain).eval(), test),
    )  # fmt: skip


def _shrunk(sparse: nn.Module, example: Tensor, may_stay: bool) -> tuple[nn.Module, ShrinkReport]:
    try:
        return shrink(sparse, example)
    except NothingChanged as error:
        if not may_stay:
            raise
        why = str(error).removeprefix("nothing to remove: ")
        return _as_it_is(sparse, example, f"nothing was removed, the network kept its form: {why}")


def _as_it_is(sparse: nn.Module, example: Tensor, *notes: str) -> tuple[nn.Module, ShrinkReport]:
    count = sum(parameter.numel() for parameter in sparse.parameters())
    small = trace(sparse, example).graph.eval()  # a graph of the same layers, as shrink gives one
    return small, ShrinkReport((), (), notes, 0.0, count, count)
