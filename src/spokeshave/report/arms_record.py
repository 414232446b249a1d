"""The record of a run that compares arms: ways to treat the same network, each from the same start, seed by seed.

run.json, checked when it is read. Errors and whatever is called `..._share` are 0..1. The first arm is the reference.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from spokeshave.errors import DataError
from spokeshave.report.heat_table import HeatTable, heat_table_from
from spokeshave.report.image_gallery import Gallery, gallery_from
from spokeshave.report.record_heading import RecordHeading, checked_fields, read_content, write_content

KIND = "arms"


@dataclass(frozen=True)
class Arm:
    """One way to treat the network.

    Attributes:
        name: short, for options and the ledger.
        label: what was done, in words.
        errors: on the test split, one a seed.
        validation_errors: on the validation split, one a seed.
        numbers: what else was measured, one mapping a seed; the names are explained by `ArmsRecord.quantities`.
    """

    name: str
    label: str
    errors: list[float]
    validation_errors: list[float]
    numbers: list[dict[str, float]] = field(default_factory=list)

    @property
    def error(self) -> float:
        """Mean test error."""
        return mean(self.errors)

    def number(self, quantity: str) -> float | None:
        """Mean over the seeds of one of the numbers; None where it was not measured."""
        found = [numbers[quantity] for numbers in self.numbers if quantity in numbers]
        return mean(found) if found else None

    def gaps(self, reference: "Arm") -> list[float]:
        """Test error above the reference's, one a seed."""
        return [mine - theirs for mine, theirs in zip(self.errors, reference.errors, strict=True)]


@dataclass(frozen=True)
class Curve:
    """One line of a chart; a y of None leaves a gap.

    Attributes:
        label: its name.
        xs: from left to right.
        ys: as many.
        dashed: drawn so.
        points: drawn as points that no line joins.
        group: lines of one group have one colour; None for a colour of its own.
    """

    label: str
    xs: list[float]
    ys: list[float | None]
    dashed: bool = False
    points: bool = False
    group: int | None = None


@dataclass(frozen=True)
class Chart:
    """A figure of the page, such as a histogram or ranks over the steps.

    Attributes:
        title: its heading.
        x: what the horizontal axis shows.
        y: what the vertical axis shows.
        curves: the lines.
        percent: y is a share, 0..1.
        log: y is drawn on a logarithmic scale; values of 0 are left out.
    """

    title: str
    x: str
    y: str
    curves: list[Curve]
    percent: bool = False
    log: bool = False


@dataclass(frozen=True, kw_only=True)
class ArmsRecord(RecordHeading):
    """One finished run. The published row may have "accuracy" (percent) and "gap" (points) by the name of an arm.

    Args:
        arms: the reference first.
        headline: name of the arm that the run is about.
        quantities: name of a number -> its heading; in the order of the table's columns.
        layers: title of a table -> its rows, one a layer: name of a number -> number or text.
        charts: further figures.
        tables: shares that are shown as heat maps.
        galleries: of small images.
    """

    arms: list[Arm]
    headline: str
    quantities: dict[str, str] = field(default_factory=dict)
    layers: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    charts: list[Chart] = field(default_factory=list)
    tables: list[HeatTable] = field(default_factory=list)
    galleries: list[Gallery] = field(default_factory=list)

    @property
    def reference(self) -> Arm:
        """The arm that the others are compared with."""
        return self.arms[0]

    @property
    def main(self) -> Arm:
        """The arm that the run is about."""
        return next(arm for arm in self.arms if arm.name == self.headline)

    def published(self, arm: Arm, what: str) -> float | None:
        """The published "accuracy" (percent) or "gap" (points) of an arm; None where there is none."""
        return ((self.paper or {}).get(what) or {}).get(arm.name)

    def save(self, run_dir: Path) -> Path:
        """Write run.json into the run's folder.

        Raises:
            FileError: where it cannot be written.
        """
        return write_content(self, KIND, run_dir)

    @classmethod
    def load(cls, path: Path) -> "ArmsRecord":
        """Read and check a run.json.

        Raises:
            DataError: where it is missing or damaged.
        """
        path, content = read_content(path)
        return cls.from_dict(content, str(path))

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], source: str = "run record") -> "ArmsRecord":
        """Build a record from what run.json holds.

        Args:
            content: the fields.
            source: where they are from, for errors.

        Raises:
            DataError: where a field is missing, unknown or out of its range.
        """
        # Records that were written before there were any have neither.
        content = {"tables": [], "galleries": [], **content}
        made = checked_fields(cls, content, KIND, source, _KINDS)
        try:
            made["arms"] = [Arm(**arm) for arm in content["arms"]]
            made["charts"] = [
                Chart(**{**chart, "curves": [Curve(**curve) for curve in chart["curves"]]})
                for chart in content["charts"]
            ]
        except (TypeError, KeyError) as error:
            raise DataError(f"{source}: arms or charts: {error}; run the recipe again") from error
        made["tables"] = [heat_table_from(table, source) for table in content["tables"]]
        made["galleries"] = [gallery_from(one, source) for one in content["galleries"]]
        _check_arms(made["arms"], len(content["seeds"]), source)
        if content["headline"] not in {arm.name for arm in made["arms"]}:
            raise DataError(f"{source}: headline: no arm is called {content['headline']!r}")
        return cls(**made)


_KINDS = {
    "arms": list,
    "headline": str,
    "quantities": dict,
    "layers": dict,
    "charts": list,
    "tables": list,
    "galleries": list,
}


def _check_arms(arms: Sequence[Arm], seeds: int, source: str) -> None:
    if not arms:
        raise DataError(f"{source}: arms: expected at least one, got none")
    for arm in arms:
        for what, values in (("errors", arm.errors), ("validation_errors", arm.validation_errors)):
            if not isinstance(values, list) or len(values) != seeds or not all(_is_share(value) for value in values):
                raise DataError(
                    f"{source}: arm {arm.name}: {what}: expected one error in 0..1 (not percent) a seed, got {values!r}"
                )
        if not isinstance(arm.numbers, list) or len(arm.numbers) not in (0, seeds):
            raise DataError(f"{source}: arm {arm.name}: numbers: expected one mapping a seed, got {arm.numbers!r}")


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value <= 1


def spread(values: Sequence[float]) -> float | None:
    """Standard deviation; None for a single value."""
    return stdev(values) if len(values) > 1 else None


def number_words(name: str, value: object) -> str:
    """Write a number of an arm or a layer: a `..._share` in percent, counts with thousands, others with four digits.

    Args:
        name: of the number.
        value: the number, a text, or None for what does not exist.

    Example:
        >>> number_words("zero_share", 0.25), number_words("wires", 12345), number_words("g", 0.0123456)
        ('25.0 %', '12,345', '0.01235')
    """
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if name.endswith("_share"):
        return f"{100 * value:.1f} %"
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.4g}"
