"""What the records of all kinds of runs begin with: who ran what, from which code and on which machine; and run.json.

A record is a dataclass that adds the numbers of its kind; all of them are read and checked the same way.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from spokeshave.errors import DataError, LedgerError
from spokeshave.files import atomic_write
from spokeshave.ledger import describe_machine, describe_versions, find_commit

SCHEMA = 1
RECORD_FILE = "run.json"


@dataclass(frozen=True, kw_only=True)
class RecordHeading:
    """The fields of every record of a finished run.

    Args:
        recipe: name of the recipe, such as "ssl".
        row: row of the paper or the user's own name of the run.
        title: heading of the page.
        config: settings by name.
        seeds: one each training.
        versions: package -> version.
        machine: what `ledger.describe_machine` gave.
        commit: commit of the code, None outside a repository.
        wall_s: seconds that the run took.
        history: stage -> rows (`History.rows`: epoch, train_loss, validation_accuracy and so on) of the first seed.
        paper: the published row: quantity -> value.
        command: the command line that repeats the run.
        data: name of the data set.
    """

    recipe: str
    row: str
    title: str
    config: dict[str, Any]
    seeds: list[int]
    versions: dict[str, str]
    machine: dict[str, Any]
    commit: str | None
    wall_s: float
    history: dict[str, list[dict[str, Any]]]
    paper: dict[str, Any] | None = None
    command: str | None = None
    data: str | None = None


_KINDS: dict[str, type | tuple[type, ...]] = {
    "recipe": str,
    "row": str,
    "title": str,
    "config": dict,
    "seeds": list,
    "versions": dict,
    "machine": dict,
    "commit": (str, type(None)),
    "wall_s": (int, float),
    "history": dict,
    "paper": (dict, type(None)),
    "command": (str, type(None)),
    "data": (str, type(None)),
}


def code_and_machine() -> dict[str, Any]:
    """The heading's versions, machine and commit, of this process."""
    return {"versions": describe_versions(), "machine": describe_machine(), "commit": _described_commit()}


def _described_commit() -> str | None:
    """The commit of the code, and whether it was changed; None outside a repository."""
    try:
        commit, dirty = find_commit(Path(__file__).parent)
    except LedgerError:
        return None
    return f"{commit} (with changes)" if dirty else commit


def read_content(run_dir: Path | str) -> tuple[Path, dict[str, Any]]:
    """Read a run.json.

    Args:
        run_dir: the run's folder, or its run.json.

    Returns:
        (path of run.json, what it holds, unchecked).

    Raises:
        DataError: where it is missing or damaged.
    """
    path = Path(run_dir)
    path = path if path.name == RECORD_FILE else path / RECORD_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path}: expected the record of a finished run, found no file; run the recipe") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: expected JSON, got: {error}; run the recipe again to write it anew") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected a JSON object, got {type(content).__name__}; run the recipe again")
    return path, content


def write_content(record: RecordHeading, kind: str, run_dir: Path) -> Path:
    """Write a record into a run's folder, as run.json.

    Args:
        record: a dataclass of JSON values.
        kind: what its class is called there.
        run_dir: the run's folder.

    Raises:
        FileError: where it cannot be written.
    """
    path = run_dir / RECORD_FILE
    content = {"schema": SCHEMA, "kind": kind, **asdict(record)}
    atomic_write(path, json.dumps(content, indent=1, ensure_ascii=False, default=str) + "\n")
    return path


def checked_fields(
    record: type[RecordHeading], content: Mapping[str, Any], kind: str, source: str, more: Mapping[str, Any]
) -> dict[str, Any]:
    """The fields of a record from what run.json holds.

    Args:
        record: its class.
        content: what run.json holds.
        kind: that it must be of.
        source: where it is from, for errors.
        more: types of the fields that the class adds.

    Raises:
        DataError: where a field is missing, unknown or of another type.
    """
    known = {item.name for item in fields(record)}
    found = set(content) - {"schema", "kind"}
    if content.get("kind") != kind or content.get("schema") != SCHEMA or found != known:
        raise DataError(
            f"{source}: expected a record of kind {kind}, schema {SCHEMA}; missing fields {sorted(known - found)}, "
            f"unknown fields {sorted(found - known)}; run the recipe again"
        )
    check_kinds(content, source, more)
    return {name: content[name] for name in known}


def check_kinds(
    values: Mapping[str, Any], source: str, more: Mapping[str, type | tuple[type, ...]] | None = None
) -> None:
    """Refuse fields of other types than the record's.

    Args:
        values: fields by name; the heading's that are there are checked.
        source: where they are from, for errors.
        more: types of the fields that the record adds.

    Raises:
        DataError: names the first one.
    """
    for name, kind in (_KINDS | dict(more or {})).items():
        if name in values and not isinstance(values[name], kind):
            raise DataError(f"{source}: {name}: got {type(values[name]).__name__}: {str(values[name])[:60]!r}")
    for stage, rows in values.get("history", {}).items():
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise DataError(f"{source}: history of stage {stage!r}: expected a list of rows")
