"""Code cache: what was generated for this CPU, kept on disk as arrays, so that the next process need not make it again.

One file an entry, named by its key; the key holds everything that the content depends on. A file that is damaged, was
altered, or belongs to another user is not used: its content is made anew, and the file replaced.
"""

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from math import prod
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from spokeshave.errors import FileError
from spokeshave.files import atomic_path, remove_leftovers
from spokeshave.jit.executable_memory import aligned_zeros
from spokeshave.jit.host_cpu import VectorSet, host_cpu
from spokeshave.user_cache import cache_folder, warn_unwritable

Arrays = dict[str, np.ndarray]
ROOM = 256
"""Bytes of zeros behind each array: code that loads whole vectors may read so far beyond the end."""
_KINDS = {"U8": np.uint8, "U16": np.uint16, "U32": np.uint32, "I32": np.int32, "I64": np.int64, "F32": np.float32}
_KINDS |= {"U64": np.uint64, "F64": np.float64, "BOOL": np.bool_}
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
    writers = ("jit/*.py", "targets/cpu_sparse/*.py", "targets/truenorth/bit_plane_loops.py", "communication/*.py")
    found = sorted(path for pattern in writers for path in package.glob(pattern))
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

    Returns:
        arrays that begin at a page of memory and have `ROOM` behind them.
    """
    kept = found(key)
    if kept is not None:
        return kept
    made = make()
    _write(_path(key), made)
    return {name: _roomy(array) for name, array in made.items()}


def _roomy(array: np.ndarray) -> np.ndarray:
    copy = _room(array.shape, array.dtype.type)
    copy[...] = array
    return copy


def _room(shape: tuple[int, ...], kind: type[np.generic]) -> np.ndarray:
    """Zeros to be filled, with `ROOM` behind them."""
    size = int(np.prod(shape, dtype=np.int64))
    return aligned_zeros((size + ROOM // np.dtype(kind).itemsize,), kind)[:size].reshape(shape)


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
        recorded, arrays = _read(path)
        if recorded != _digest(path, arrays):
            return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        return None
    with suppress(OSError):  # a cache that may only be read is as good
        os.utime(path)
    return arrays


def _read(path: Path) -> tuple[object, Arrays]:
    """Digest and arrays of a file in the format of safetensors, each array read to where it will be used.

    The library would put them elsewhere first, which takes longer than reading them.

    Raises:
        OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError: it is damaged.
    """
    with open(path, "rb") as file:
        size, end = int.from_bytes(file.read(8), "little"), os.fstat(file.fileno()).st_size
        if not 0 < size <= end - 8:
            raise ValueError("no header")
        header, arrays = json.loads(file.read(size)), {}
        recorded = header.pop("__metadata__")["sha256"]
        for name, facts in header.items():
            first, last = facts["data_offsets"]
            kind, shape = _KINDS[facts["dtype"]], tuple(facts["shape"])
            count = prod(shape)
            if (
                first < 0
                or not all(0 <= length <= end for length in shape)
                or last - first != count * np.dtype(kind).itemsize
                or 8 + size + last > end
            ):
                raise ValueError("an array lies outside of the file")
            arrays[name] = _room(shape, kind)
            file.seek(8 + size + first)
            if count and file.readinto(arrays[name].reshape(-1).view(np.uint8)) != last - first:
                raise ValueError("the file ended early")
        return recorded, arrays


def _write(path: Path, arrays: Arrays) -> None:
    """Keep an entry; a folder that cannot be written costs time the next time, and nothing else."""
    try:
        with atomic_path(path, durable=False) as temporary:
            save_file(arrays, temporary, metadata={"sha256": _digest(path, arrays)})
    except FileError as error:
        warn_unwritable(error)
        return
    # Looking through thousands of entries takes longer than writing one.
    folder, size = path.parent, sum(array.nbytes for array in arrays.values())
    _SINCE_TRIMMED[folder] = _SINCE_TRIMMED.get(folder, MOST_BYTES) + size
    if 32 * _SINCE_TRIMMED[folder] >= MOST_BYTES:
        _SINCE_TRIMMED[folder] = 0
        _trim(folder)


_SINCE_TRIMMED: dict[Path, int] = {}
"""Bytes that this process has written to a folder since it last looked through it; at first it has not looked."""


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
