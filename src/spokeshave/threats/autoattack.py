"""AutoAttack: four attacks without a setting to choose, each on the images that the ones before it did not fool.

Croce, Hein: Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks, ICML
2020: APGD on the cross entropy, targeted APGD on the difference of logits ratio, targeted FAB, and Square, which sees
no gradients. By the package pyautoattack. Departs from the paper: with fewer than ten classes, all wrong ones are
targets instead of nine; finished batches can be kept on disk with their images, where the package keeps only flags.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from spokeshave.errors import InvalidArgument
from spokeshave.files import atomic_path
from spokeshave.optional import require
from spokeshave.tensor_digest import digest
from spokeshave.threats.foolbox_attacks import draw_seed
from spokeshave.threats.gradient_attack import require_attackable
from spokeshave.threats.outside_attacks import by_strength, contained, frozen, require_batch_size
from spokeshave.threats.perturbation import Norm, strengths_of

TARGETS = 9
"""Wrong classes that the targeted attacks aim at, one after the other; all of them where there are fewer."""


class Part(Enum):
    """Attacks that AutoAttack is made of, by the names of its package."""

    APGD_CE = "apgd-ce"
    APGD_DLR = "apgd-dlr"
    APGD_T = "apgd-t"
    FAB = "fab"
    FAB_T = "fab-t"
    SQUARE = "square"


STANDARD = (Part.APGD_CE, Part.APGD_T, Part.FAB_T, Part.SQUARE)
"""The parts, and their order, that published accuracies under AutoAttack are measured with."""
RATIO_CLASSES = {Part.APGD_DLR: 3, Part.APGD_T: 4}
"""Fewest classes for which a part's difference of logits ratio is defined."""


@dataclass(frozen=True)
class AutoAttack:
    """AutoAttack, standard unless told otherwise; needs the extra `attacks`.

    Attributes:
        norm: of the perturbation.
        parts: attacks to run, in order.
        batch_size: images attacked together.
        queries: of Square an image, at least 1; 5000 is standard.
        folder: where finished batches are kept, so that an evaluation that was stopped goes on from there; None keeps
            none. Batches are found by their content: model, images, labels, strengths, settings.
    """

    norm: Norm = Norm.LINF
    parts: tuple[Part, ...] = STANDARD
    batch_size: int = 500
    queries: int = 5000
    folder: Path | None = None

    def __post_init__(self) -> None:
        require_batch_size(self.batch_size)
        if not self.parts or self.queries < 1:
            raise InvalidArgument(
                f"AutoAttack: expected at least one part and one query, got {len(self.parts)} and {self.queries}"
            )

    def __call__(
        self,
        model: nn.Module,
        images: Float[Tensor, "b c h w"],
        labels: Int64[Tensor, " b"],
        strengths: float | Float[Tensor, " b"],
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "b c h w"]:
        """Attack images.

        Args:
            model: gives logits; it runs in evaluation mode and ends as it was.
            images: 0..1, on the model's device.
            labels: the true classes.
            strengths: largest size of the perturbation, of all images or of each.
            generator: gives the seed; None for torch's own, which is then moved on.

        Returns:
            Images in 0..1, none further from its original than its strength; those that stood are their originals.

        Raises:
            MissingExtra: where the package is not installed.
            InvalidArgument: for images, labels, scores or strengths that are none, too few classes for a part, or a
                size of images that the package's Square cannot do.
            UnsupportedLayer: where a part needs gradients and none passes through the model.
        """
        package = require("pyautoattack", "attacking with AutoAttack")
        if images.dim() != 4:
            raise InvalidArgument(f"images: AutoAttack expected shape (b, c, h, w), got {tuple(images.shape)}")
        classes = require_attackable(model, images, labels, by_gradient=set(self.parts) != {Part.SQUARE})
        for part in self.parts:
            if classes < RATIO_CLASSES.get(part, 2):
                raise InvalidArgument(
                    f"{part.value}: expected a model with {RATIO_CLASSES[part]} or more classes, got {classes}; leave "
                    "it out of `parts`"
                )
        if self.norm is Norm.L2 and Part.SQUARE in self.parts:
            _require_tiles(*images.shape[2:])
        found, seed = strengths_of(strengths, images), draw_seed(generator)

        def attack_group(places: Tensor, strength: float) -> Tensor:
            parts = [
                self._batch(package, model, images[some], labels[some], strength, seed, classes)
                for some in places.split(self.batch_size)
            ]
            return torch.cat(parts)

        with frozen(model):
            attacked = by_strength(images, found, attack_group)
        return contained(attacked, images, found, self.norm)

    def _batch(
        self, package: Any, model: nn.Module, images: Tensor, labels: Tensor, strength: float, seed: int, classes: int
    ) -> Tensor:
        """One batch at one strength, from disk where it is finished."""
        kept = None if self.folder is None else self.folder / self._file_name(model, images, labels, strength, seed)
        if kept is not None and kept.exists():
            try:
                return load_file(kept)["attacked"].to(images.device)
            except (SafetensorError, KeyError):
                kept.unlink()  # damaged: it is made again
        suite = package.AutoAttack(
            model, device=images.device, eps=strength, norm="Linf" if self.norm is Norm.LINF else "L2", seed=seed
        )
        self._set_up(suite, classes)
        with _undisturbed():
            # Images that the model has wrong are left out by the package itself.
            attacked, _ = suite.run_standard_evaluation(images, labels, batch_size=self.batch_size)
        if kept is not None:
            with atomic_path(kept) as path:
                save_file({"attacked": attacked.detach().cpu().contiguous()}, path)
        return attacked

    def _set_up(self, suite: Any, classes: int) -> None:
        """What the standard version sets, for the parts that are wanted."""
        suite.attacks_to_run = [part.value for part in self.parts]
        suite.apgd_targeted.n_target_classes = suite.fab.n_target_classes = min(TARGETS, classes - 1)
        suite.square.n_queries = self.queries
        suite.verbose = False
        # Its warnings are about what is refused or measured here, and would be printed.
        quiet = logging.Logger("quiet")
        quiet.disabled = True
        suite.logger = suite.apgd.logger = suite.apgd_targeted.logger = quiet

    def _file_name(self, model: nn.Module, images: Tensor, labels: Tensor, strength: float, seed: int) -> str:
        # The scores tell apart what weights do not, such as two ways to combine the same networks.
        with torch.no_grad():
            content = {f"weight {name}": value for name, value in model.state_dict().items()} | {
                "images": images,
                "labels": labels,
                "scores": model(images),
                "numbers": torch.tensor([strength, seed, self.batch_size, self.queries], dtype=torch.float64),
            }
        parts = "+".join(part.value for part in self.parts)
        return f"{self.norm.value}-{parts}-{strength:.6g}-{digest(content)[:32]}.safetensors"


def _require_tiles(height: int, width: int) -> None:
    """Refuse images on whose edge Square's first squares do not end: the package would stop with an error of shapes."""
    side = height // 5
    start = (height - 5 * side) // 2
    # A square of one pixel that lies outside adds nothing; a larger one does not fit what is left of it.
    fits = side == 1 or (side > 1 and all(start + length // side * side <= length for length in (height, width)))
    if not fits:
        raise InvalidArgument(
            f"images: Square in the Euclidean norm cannot tile {height}x{width} pixels with squares of {side}, as the "
            "package does; leave it out of `parts`, or resize inside the model"
        )


@contextmanager
def _undisturbed() -> Iterator[None]:
    """The package sets a trace function to count calls, and then none: put back that of a debugger or of coverage."""
    tracing = sys.gettrace()
    try:
        yield
    finally:
        sys.settrace(tracing)
