"""The ledger of results: results/<recipe>/<row>.json, one versioned file a row, traceable to a commit and a machine.

A row holds the config, the seeds, the versions, the commit, the machine, the wall time and the numbers. What cannot be
traced (no commit, a changed tree) or is no number (NaN) is refused. Host names and paths are never written down.
"""

import json
import math
import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from datetime import UTC, datetime
from enum import Enum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from spokeshave.errors import InvalidArgument, LedgerError
from spokeshave.files import atomic_write

_PACKAGE = Path(__file__).resolve().parent
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_COMMIT = re.compile(r"[0-9a-f]{40,64}")
_PLACE_IN_COMMAND = re.compile(r"(?<![^\s='\"])[~/][^\s'\"]*")
_REPORTED_PACKAGES = (
    "spokeshave",
    "torch",
    "numpy",
    "scipy",
    "scikit-learn",
    "safetensors",
    "torch-pruning",
    "onnx",
    "onnxruntime",
)


@dataclass(frozen=True)
class Row:
    """One row of the ledger, as it stands in its file."""

    recipe: str
    row: str
    numbers: dict[str, Any]
    config: dict[str, Any]
    seeds: list[int]
    wall_s: float
    commit: str
    dirty: bool
    date: str
    command: str | None
    versions: dict[str, str]
    machine: dict[str, Any]


def write_row(
    recipe: str,
    row: str,
    config: object,
    numbers: Mapping[str, Any],
    *,
    seeds: Sequence[int],
    wall_s: float,
    command: str | None = None,
    allow_dirty: bool = False,
    directory: Path | str = Path("results"),
) -> Path:
    """Write one row of results, replacing an earlier one of the same name as a whole.

    Args:
        recipe: the recipe or benchmark that made the numbers; becomes the folder's name.
        row: the row, such as "lenet-3"; becomes the file's name.
        config: the settings: a mapping or a dataclass. Paths in it are left out, they belong to one machine only.
        numbers: what was measured: numbers, texts, lists and mappings of them; None where a number does not exist.
        seeds: the seeds of the runs, one each.
        wall_s: seconds that the runs took together.
        command: the command line that repeats the run; absolute paths in it are written as PATH.
        allow_dirty: True writes rows of a changed tree too, marked `"dirty": true`.
        directory: folder of the ledger.

    Returns:
        The file that was written.

    Raises:
        LedgerError: where no commit can be named, files of the commit were changed, or a number is NaN or infinite.
        InvalidArgument: where a name cannot be a file's name.
        FileError: where the file cannot be written.
    """
    for what, name in (("recipe", recipe), ("row", row)):
        if not _NAME.fullmatch(name):
            raise InvalidArgument(f"{what}: expected letters, digits, dots, dashes and underscores, got {name!r}")
    where = f"{recipe}/{row}"
    plain_numbers = plain(numbers, f"{where}: numbers")
    if not plain_numbers:
        raise LedgerError(f"{where}: expected at least one number, got none; a row without numbers says nothing")
    directory = Path(directory)
    commit, dirty = find_commit(directory)
    if dirty and not allow_dirty:
        raise LedgerError(
            f"{where}: the working tree differs from commit {commit[:12]}, so the commit does not describe this run; "
            "commit your changes and run again (or pass allow_dirty=True: the row is then marked as dirty)"
        )
    entry = Row(
        recipe=recipe,
        row=row,
        numbers=plain_numbers,
        config=plain(config, f"{where}: config"),
        seeds=[int(seed) for seed in seeds],
        wall_s=plain(float(wall_s), f"{where}: wall_s"),
        commit=commit,
        dirty=dirty,
        date=datetime.now(UTC).strftime("%Y-%m-%d"),
        command=None if command is None else _PLACE_IN_COMMAND.sub("PATH", command),
        versions=describe_versions(),
        machine=describe_machine(),
    )
    path = directory / recipe / f"{row}.json"
    atomic_write(path, json.dumps(asdict(entry), indent=2, ensure_ascii=False) + "\n")
    return path


def read_rows(recipe: str, directory: Path | str = Path("results")) -> tuple[Row, ...]:
    """Read and check every row of a recipe.

    Args:
        recipe: name of the recipe.
        directory: folder of the ledger.

    Returns:
        The rows, ordered by their names.

    Raises:
        LedgerError: where the recipe has no rows, or a file is damaged or lacks a field.
    """
    folder = Path(directory) / recipe
    paths = sorted(folder.glob("*.json"))
    if not paths:
        raise LedgerError(f"{folder}: expected rows (*.json), found none; run the recipe, or name another directory")
    return tuple(_read_row(path) for path in paths)


def _read_row(path: Path) -> Row:
    remedy = "restore the file from the repository, or run the row again"
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LedgerError(f"{path}: expected JSON, got {error}; {remedy}") from error
    expected = {field.name for field in fields(Row)}
    if not isinstance(entry, dict) or set(entry) != expected:
        got = sorted(entry) if isinstance(entry, dict) else type(entry).__name__
        raise LedgerError(f"{path}: expected the fields {sorted(expected)}, got {got}; {remedy}")
    if (entry["recipe"], entry["row"]) != (path.parent.name, path.stem):
        raise LedgerError(f"{path}: holds row {entry['recipe']}/{entry['row']}; {remedy}")
    if not _COMMIT.fullmatch(str(entry["commit"])):
        raise LedgerError(f"{path}: expected a commit of 40 hexadecimal digits, got {entry['commit']!r}; {remedy}")
    if not isinstance(entry["numbers"], dict) or not entry["numbers"]:
        raise LedgerError(f"{path}: expected numbers by name, got {entry['numbers']!r}; {remedy}")
    plain(entry, str(path))
    return Row(**entry)


def find_commit(directory: Path | str = Path("results")) -> tuple[str, bool]:
    """Name the commit that describes this run, and whether files differ from it.

    The repository that tracks the package is asked; where the package was installed elsewhere, the one around
    `directory`. The rows of the ledger themselves do not count as changes; new files inside the package do.

    Args:
        directory: folder of the ledger.

    Returns:
        The commit's full hash, and True where tracked files were changed since.

    Raises:
        LedgerError: where there is no git, no repository or no commit.
    """
    directory = Path(directory).resolve()
    tracked = _git(_PACKAGE, "ls-files", "--error-unmatch", Path(__file__).name)
    around = next((folder for folder in (directory, *directory.parents) if folder.is_dir()), Path.cwd())
    start = around if tracked is None else _PACKAGE
    commit = _git(start, "rev-parse", "--verify", "HEAD")
    root = _git(start, "rev-parse", "--show-toplevel")
    if commit is None or root is None:
        raise LedgerError(
            "results need a commit that they can be traced to, and none was found: neither the package nor "
            f"{directory.name}/ lies in a git repository with a commit; run from a clone of the repository"
        )
    excluded = []
    if directory.is_relative_to(root) and directory != Path(root):
        excluded = [f":(exclude){directory.relative_to(root).as_posix()}"]
    changed = _git(Path(root), "status", "--porcelain", "--untracked-files=no", "--", ".", *excluded)
    new = _git(_PACKAGE, "status", "--porcelain", "--untracked-files=normal", "--", ".") if tracked else ""
    return commit, bool(changed or new or changed is None)


def _git(folder: Path, *arguments: str) -> str | None:
    """Run git in a folder, which it only reads; its output, or None where it fails or is not installed.

    By itself, `git status` also writes the index, and a full disk or a kill leaves a lock that stops every later git.
    """
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def describe_machine() -> dict[str, Any]:
    """Describe what the numbers were measured on, without saying whose machine it is.

    Returns:
        CPU model, cores that may be used, memory in GiB, system, Python, torch's threads, and the GPU where one is.
    """
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    machine: dict[str, Any] = {
        "cpu": _cpu_model(),
        "architecture": platform.machine(),
        "cores": usable,
        "memory_gib": _memory_gib(),
        "os": _system(),
        "python": platform.python_version(),
        "torch_threads": torch.get_num_threads(),
    }
    if torch.cuda.is_available():
        machine["gpu"] = torch.cuda.get_device_name()
    return machine


def describe_versions() -> dict[str, str]:
    """Give the versions of Spokeshave and of those packages it uses that are installed."""
    versions = {}
    for package in _REPORTED_PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    found = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    except (AttributeError, OSError, ValueError):
        return None


def _system() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        return f"{platform.system()} {platform.release()}"


def plain(value: object, where: str) -> Any:
    """Turn a value into what JSON can hold: numbers, texts, None, lists and mappings of them.

    Args:
        value: a dataclass, mapping, sequence, enum, tensor of one element or plain value. Entries of a mapping or
            dataclass that are paths are left out.
        where: what the value is, for the error.

    Returns:
        The plain value.

    Raises:
        LedgerError: at a NaN, an infinite number or a value of another kind.

    Example:
        >>> plain({"rate": 0.1, "shape": (3, 4)}, "config")
        {'rate': 0.1, 'shape': [3, 4]}
    """
    if isinstance(value, Enum):
        return plain(value.value, where)
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise LedgerError(f"{where}: expected a finite number, got {value}; write None where there is no number")
        return value
    if is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, Mapping):
        kept = {str(key): item for key, item in value.items() if not _is_path(item)}
        return {key: plain(item, f"{where}: {key}") for key, item in kept.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if hasattr(value, "item") and getattr(value, "size", None) is not None:  # numpy scalars, tensors of one element
        try:
            return plain(value.item(), where)  # pyright: ignore[reportAttributeAccessIssue]
        except (RuntimeError, ValueError) as error:
            raise LedgerError(f"{where}: expected one number, got {error}; give a list or a mean") from error
    raise LedgerError(f"{where}: expected a number, text, list or mapping, got {type(value).__name__}")


def _is_path(value: object) -> bool:
    """Say whether a value names a place on this machine."""
    return isinstance(value, Path) or (isinstance(value, str) and (value.startswith("~") or Path(value).is_absolute()))
