"""The record of a run: run.json and weights.safetensors in the run's folder, checked when they are read.

`RunRecord` is what a recipe writes at its end and what the page is made from. Errors and accuracies are shares (0..1),
times seconds, FLOPs per image.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from spokeshave.errors import DataError, SpokeshaveError
from spokeshave.files import atomic_write
from spokeshave.measure import Comparison, Measurement
from spokeshave.report.record_heading import RECORD_FILE, SCHEMA, RecordHeading, check_kinds, read_content

WEIGHTS_FILE = "weights.safetensors"


@dataclass(frozen=True)
class Outcome:
    """A network's test accuracy and error (shares, 0..1; means over the seeds) and its cost."""

    accuracy: float
    error: float
    measurement: Measurement
    error_spread: float | None = None


@dataclass(frozen=True, kw_only=True)
class RunRecord(RecordHeading):
    """One finished run.

    In `paper` a quantity may also be {"published", "ours"}; "label" names the row, and numbers "error" (share) and
    "flops" (share of the baseline's) put it into the figure.

    Args:
        baseline: the network before.
        final: the network after.
        comparison: both timed side by side.
        shrink: `ShrinkReport.to_dict()`: layers, removed_branches, notes, max_relative_error.
        points: other networks of the run: label, error, flops, and if known parameters, strength, stage.
        weights: layer -> lowered weight matrix (rows x columns) with its zero rows and columns, before shrinking.
    """

    history: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    baseline: Outcome
    final: Outcome
    comparison: Comparison | None = None
    shrink: dict[str, Any] | None = None
    points: list[dict[str, Any]] = field(default_factory=list)
    weights: dict[str, Tensor] = field(default_factory=dict, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Give the record, without the weights, as JSON can hold it."""
        record: dict[str, Any] = {"schema": SCHEMA}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, Outcome):
                value = asdict(value) | {"measurement": value.measurement.to_dict()}
            elif isinstance(value, Comparison):
                value = value.to_dict()
            record[item.name] = sorted(value) if item.name == "weights" else value
        return record

    def save(self, run_dir: Path | str) -> Path:
        """Write run.json, and weights.safetensors where there are weights.

        Args:
            run_dir: the run's folder; made where it is missing.

        Returns:
            The path of run.json.

        Raises:
            FileError: where a file cannot be written.
        """
        run_dir = Path(run_dir)
        if self.weights:
            matrices = {name: matrix.detach().cpu().clone().contiguous() for name, matrix in self.weights.items()}
            atomic_write(run_dir / WEIGHTS_FILE, save(matrices))
        path = run_dir / RECORD_FILE
        atomic_write(path, json.dumps(_finite(self.to_dict()), indent=1, ensure_ascii=False, default=str) + "\n")
        return path

    @classmethod
    def load(cls, run_dir: Path | str) -> "RunRecord":
        """Read and check the record of a run.

        Args:
            run_dir: the run's folder, or its run.json.

        Returns:
            The record, its weights included.

        Raises:
            DataError: where a file is missing or damaged, or a field is missing, unknown or out of its range.
        """
        path, content = read_content(run_dir)
        named = content.get("weights") or []
        weights = _load_weights(path.with_name(WEIGHTS_FILE), list(named)) if named else {}
        return cls.from_dict(content, weights, source=str(path))

    @classmethod
    def from_dict(
        cls, content: Mapping[str, Any], weights: Mapping[str, Tensor] | None = None, source: str = "run record"
    ) -> "RunRecord":
        """Build a record from what run.json holds.

        Args:
            content: the fields.
            weights: the lowered matrices.
            source: where the fields are from, for errors.

        Returns:
            The record.

        Raises:
            DataError: where a field is missing, unknown or out of its range.
        """
        schema = content.get("schema")
        if schema != SCHEMA:
            raise DataError(
                f"{source}: expected schema {SCHEMA}, got {schema!r}; read it with the version of spokeshave that "
                "wrote it, or run the recipe again"
            )
        known = {item.name for item in fields(cls)} - {"weights"}
        required = {"recipe", "row", "title", "config", "seeds", "versions", "machine", "wall_s", "baseline", "final"}
        missing, unknown = required - set(content), set(content) - known - {"schema", "weights"}
        if missing or unknown:
            raise DataError(f"{source}: missing fields {sorted(missing)}, unknown fields {sorted(unknown)}")
        values = {name: value for name, value in content.items() if name in known}
        values.setdefault("commit", None)
        try:
            values["baseline"] = _outcome(content["baseline"], f"{source}: baseline")
            values["final"] = _outcome(content["final"], f"{source}: final")
            if values.get("comparison") is not None:
                values["comparison"] = Comparison.from_dict(content["comparison"])
        except SpokeshaveError as error:
            raise error if isinstance(error, DataError) else DataError(f"{source}: {error}") from error
        check_kinds(values, source, {"shrink": (dict, type(None)), "points": list})
        if not all(isinstance(point, dict) for point in values.get("points", [])):
            raise DataError(f"{source}: points: expected a list of mappings")
        return cls(**values, weights=dict(weights or {}))


def _outcome(content: Any, source: str) -> Outcome:
    if not isinstance(content, Mapping):
        raise DataError(f"{source}: expected accuracy, error and measurement, got {type(content).__name__}")
    for name in ("accuracy", "error"):
        value = content.get(name)
        if not isinstance(value, int | float) or not 0 <= value <= 1:
            raise DataError(f"{source}: {name}: expected a share in 0..1 (not percent), got {value!r}")
    measurement = Measurement.from_dict(content.get("measurement") or {})
    spread = content.get("error_spread")
    return Outcome(float(content["accuracy"]), float(content["error"]), measurement, spread)


def _load_weights(path: Path, names: list[str]) -> dict[str, Tensor]:
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: expected the run's weight matrices, got: {error}; run the recipe again") from error
    missing = [name for name in names if name not in weights]
    if missing:
        raise DataError(f"{path}: lacks the layers {missing} that run.json names; run the recipe again")
    return {name: weights[name] for name in names}


def _finite(value: Any) -> Any:
    """Write NaN and infinite numbers as null: JSON has none."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
