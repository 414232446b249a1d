"""Compression: makes a model of your own smaller by SSL, as small as a drop of accuracy that you name allows.

The strength of the pull is searched on a validation split held out from the training images: stronger while the drop is
kept, weaker otherwise. The test split is looked at once, after the choice: by the model as it was, by the chosen one,
and by the other tries for the figure of the page.
"""

import copy
import math
import time
from dataclasses import asdict, dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from rich.console import Console
from torch import nn

from spokeshave.data import Augmentation, Batches, DatasetName, Normalization, Split, Splits, load
from spokeshave.data.image_folder import load_image_folder
from spokeshave.errors import InvalidArgument, NothingChanged, RewriteError, TrainingDiverged
from spokeshave.evaluation import evaluate
from spokeshave.measure import measure
from spokeshave.models.named_model import load_model
from spokeshave.processes import usable_device
from spokeshave.regularizers import Freeze, GroupLasso
from spokeshave.rewrites import shrink
from spokeshave.run_output import command_line, print_run, refuse_finished, write_run
from spokeshave.shaping import Shaped
from spokeshave.strength_search import Try, choose, search
from spokeshave.structures.groups import CONVOLUTIONS, GroupKind
from spokeshave.structures.truncation import Keep, truncate
from spokeshave.train_settings import OptimizerName, TrainSettings
from spokeshave.training import train

PAPER: dict[str, dict[str, Any]] = {}  # your own model: no published row


class Method(Enum):
    """What pulls the model toward a smaller one."""

    SSL = "ssl"


@dataclass(frozen=True)
class Config:
    """Options of `spokeshave compress`."""

    model: tyro.conf.Positional[str]
    """package.module:factory or file.py:factory; called without arguments. A trained model is used as it is."""
    data: str = "digits"
    """Name of a data set, or a folder with one subfolder of images a class."""
    run_dir: Annotated[Path, tyro.conf.arg(name="out", aliases=("--run-dir",))] = Path("runs/compress")
    """Where checkpoints, the smaller model and the page go."""
    max_drop: float = 0.5
    """Largest loss of validation accuracy, in percentage points."""
    method: Method = Method.SSL
    """What pulls."""
    row: str = "own"
    """Name of the run on its page."""
    data_dir: Path | None = None
    """Folder of the data sets; else SPOKESHAVE_DATA, else they are downloaded."""
    size: int = 32
    """Height and width of the images of a folder, in pixels."""
    channels: int = 3
    """Channels of the images of a folder: 3 or 1."""
    mean: tuple[float, ...] = ()
    """What your model subtracts from each channel (images are 0..1); measured on the training images by default."""
    std: tuple[float, ...] = ()
    """What your model divides each channel by; measured by default."""
    validation: float = 0.15
    """Share of the training images that is held out to choose the strength, 0..1."""
    filters: float = 1.0
    """Relative pull on the filters of convolutions."""
    shapes: float = 0.0
    """Relative pull on the columns of lowered convolutions (squeezed convolutions)."""
    rows: float = 1.0
    """Relative pull on the neurons of linear layers; the classifier is left alone."""
    columns: float = 0.0
    """Relative pull on the inputs of linear layers."""
    strength: float = 0.01
    """Strength of the first try."""
    tries: int = 8
    """Strengths that are tried, at least 1."""
    baseline_epochs: int = 20
    """Epochs from scratch, for a model that is not trained."""
    ssl_epochs: int = 15
    """Epochs under the pull, each try."""
    finetune_epochs: int = 10
    """Epochs with the zero groups frozen, each try."""
    optimizer: OptimizerName = OptimizerName.SGD
    """Of all stages."""
    learning_rate: float = 0.02
    """At the start of each stage; it falls by a cosine. Fine-tuning starts at half of it."""
    batch_size: int = 64
    """Images a step."""
    pad: int = 0
    """Augmentation: images are padded by this many pixels and cropped at random."""
    flip: bool = False
    """Augmentation: images are mirrored at random."""
    seed: int = 0
    """Of order, augmentation and dropout."""
    device: str = "cpu"
    """Where to train: cpu, cuda, cuda:1."""
    resume: bool = False
    """Go on from the checkpoints in the run's folder."""
    smoke: bool = False
    """One epoch a stage, two tries, a quarter of all filters cut: shows that everything works, measures nothing."""


def run(config: Config) -> dict[str, Any]:
    """Compress a model.

    Args:
        config: the options.

    Returns:
        The run's record as JSON values.

    Raises:
        InvalidArgument: where the model does not fit the data, or an option is out of its range.
        NothingChanged: where no strength made the model smaller within the drop.
    """
    started = time.perf_counter()
    _check(config)
    if config.smoke:
        config = replace(config, baseline_epochs=1, ssl_epochs=1, finetune_epochs=1, tries=2, max_drop=100.0)
    refuse_finished(config.run_dir, config.resume)
    splits = load_splits(config)
    road = _Road(config, splits)
    baseline, baseline_accuracy, history = road.baseline()
    least = baseline_accuracy - config.max_drop / 100
    console = Console(stderr=True, highlight=False)
    tries: list[Try] = []

    def keeps_the_drop(strength: float) -> bool:
        attempt = road.attempt(baseline, strength)
        if attempt is None:
            console.print(f"strength {strength:.3g}: nothing is left of the model or its training diverged")
            return False
        tries.append(attempt)
        kept = attempt.accuracy >= least
        verdict = "kept" if kept else "too much"
        drop = 100 * (baseline_accuracy - attempt.accuracy)
        console.print(f"strength {strength:.3g}: {attempt.flops:,} FLOPs, drop {drop:+.2f} points: {verdict}")
        return kept

    search(keeps_the_drop, config.strength, config.tries)
    chosen = choose(tries, least, measure(baseline, road.example, latency=False).flops, config.max_drop)
    assert chosen.report is not None  # its FLOPs are fewer, so something was shrunk
    test = road.batches(splits.test)
    shaped = Shaped(
        seed=config.seed,
        baseline=baseline,
        sparse=chosen.sparse,
        small=chosen.small,
        report=chosen.report,
        baseline_test=evaluate(baseline, test),
        small_test=evaluate(chosen.small, test),
        validation=evaluate(chosen.small, road.held_out),
        history=history | chosen.history,
    )
    record = write_run(
        [shaped],
        splits,
        config.run_dir,
        recipe="compression",
        row=config.row,
        title=f"{config.model} on {splits.name}, at most {config.max_drop:g} points worse",
        config={name: _plain(value) for name, value in asdict(config).items()} | {"chosen_strength": chosen.strength},
        command=command_line(["spokeshave", "compress", config.model], config),
        started=started,
    )
    record = replace(record, points=[attempt.point(evaluate(attempt.small, test).accuracy) for attempt in tries])
    record.save(config.run_dir)
    from spokeshave.report import write_page

    write_page(record, config.run_dir / "report.html")
    print_run(record, config.run_dir, Console())
    return record.to_dict()


def load_splits(config: Config) -> Splits:
    """Load the data that a config names: a data set, or a folder of images.

    Raises:
        InvalidArgument: where it is neither; the message names the data sets.
        DataError: where it is missing or damaged.
    """
    names = [name.value for name in DatasetName]
    if config.data in names:
        return load(config.data, config.data_dir)
    if Path(config.data).is_dir():
        return load_image_folder(config.data, config.size, config.channels)
    raise InvalidArgument(f"--data {config.data}: neither a folder nor one of {', '.join(names)}")


def last_layer(model: nn.Module, example: torch.Tensor) -> str:
    """Name the convolution or linear layer that runs last: the classifier, which the pull leaves alone.

    Args:
        model: left as it is.
        example: one batch.

    Raises:
        InvalidArgument: where no such layer runs.

    Example:
        >>> last_layer(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 4)), torch.zeros(1, 2))
        '2'
    """
    ran: list[str] = []
    layers = {name: module for name, module in model.named_modules() if isinstance(module, (*CONVOLUTIONS, nn.Linear))}
    hooks = [module.register_forward_hook(lambda *_, name=name: ran.append(name)) for name, module in layers.items()]
    was_training = model.training
    try:
        with torch.inference_mode():
            model.eval()(example)
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    if not ran:
        raise InvalidArgument("the model runs no convolution and no linear layer: there is nothing to pull")
    return ran[-1]


class _Road:
    """The stages of one model on one data set."""

    def __init__(self, config: Config, splits: Splits) -> None:
        self.config = config
        self.training, self.validation = splits.hold_out(config.validation, seed=0)
        self.normalize = _normalization(config, self.training)
        self.example = self.normalize(self.training.images[:2])
        self.classes = len(splits.classes)
        self.held_out = self.batches(self.validation)
        self.settings = TrainSettings(
            learning_rate=config.learning_rate, optimizer=config.optimizer, seed=config.seed, checkpoint_every=500
        )

    def batches(self, split: Split) -> Batches:
        """Batches for evaluation, on the CPU."""
        return Batches(split, 256, 0, self.normalize)

    def baseline(self) -> tuple[nn.Module, float, dict[str, list[dict[str, Any]]]]:
        """The model as it is, or trained where it does not classify yet; its accuracy on the validation split."""
        torch.manual_seed(self.config.seed)
        model = load_model(self.config.model)
        _fits(model, self.example, self.classes)
        counts = torch.bincount(self.validation.labels).double()
        accuracy = evaluate(model, self.held_out).accuracy
        if accuracy > 0.5 + 0.5 * float(counts.max() / counts.sum()):
            return model.cpu().eval(), accuracy, {}
        rows = self._train(model, "baseline", self.config.baseline_epochs, (), self.config.run_dir / "baseline")
        return model.cpu().eval(), evaluate(model, self.held_out).accuracy, {"baseline": rows}

    def attempt(self, baseline: nn.Module, strength: float) -> Try | None:
        """Pull, freeze, fine-tune and shrink at one strength; None where nothing useful is left."""
        model, folder = copy.deepcopy(baseline), self.config.run_dir / f"strength-{strength:.4g}"
        history: dict[str, list[dict[str, Any]]] = {}
        try:
            history["ssl"] = self._train(model, "ssl", self.config.ssl_epochs, (self._pull(model, strength),), folder)
            if self.config.smoke:  # an epoch is too short for the pull to empty a group
                truncate(
                    model, [Keep(name, GroupKind.FILTER, -(-3 * count // 4)) for name, count in self._outputs(model)]
                )
            history["finetune"] = self._train(model, "finetune", self.config.finetune_epochs, (Freeze(model),), folder)
        except TrainingDiverged:
            return None
        model.cpu().eval()
        accuracy = evaluate(model, self.held_out).accuracy
        try:
            small, report = shrink(model, self.example)
        except NothingChanged:
            small, report = model, None
        except RewriteError:
            return None
        flops = measure(small, self.example, latency=False).flops
        return Try(strength, accuracy, flops, model, small, report, history)

    def _pull(self, model: nn.Module, strength: float) -> GroupLasso:
        pulled = {name for name, _ in self._outputs(model)}
        convolutions = {name for name, module in model.named_modules() if isinstance(module, CONVOLUTIONS)}
        return GroupLasso(
            model,
            filters=dict.fromkeys(sorted(pulled & convolutions), self.config.filters),
            shapes=self.config.shapes,
            rows=dict.fromkeys(sorted(pulled - convolutions), self.config.rows),
            columns=self.config.columns,
            strength=strength,
        )

    def _outputs(self, model: nn.Module) -> list[tuple[str, int]]:
        """Layers whose outputs may go, which is all but the classifier, and how many outputs each has."""
        classifier = last_layer(model.cpu(), self.example)
        return [
            (name, module.out_features if isinstance(module, nn.Linear) else module.out_channels)
            for name, module in model.named_modules()
            if isinstance(module, (*CONVOLUTIONS, nn.Linear)) and name != classifier
        ]

    def _train(
        self, model: nn.Module, stage: str, epochs: int, pulls: tuple[GroupLasso | Freeze, ...], folder: Path
    ) -> list[dict[str, Any]]:
        config, device = self.config, self.config.device
        augment = Augmentation(config.pad, config.flip) if config.pad or config.flip else None
        order = 1000 * config.seed + ["baseline", "ssl", "finetune"].index(stage)
        rate = config.learning_rate * (0.5 if stage == "finetune" else 1.0)
        settings = replace(self.settings, epochs=epochs, learning_rate=rate)
        batches = Batches(self.training, config.batch_size, order, self.normalize, augment, device)
        held_out = Batches(self.validation, 256, 0, self.normalize, device=device)
        model.to(device)
        label = stage if stage == "baseline" else f"{stage} ({folder.name})"
        return train(model, batches, held_out, settings, pulls, folder / stage, config.resume, label).rows


def _normalization(config: Config, training: Split) -> Normalization:
    channels = training.images.shape[1]
    if not config.mean and not config.std:
        return Normalization.per_channel(training)
    mean, std = config.mean or (0.0,) * channels, config.std or (1.0,) * channels
    if len(mean) != channels or len(std) != channels:
        raise InvalidArgument(
            f"--mean and --std need a number a channel: {channels} for these images, got {mean} and {std}"
        )
    return Normalization(torch.tensor(mean).view(-1, 1, 1), torch.tensor(std).view(-1, 1, 1))


def _fits(model: nn.Module, example: torch.Tensor, classes: int) -> None:
    shape = "x".join(map(str, example.shape[1:]))
    try:
        with torch.inference_mode():
            scores = copy.deepcopy(model).eval()(example)
    except Exception as error:
        raise InvalidArgument(
            f"the model cannot take the images of this data set ({shape}): {type(error).__name__}: {error}"
        ) from error
    if not isinstance(scores, torch.Tensor) or scores.ndim != 2 or scores.shape[1] < classes:
        got = tuple(scores.shape) if isinstance(scores, torch.Tensor) else type(scores).__name__
        raise InvalidArgument(f"the model must give scores of shape (batch, {classes} or more) for {shape}, got {got}")


def _check(config: Config) -> None:
    usable_device(config.device)
    for name, value, good in (
        ("--max-drop", config.max_drop, config.max_drop >= 0),
        ("--tries", config.tries, config.tries >= 1),
        ("--strength", config.strength, 0 < config.strength < math.inf),
        ("--validation", config.validation, 0 < config.validation < 1),
    ):
        if not good:
            raise InvalidArgument(f"{name} {value}: out of its range (spokeshave compress --help says which)")


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    return str(value) if isinstance(value, Path) else value
