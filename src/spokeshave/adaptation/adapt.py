"""From a network and images of two domains to a network for the second, in one call; target labels are never used."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spokeshave.adaptation.adaptation_objective import SOURCE_ONLY, Adaptation, Terms
from spokeshave.adaptation.adapting_network import AdaptingNetwork, Statistics
from spokeshave.adaptation.target_statistics import refresh_statistics
from spokeshave.data import Augmentation, Batches, Split
from spokeshave.data.splits import stratified_sample
from spokeshave.errors import InvalidArgument
from spokeshave.regularizers import Regularizer
from spokeshave.train_settings import TrainSettings
from spokeshave.training import train

HELD_OUT = 0.1
"""Share of the source that a training is not shown."""
SETTINGS = TrainSettings(epochs=10, learning_rate=0.01, weight_decay=5e-4)


@dataclass(frozen=True)
class Feeding:
    """How images become batches.

    Attributes:
        batch_size: images of each domain a step, at least 2.
        normalize: from grey levels to what the network is fed; None scales to 0..1.
        target_normalize: the same for target images; None for that of the source.
        augment: of training images of both domains.
        device: of the training.
    """

    batch_size: int = 32
    normalize: Callable[[Tensor], Tensor] | None = None
    target_normalize: Callable[[Tensor], Tensor] | None = None
    augment: Augmentation | None = None
    device: str = "cpu"

    def batches(self, split: Split, seed: int, target: bool = False, training: bool = True) -> Batches:
        """Batches of one domain: shuffled, augmented and whole ones for training, every image once if not."""
        normalize = (self.target_normalize or self.normalize) if target else self.normalize
        size = min(self.batch_size, len(split)) if training else 500
        # Going through the batches for evaluation crops, but draws nothing.
        return Batches(split, size, seed, normalize, self.augment, self.device, drop_last=training, shuffle=training)


@dataclass(frozen=True, eq=False)
class Adapted:
    """What `adapt` made.

    Attributes:
        network: the classifier, in evaluation mode, with the weights of the last step.
        history: an epoch a row; accuracies are of held-out source images.
        layer: whose input were taken for features.
    """

    network: nn.Module
    history: list[dict[str, Any]]
    layer: str


def adapt(
    network: nn.Module,
    source: Split,
    target: Split,
    terms: Terms | None = None,
    settings: TrainSettings = SETTINGS,
    feeding: Feeding = Feeding(),
    residual: bool = False,
    statistics: Statistics = Statistics.EACH,
    layer: str | None = None,
    held_out: float = HELD_OUT,
    run_dir: Path | None = None,
    resume: bool = False,
    label: str = "adapting",
    refresh: bool = True,
    regularizers: Sequence[Regularizer] = (),
) -> Adapted:
    """Train a classifier on labelled source images so that it is right on target images.

    Args:
        network: gives logits; trained in place.
        source: labelled images.
        target: images of the other domain, of the same shape; its labels are never looked at.
        terms: what draws the domains together; None for the default ones.
        settings: of the training.
        feeding: of images.
        residual: learn a correction between source and target scores.
        statistics: of batch normalization, in training.
        layer: whose input are the features; found where None.
        held_out: share of the source that the training's progress is seen on, in (0, 1).
        run_dir: where checkpoints go; None for none.
        resume: go on from the checkpoint in it.
        label: beside the progress bar.
        regularizers: of the training, such as what keeps zeros of a pruned network.
        refresh: take the statistics of batch normalization from the target at the end.

    Returns:
        The adapted classifier: the last iterate, never the best one on the target.

    Raises:
        InvalidArgument: for fewer than two target images, one class only, a single image of each class, more classes
            than the network has, or images of different shapes.
        UnsupportedLayer: where the layer of the features is not found.
        TrainingDiverged: where the loss became NaN or infinite.
        CheckpointError: where the folder holds another run.
    """
    require_domains(source, target)
    training, seen = cut(source, held_out, settings.seed)
    batches = feeding.batches(training, settings.seed)
    drawn = feeding.batches(target, settings.seed + 1, target=True)
    network.to(batches.device)
    adapting = AdaptingNetwork(network, batches.batch(0, 0)[0][:2], layer, residual, statistics).to(batches.device)
    terms = terms or Terms()
    if (most := int(source.labels.max())) >= adapting.classes:
        raise InvalidArgument(f"network: it tells {adapting.classes} classes apart, the source has class {most}")
    # Without terms the target is not looked at, not even by the statistics of batch normalization.
    objective = Adaptation(drawn, terms, settings.label_smoothing) if terms != SOURCE_ONLY or residual else None
    if objective is None:  # processes that exchange gradients wait for every parameter that wants one
        adapting.domain_classifier.requires_grad_(False)
    settings = replace(settings, keep_best=False)
    history = train(
        adapting, batches, feeding.batches(seen, 0, training=False), settings, regularizers, run_dir,
        resume, label, objective=objective,
    )  # fmt: skip
    if refresh:
        refresh_statistics(network, feeding.batches(target, 0, target=True, training=False))
    return Adapted(network.eval(), history.rows, adapting.layer)


def cut(source: Split, held_out: float, seed: int) -> tuple[Split, Split]:
    """Hold images out, at least one, and none that is the only one of its class.

    Args:
        source: labelled images.
        held_out: share, in (0, 1).
        seed: chooses them.

    Returns:
        The rest, and what is held out.

    Raises:
        InvalidArgument: where no class has two images.
    """
    several = torch.nonzero(torch.bincount(source.labels)[source.labels] > 1).flatten()
    if not len(several):
        raise InvalidArgument(
            f"source: each of its {len(source)} images is alone in its class; give two or more of some class, as the "
            "training's progress is seen on images that are held out"
        )
    count = min(max(1, round(held_out * len(source))), len(several) - 1)
    left = torch.ones(len(source), dtype=torch.bool)
    left[several[stratified_sample(source.labels[several], count, seed)]] = False
    return source.subset(torch.nonzero(left).flatten()), source.subset(torch.nonzero(~left).flatten())


def require_domains(source: Split, target: Split) -> None:
    """Refuse what nothing can be adapted with.

    Raises:
        InvalidArgument: for fewer than two target images, one source class only, or images of different shapes.
    """
    if len(target) < 2:
        raise InvalidArgument(f"target: expected at least two images, got {len(target)}")
    if len(torch.unique(source.labels)) < 2:
        raise InvalidArgument(
            f"source: expected images of at least two classes, got class {source.labels[:1].tolist()} only; give the "
            "folder just above the class folders"
        )
    if source.image_shape != target.image_shape:
        raise InvalidArgument(
            f"images: expected one shape (channels, height, width) in both domains, got {source.image_shape} in the "
            f"source and {target.image_shape} in the target; resize, or read both with the same number of channels"
        )
