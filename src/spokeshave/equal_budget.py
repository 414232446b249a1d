"""Equal budget: the same network trained in several ways, everything else the same.

For a seed, float and exchanged gradients start from the same weights and see the same batches in the same order. The
float network depends on nothing else, so all runs in one folder share it; recipes of crossbars and low rank train on
from it in stages. The test split is looked at once a seed, by the finished networks.
"""

import hashlib
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spokeshave.batch_transform import BatchTransform
from spokeshave.data import Augmentation, Batches, ImageStandardization, Normalization, Split, Splits
from spokeshave.evaluation import Evaluation, evaluate
from spokeshave.gradient_exchange import GradientExchange
from spokeshave.processes import join_processes
from spokeshave.regularizers import Regularizer
from spokeshave.tensor_digest import digest
from spokeshave.train_settings import TrainSettings
from spokeshave.training import train

FLOAT, EXCHANGED = "float", "ternary"


@dataclass(frozen=True)
class Budget:
    """What both networks are trained with.

    Attributes:
        name: of the network, for folders.
        network: makes the untrained network; called after seeding.
        settings: of the training.
        batch_size: images a step, over all workers.
        normalize: what images are fed as.
        augment: of the training images.
        validation: images held out of the training split.
    """

    name: str
    network: Callable[[], nn.Module]
    settings: TrainSettings
    batch_size: int
    normalize: Normalization | ImageStandardization
    augment: Augmentation | None = None
    validation: int = 5000


@dataclass(frozen=True)
class Trained:
    """One of the two networks.

    Attributes:
        network: with the weights of the last step.
        history: of its training.
        validation: its score on the validation split.
        test: its score on the test split.
    """

    network: nn.Module
    history: list[dict[str, Any]]
    validation: Evaluation
    test: Evaluation


@dataclass(frozen=True)
class Pair:
    """What one seed gave."""

    seed: int
    exact: Trained
    exchanged: Trained

    @property
    def gap(self) -> float:
        """Test error of the exchanged network above the float one's, as a share."""
        return self.exact.test.accuracy - self.exchanged.test.accuracy


class Course:
    """A budget on a data set.

    Args:
        budget: what is trained, and how.
        splits: the data.
        run_dir: of the run; float networks go beside it.
        resume: go on from the checkpoints in it. Finished float networks are taken over in any case.
        device: of the training.
    """

    def __init__(
        self, budget: Budget, splits: Splits, run_dir: Path, resume: bool = False, device: str = "cpu"
    ) -> None:
        self.budget, self.splits, self.run_dir, self.resume, self.device = budget, splits, run_dir, resume, device
        self.rank, self.world_size = join_processes()
        held_out = min(budget.validation, len(splits.train) // 5)
        self.training, self.validation = splits.hold_out(held_out, seed=0)

    def exact(self, seed: int) -> tuple[nn.Module, list[dict[str, Any]]]:
        """Train the float network of a seed, or load it where a run beside this one has trained it.

        Returns:
            The network, and the history of its training.
        """
        folder = self.run_dir.parent / f"float-{self.budget.name}-seed-{seed}-{self._digest()}"
        return self._train(seed, folder, FLOAT, None, resume=True)

    def exchanged(self, seed: int, exchange: GradientExchange) -> tuple[nn.Module, list[dict[str, Any]]]:
        """Train the network of a seed with exchanged gradients.

        Returns:
            The network, and the history of its training.

        Raises:
            CheckpointError: where the run's folder holds another run.
        """
        return self._train(seed, self.run_dir / f"seed-{seed}", EXCHANGED, exchange, self.resume)

    def stage(
        self,
        seed: int,
        name: str,
        network: nn.Module,
        settings: TrainSettings,
        regularizers: Sequence[Regularizer] = (),
        transform: BatchTransform | None = None,
    ) -> list[dict[str, Any]]:
        """Train a network on, in place, as a stage of its own in `run_dir`/seed-<seed>/<name>.

        Args:
            seed: of the run; with the name it gives the order of the images.
            name: of the stage.
            network: on any device; stays on the course's.
            settings: of the stage.
            regularizers: attached for this stage.
            transform: of every batch.

        Returns:
            The history.

        Raises:
            CheckpointError: where the stage's folder holds another training.
        """
        order = 1000 * (1 + seed) + zlib.crc32(name.encode()) % 1000
        folder, label = self.run_dir / f"seed-{seed}" / name, f"{name} (seed {seed})"
        settings = replace(settings, seed=order)
        return self._run(network, settings, order, folder, label, None, self.resume, regularizers, transform)

    def further(
        self,
        name: str,
        origin: Mapping[str, Any],
        network: nn.Module,
        settings: TrainSettings,
        regularizers: Sequence[Regularizer] = (),
    ) -> list[dict[str, Any]]:
        """Train a network on, in place, in a folder beside the run's, as float networks are: others find it there.

        Args:
            name: for the folder.
            origin: all that the network was made of, JSON values. Its weights are not compared with those that
                others began with: they may differ in their last digits.
            network: on any device; stays on the course's.
            settings: of the training.
            regularizers: attached for it.

        Returns:
            The history.
        """
        key = json.dumps([self._digest(), origin, _deciding(settings), settings.seed], sort_keys=True).encode()
        folder = self.run_dir.parent / f"further-{name}-{hashlib.blake2b(key, digest_size=4).hexdigest()}"
        torch.manual_seed(settings.seed)
        return self._run(network, settings, settings.seed, folder, name, None, True, regularizers)

    def validate(self, network: nn.Module) -> Evaluation:
        """Look at the validation split: what choices are made by."""
        return evaluate(network, self._evaluation(self.validation))

    def score(self, network: nn.Module, history: list[dict[str, Any]]) -> Trained:
        """Look at the validation and the test split, once."""
        held_out, test = (evaluate(network, self._evaluation(split)) for split in (self.validation, self.splits.test))
        return Trained(network, history, held_out, test)

    def example(self) -> Tensor:
        """Two images as the network is fed."""
        return next(iter(self._evaluation(self.validation)))[0][:2]

    def _train(
        self, seed: int, folder: Path, stage: str, exchange: GradientExchange | None, resume: bool
    ) -> tuple[nn.Module, list[dict[str, Any]]]:
        torch.manual_seed(seed)
        network = self.budget.network()
        settings, label = replace(self.budget.settings, seed=seed), f"{stage} (seed {seed})"
        return network, self._run(network, settings, seed, folder, label, exchange, resume, ())

    def _run(
        self,
        network: nn.Module,
        settings: TrainSettings,
        order: int,
        folder: Path,
        label: str,
        exchange: GradientExchange | None,
        resume: bool,
        regularizers: Sequence[Regularizer],
        transform: BatchTransform | None = None,
    ) -> list[dict[str, Any]]:
        budget = self.budget
        network.to(self.device)
        # Workers get equal shares of every batch.
        batches = Batches(
            self.training, budget.batch_size // self.world_size, order, budget.normalize, budget.augment, self.device,
            drop_last=True, channels_last=settings.channels_last, rank=self.rank, world_size=self.world_size,
        )  # fmt: skip
        held_out = self._evaluation(self.validation)
        history = train(
            network, batches, held_out, settings, regularizers, folder, resume, label,
            exchange=exchange, transform=transform,
        )  # fmt: skip
        return history.rows

    def _evaluation(self, split: Split) -> Batches:
        budget = self.budget
        layout = budget.settings.channels_last
        return Batches(split, 500, 0, budget.normalize, budget.augment, self.device, channels_last=layout)

    def _digest(self) -> str:
        """Of all that the float network depends on but the seed, so that others are never taken for it."""
        budget = self.budget
        with torch.random.fork_rng(devices=[]):
            network = budget.network()
        facts: dict[str, Any] = {
            "settings": _deciding(budget.settings),
            "data": digest({"images": self.training.images, "labels": self.training.labels}),
            "network": [[name, list(one.shape)] for name, one in network.named_parameters()],
            "device": str(self.device),
            "batch": [budget.batch_size, self.world_size],
            "augment": None if budget.augment is None else asdict(budget.augment),
            "normalize": budget.normalize.to_dict(),
        }
        # Such as which axon has which type; counters and statistics of normalization begin alike.
        fixed = {name: one for name, one in network.named_buffers() if one.dim() and not one.is_floating_point()}
        facts |= {"buffers": digest(fixed)} if fixed else {}
        return hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=4).hexdigest()


def _deciding(settings: TrainSettings) -> dict[str, Any]:
    """What of the settings decides which network comes out, of one seed."""
    return {name: one for name, one in settings.to_dict().items() if name not in ("seed", "checkpoint_every")}
