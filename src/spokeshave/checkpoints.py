"""Checkpoints: one safetensors file that holds a whole training state, written atomically and verified when read.

Tensors are flat under dotted names (`model.conv1.weight`, `optimizer.3.momentum_buffer`, `rng.cpu`); everything else is
JSON in the file's metadata, together with a SHA-256 over all tensors, so that a damaged file is refused, not loaded.
Nothing is pickled. The previous checkpoint is kept beside the latest.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from spokeshave.errors import CheckpointError, FileError
from spokeshave.files import atomic_path, atomic_write, file_error
from spokeshave.tensor_digest import digest

LATEST = "checkpoint.safetensors"
PREVIOUS = "checkpoint.previous.safetensors"
START = "start.sha256"
_FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """A training state.

    Attributes:
        tensors: by dotted name.
        facts: what is not a tensor; JSON values only. Floats survive exactly.
    """

    tensors: dict[str, Tensor]
    facts: dict[str, Any]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Tensors whose name begins with `prefix` and a dot, without it."""
        return {n[len(prefix) + 1 :]: t for n, t in self.tensors.items() if n.startswith(prefix + ".")}


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write the latest checkpoint of a folder; the one before it is kept under another name.

    Args:
        folder: made where it is missing.
        checkpoint: what to keep.

    Returns:
        The file's path.

    Raises:
        FileError: where it cannot be written (full disk, no permission); the checkpoint before it is then untouched.
    """
    path = folder / LATEST
    # Safetensors refuses tensors that share memory or are not contiguous: each is stored as a plain copy.
    tensors = {
        n: t.detach().cpu().contiguous(memory_format=torch.contiguous_format).clone()
        for n, t in checkpoint.tensors.items()
    }
    metadata = {"spokeshave": json.dumps({"format": _FORMAT, "sha256": digest(tensors), "facts": checkpoint.facts})}
    try:
        with atomic_path(path) as temporary:
            save_file(tensors, temporary, metadata=metadata)
            if path.exists():
                os.replace(path, folder / PREVIOUS)
    except FileError as error:
        raise FileError(f"{error}; then resume: the last good checkpoint was kept") from error
    return path


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read and verify the latest checkpoint of a folder.

    Args:
        folder: as given to `save_checkpoint`.

    Returns:
        What was saved; where a process was killed between the two renames of a save, the one before.

    Raises:
        CheckpointError: where there is none, or it is truncated or was altered.
        FileError: where it cannot be read.
    """
    path = folder / LATEST
    if not path.exists() and (folder / PREVIOUS).exists():
        path = folder / PREVIOUS
    if not path.exists():
        raise CheckpointError(
            f"no checkpoint at {folder / LATEST}: start without resuming, or name the run's own folder"
        )
    try:
        return _read(path)
    except CheckpointError as error:
        remedy = f"delete it to start this stage again: {path}"
        if path.name == LATEST and (folder / PREVIOUS).exists():
            remedy = f"rename {PREVIOUS} to {LATEST} in that folder to go on from the one before it"
        raise CheckpointError(f"{error}; {remedy}") from error


def has_checkpoint(folder: Path) -> bool:
    """Say whether a folder holds a checkpoint."""
    return (folder / LATEST).exists() or (folder / PREVIOUS).exists()


def require_same_start(run_dir: Path, weights: Mapping[str, Tensor], resume: bool) -> None:
    """See that a run that is resumed begins with the weights that it began with; note those of a new run.

    Args:
        run_dir: of the run, with checkpoints in it or in its subfolders.
        weights: that its trainings begin with.
        resume: whether it goes on.

    Raises:
        CheckpointError: where it began with others.
        FileError: where the note cannot be written.
    """
    path, now = run_dir / START, digest(weights)
    if resume and path.exists():
        if path.read_text().strip() != now:
            raise CheckpointError(
                f"{run_dir} holds a run that began with other weights (pretrained otherwise, or of another form or "
                "file); resume with the same options, or name another folder"
            )
    elif resume or not any(run_dir.rglob(LATEST)):  # else the training refuses the folder, and leaves it as it is
        atomic_write(path, now)


def _read(path: Path) -> Checkpoint:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except SafetensorError as error:
        raise CheckpointError(f"{path} is truncated or damaged ({error})") from error
    except OSError as error:
        raise file_error(path, "reading", error) from error
    try:
        header = json.loads(metadata["spokeshave"])
        version, sha256, facts = header["format"], header["sha256"], header["facts"]
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{path} is not a checkpoint of Spokeshave (its metadata lack {error})") from error
    if version != _FORMAT:
        raise CheckpointError(f"{path} has checkpoint format {version}, this version reads {_FORMAT}")
    if digest(tensors) != sha256:
        raise CheckpointError(f"{path} was altered after it was written: its tensors do not have the recorded SHA-256")
    return Checkpoint(tensors, facts)
