"""The record of a run that compares exact and exchanged gradients at equal budget: run.json, checked when it is read.

Errors and shares are 0..1, bytes are those that one worker sends in one step.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from spokeshave.errors import DataError
from spokeshave.report.record_heading import RecordHeading, checked_fields, read_content, write_content

KIND = "exchange"


@dataclass(frozen=True, kw_only=True)
class ExchangeRecord(RecordHeading):
    """One finished run: the history has the stages "float" and "ternary"; the published row has a "gap" in points.

    Args:
        float_errors: test errors of the float networks, one a seed.
        errors: test errors of the networks whose gradients were exchanged, one a seed.
        float_validation_errors: the same on the validation split.
        validation_errors: the same on the validation split.
        zero_codes: parameter -> share of its codes that were zero, over seeds and epochs.
        float_bytes: that a worker sends in a step without compression.
        sent_bytes: that it sends with it.
    """

    float_errors: list[float]
    errors: list[float]
    float_validation_errors: list[float]
    validation_errors: list[float]
    zero_codes: dict[str, float]
    float_bytes: int
    sent_bytes: int

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
        return write_content(self, KIND, run_dir)

    @classmethod
    def load(cls, path: Path) -> "ExchangeRecord":
        """Read and check a run.json.

        Raises:
            DataError: where it is missing or damaged.
        """
        path, content = read_content(path)
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
        made = checked_fields(cls, content, KIND, source, _KINDS)
        for name in _ERRORS:
            values = content[name]
            if len(values) != len(content["seeds"]) or not all(_is_share(value) for value in values):
                raise DataError(f"{source}: {name}: expected one error in 0..1 (not percent) a seed, got {values!r}")
        if not all(_is_share(share) for share in content["zero_codes"].values()):
            raise DataError(f"{source}: zero_codes: expected shares in 0..1, got {content['zero_codes']!r}")
        return cls(**made)


_ERRORS = ("float_errors", "errors", "float_validation_errors", "validation_errors")
_KINDS = {**dict.fromkeys(_ERRORS, list), "zero_codes": dict, "float_bytes": int, "sent_bytes": int}


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value <= 1


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
