"""Poisons of recipe `poisoning` and their file: one that is resumed reads those that it has made before."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from spokeshave.files import atomic_write
from spokeshave.processes import is_first

ImagesAndLabels = tuple[Tensor, Tensor]
_TENSORS = ("images", "labels", "accuracies")


@dataclass(frozen=True, eq=False)
class Made:
    """Poisons of one arm, what they did, and what they cost.

    Attributes:
        images: the poisons.
        labels: that they carry.
        accuracies: of the victim after each of them.
        seconds: that making one took.
        training_s: that training what makes them took, before.
    """

    images: Tensor
    labels: Tensor
    accuracies: Tensor
    seconds: float = 0.0
    training_s: float = 0.0


def poisons_kept_or_made(path: Path, key: dict[str, Any], bases: ImagesAndLabels, make: Callable[[], Made]) -> Made:
    """Poisons from a file, where it is of the same key and whole; else they are made, and left there.

    Args:
        path: of the file, safetensors; it also holds the base images and labels.
        key: all that the poisons depend on, JSON values.
        bases: what they are made of.
        make: them.

    Raises:
        FileError: where the file cannot be written.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            if json.loads(about["key"]) == json.loads(json.dumps(key)):
                tensors = {name: file.get_tensor(name).to(bases[0].device) for name in _TENSORS}
                return Made(**tensors, seconds=float(about["seconds"]), training_s=float(about["training_s"]))
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        pass
    made = make()
    tensors = {name: getattr(made, name) for name in _TENSORS}
    tensors |= {"base_images": bases[0], "base_labels": bases[1]}
    about = {"key": json.dumps(key), "seconds": str(made.seconds), "training_s": str(made.training_s)}
    if is_first():
        atomic_write(path, save({name: tensor.cpu().clone() for name, tensor in tensors.items()}, about))
    return made
