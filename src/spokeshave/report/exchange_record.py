"""The record of a run that compares exact and exchanged gradients at equal budget: run.json, checked when it is read.

Errors and shares are 0..1, bytes are those that one worker sends in one step.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from spokeshave.errors import DataError
from spokeshave.files import atomic_write
from spokeshave.report.run_record import RECORD_FILE

KIND = "exchange"
SCHEMA = 1


@dataclass(frozen=True)
class ExchangeRecord:
    """One finished run.

    Args:
        recipe: name of the recipe.
        row: of the recipe.
        title: heading of the page.
        config: settings by name.
        seeds: of the pairs of networks.
        versions: package -> version.
        machine: what `ledger.describe_machine` gave.
        commit: of the code, None outside a repository.
        wall_s: seconds that the trainings took.
        float_errors: test errors of the float networks, one a seed.
        errors: test errors of the networks whose gradients were exchanged, one a seed.
        float_validation_errors: the same on the validation split.
        validation_errors: the same on the validation split.
        zero_codes: parameter -> share of its codes that were zero, over seeds and epochs.
        float_bytes: that a worker sends in a step without compression.
        sent_bytes: that it sends with it.
        history: "float" and "ternary" -> rows of the first seed (`History.rows`).
        paper: the published row, "gap" in percentage points among it.
        command: that repeats the run.
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
    float_errors: list[float]
    errors: list[float]
    float_validation_errors: list[float]
    validation_errors: list[float]
    zero_codes: dict[str, float]
    float_bytes: int
    sent_bytes: int
    history: dict[str, list[dict[str, Any]]]
    paper: dict[str, Any] | None = None
    command: str | None = None
    data: str | None = None

    @property
    def gaps(self) -> list[float]:
        """Test error above the float network's, one a seed."""
        return [theirs - exact for exact, theirs in zip(self.float_errors, self.errors, strict=True)]

    @property
    def factor(self) -> float:
        """How many times fewer bytes are sent."""
        return self.float_bytes / self.sent_bytes if self.sent_bytes else 1.0

    def save(self, run_dir: Path) -> Path:
        """Write run.json into the run's folder.

        Raises:
            FileError: where it cannot be written.
        """
        path = run_dir / RECORD_FILE
        content = {"schema": SCHEMA, "kind": KIND, **asdict(self)}
        atomic_write(path, json.dumps(content, indent=1, ensure_ascii=False, default=str) + "\n")
        return path

    @classmethod
    def load(cls, path: Path) -> "ExchangeRecord":
        """Read and check a run.json.

        Raises:
            DataError: where it is missing or damaged.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: expected the record of a run as JSON, got: {error}; run the recipe") from error
        if not isinstance(content, dict):
            raise DataError(f"{path}: expected a JSON object, got {type(content).__name__}; run the recipe again")
        return cls.from_dict(content, str(path))

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], source: str = "run record") -> "ExchangeRecord":
        """Build a record from what run.json holds.

        Args:
            content: the fields.
            source: where they are from, for errors.

        Raises:
            DataError: where a field is missing, unknown or out of its range.
        """
        known = {item.name for item in fields(cls)}
        found = set(content) - {"schema", "kind"}
        if content.get("kind") != KIND or content.get("schema") != SCHEMA or found != known:
            raise DataError(
                f"{source}: expected the record of an exchange, schema {SCHEMA}; missing fields "
                f"{sorted(known - found)}, unknown fields {sorted(found - known)}; run the recipe again"
            )
        record = cls(**{name: content[name] for name in known})
        lists = (record.float_errors, record.errors, record.float_validation_errors, record.validation_errors)
        for values in lists:
            if len(values) != len(record.seeds) or not all(0 <= value <= 1 for value in values):
                raise DataError(f"{source}: expected one error in 0..1 (not percent) a seed, got {values!r}")
        return record


def with_spread(values: Sequence[float], points: bool = False) -> str:
    """Write a mean of shares in percent, with the standard deviation where there are several.

    Args:
        values: shares, at least one.
        points: as signed percentage points.

    Example:
        >>> with_spread([0.01, 0.03]), with_spread([0.002], points=True)
        ('2.00 ± 1.41 %', '+0.20 points')
    """
    sign, unit = ("+", "points") if points else ("", "%")
    spread = f" ± {100 * stdev(values):.2f}" if len(values) > 1 else ""
    return f"{100 * mean(values):{sign}.2f}{spread} {unit}".replace("-", "−")


def read_kind(path: Path) -> str | None:
    """Kind of a run.json; None where it says none or cannot be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content.get("kind") if isinstance(content, dict) else None
