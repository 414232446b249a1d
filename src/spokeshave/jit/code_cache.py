"""Code cache: what was generated for this CPU, kept on disk as arrays, so that the next process need not make it again.

One file an entry, named by its key; the key holds everything that the content depends on. A file that is damaged, was
altered, or belongs to another user is not used: its content is made anew, and the file replaced.
"""

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from spokeshave.errors import FileError
from spokeshave.files import atomic_path, remove_leftovers
from spokeshave.jit.host_cpu import VectorSet, host_cpu
from spokeshave.user_cache import cache_folder, warn_unwritable

Arrays = dict[str, np.ndarray]
MOST_BYTES = 1 << 30
"""Of all files together; the ones not used for longest are removed first."""


def code_key(*parts: object) -> str:
    """SHA-256 over texts, numbers and arrays that an entry depends on.

    Args:
        parts: anything with a stable `repr`, and arrays.

    Example:
        >>> code_key("a", 1) == code_key("a", 1) != code_key("a1")
        True
    """
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            total.update(f"{part.dtype} {part.shape}\n".encode())
            total.update(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)
        else:
            total.update(f"{part!r}\n".encode())
    return total.hexdigest()


def _sources() -> str:
    """SHA-256 over what writes code; of nothing that comes again where it cannot be read."""
    total, package = hashlib.sha256(), Path(__file__).parent.parent
    found = sorted([*package.glob("jit/*.py"), *package.glob("targets/cpu_sparse/*.py")])
    try:
        for path in found:
            total.update(path.read_bytes())
    except OSError:
        found = []
    return total.hexdigest() if found else os.urandom(32).hex()


_SOURCES = _sources()
"""Of the sources that this process runs: they may be replaced meanwhile."""


@cache
def generator(vectors: VectorSet) -> tuple[object, ...]:
    """What makes code and for which machine: part of the key of everything that is generated."""
    host = host_cpu()
    makers = _SOURCES, version("llvmlite"), np.__version__
    return *makers, host.name, host.triple, sorted(host.features), vectors.name


def cached(key: str, make: Callable[[], Arrays]) -> Arrays:
    """The entry of a key; made and kept where there is none, or a damaged one.

    Args:
        key: from `code_key`.
        make: makes the content; numpy arrays by name, none of them empty in its dimensions' count.
    """
    kept = found(key)
    if kept is not None:
        return kept
    made = make()
    _write(_path(key), made)
    return made


def _path(key: str) -> Path:
    return cache_folder() / "code" / f"{key}.safetensors"


def found(key: str) -> Arrays | None:
    """The entry of a key; None where there is none, or a damaged one.

    Args:
        key: from `code_key`.
    """
    path = _path(key)
    try:
        if hasattr(os, "getuid") and path.stat().st_uid != os.getuid():
            return None
        with safe_open(path, framework="np") as file:
            recorded = (file.metadata() or {}).get("sha256")
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        if recorded != _digest(path, arrays):
            return None
    except (OSError, SafetensorError):
        return None
    with suppress(OSError):  # a cache that may only be read is as good
        os.utime(path)
    return arrays


def _write(path: Path, arrays: Arrays) -> None:
    """Keep an entry; a folder that cannot be written costs time the next time, and nothing else."""
    try:
        with atomic_path(path, durable=False) as temporary:
            save_file(arrays, temporary, metadata={"sha256": _digest(path, arrays)})
    except FileError as error:
        warn_unwritable(error)
        return
    _trim(path.parent)


def _digest(path: Path, arrays: Arrays) -> str:
    """SHA-256 over content and name: code of another layer, copied here, would run on memory of other sizes."""
    return code_key(path.stem, *(part for name in sorted(arrays) for part in (name, arrays[name])))


def _trim(folder: Path) -> None:
    try:
        remove_leftovers(folder)
        files = [(path, path.stat()) for path in folder.glob("*.safetensors")]
        total = sum(facts.st_size for _, facts in files)
        for path, facts in sorted(files, key=lambda file: file[1].st_mtime):
            if total <= MOST_BYTES:
                return
            path.unlink(missing_ok=True)
            total -= facts.st_size
    except OSError:  # another process removes files too
        return
