"""Results kept in a run's folder: what was measured once is read again by a run that is resumed.

A result stands beside a key, all that it depends on. One of another key, or in a damaged file, is measured anew.
"""

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from spokeshave.files import atomic_write
from spokeshave.processes import is_first
from spokeshave.tensor_digest import digest

Result = TypeVar("Result")
Tensors = dict[str, Tensor]
_DAMAGED = (OSError, SafetensorError, ValueError, KeyError, TypeError)
"""What reading a file that is cut short, altered or of another form leads to."""


def kept_or_made(
    path: Path,
    key: Mapping[str, Any],
    make: Callable[[], Result],
    to_json: Callable[[Result], Any],
    from_json: Callable[[Any], Result],
    look: bool = True,
) -> Result:
    """What a file holds under a key; else it is made, and the first process writes the file.

    Args:
        path: of the file, JSON.
        key: JSON values.
        make: the result, never None.
        to_json: of the result, what the file takes.
        from_json: the other way; may raise `ValueError`, `KeyError` or `TypeError` for what it cannot be.
        look: into the file; else the result is made in any case.

    Raises:
        FileError: where the file cannot be written.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "found.json"
        >>> [kept_or_made(path, {"seed": seed}, lambda seed=seed: seed, int, int) for seed in (1, 1, 2)]
        [1, 1, 2]
    """

    def read() -> Result | None:
        content = json.loads(path.read_text())
        return from_json(content["result"]) if content["key"] == _as_read(key) else None

    kept = _read_if_whole(path, read) if look else None
    if kept is not None:
        return kept
    result = make()
    if is_first():
        atomic_write(path, json.dumps({"key": key, "result": to_json(result)}))
    return result


def kept_or_made_tensors(
    path: Path, key: Mapping[str, Any], make: Callable[[], tuple[Tensors, dict[str, float]]], look: bool = True
) -> tuple[Tensors, dict[str, float]]:
    """The same for tensors and a few numbers, in a file of safetensors.

    Args:
        path: of the file.
        key: JSON values.
        make: the tensors and the numbers.
        look: into the file; else they are made in any case.

    Returns:
        Both; tensors from a file are on the CPU.

    Raises:
        FileError: where the file cannot be written.
    """

    def read() -> tuple[Tensors, dict[str, float]] | None:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})["about"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
        if about["digest"] != digest(tensors):
            raise ValueError("its tensors are not those that were written")
        numbers = {name: float(value) for name, value in about["numbers"].items()}
        return (tensors, numbers) if about["key"] == _as_read(key) else None

    kept = _read_if_whole(path, read) if look else None
    if kept is not None:
        return kept
    tensors, numbers = make()
    if is_first():
        copies = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
        about = {"key": key, "digest": digest(copies), "numbers": numbers}
        atomic_write(path, save(copies, {"about": json.dumps(about)}))
    return tensors, numbers


def _read_if_whole(path: Path, read: Callable[[], Result | None]) -> Result | None:
    """What a file holds; nothing, and a warning, where it is there but damaged."""
    if not path.exists():
        return None
    try:
        return read()
    except _DAMAGED as error:
        reason = f"{type(error).__name__}: {error}"
        warnings.warn(f"{path} is damaged ({reason}); it is measured anew", RuntimeWarning, stacklevel=3)
        return None


def _as_read(key: Mapping[str, Any]) -> Any:
    """A key as a file gives it back: tuples are lists."""
    return json.loads(json.dumps(key))
