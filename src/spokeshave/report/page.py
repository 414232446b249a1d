"""The page of a run: one HTML file with its styles, figures and pictures inside; it loads nothing and runs nothing."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from spokeshave.files import atomic_write
from spokeshave.report import wording
from spokeshave.report.figures import front_figure, training_figures
from spokeshave.report.layer_rows import Pair, layer_rows, total_row
from spokeshave.report.published import published_rows
from spokeshave.report.run_record import RunRecord
from spokeshave.report.weight_pictures import draw_weights

PAGE_FILE = "report.html"


def write_page(record: RunRecord, path: Path | str) -> Path:
    """Write a run's page.

    Args:
        record: the run.
        path: the HTML file to write, or a folder, which gets a report.html.

    Returns:
        The path of the page.

    Raises:
        FileError: where it cannot be written.
    """
    path = Path(path)
    path = path / PAGE_FILE if path.is_dir() else path
    atomic_write(path, render_page(record))
    return path


def render_page(record: RunRecord) -> str:
    """Give a run's page as HTML text.

    Args:
        record: the run.

    Returns:
        The whole document.
    """
    rows = layer_rows(record)
    return page_template("page.html.j2").render(
        run=record,
        title=record.title,
        trail=(record.recipe, record.row),
        verdict=wording.verdict(record),
        tiles=_tiles(record),
        front=front_figure(record),
        published=published_rows(record),
        rows=rows,
        total=total_row(rows),
        pictures=[draw_weights(name, matrix) for name, matrix in record.weights.items()],
        figures=training_figures(record),
        shrink={"removed_branches": (), "notes": (), **record.shrink} if record.shrink else {},
        command=record.command or f"spokeshave run {record.recipe} --row {record.row}",
        machine=record.machine,
        versions=record.versions,
        config=flat_config(record.config),
        words=wording,
    )


def _tiles(record: RunRecord) -> list[dict[str, Any]]:
    """Give the headline numbers: what, how much, from what to what, and the share that is left."""
    before, after = record.baseline, record.final
    old, new = before.measurement, after.measurement
    spread = f" ± {after.error_spread * 100:.2f}" if after.error_spread is not None else ""
    runs = f"mean of {len(record.seeds)} runs{spread}" if len(record.seeds) > 1 else "one run"
    tiles: list[dict[str, Any]] = [
        {
            "label": "Test error",
            "value": wording.percent(after.error),
            "detail": f"{wording.percent(before.error)} before; {runs}",
            "share": None,
        }
    ]
    for label, unit, what in (
        ("FLOPs per image", "", "flops"),
        ("Parameters", "", "parameters"),
        ("Memory", "B", "bytes"),
    ):
        pair = Pair(getattr(old, what), getattr(new, what))
        tiles.append(
            {
                "label": label,
                "value": wording.times_fewer(pair.before, pair.after).replace(" fewer", " less" if unit else " fewer"),
                "detail": f"{wording.count(pair.before, unit)} → {wording.count(pair.after, unit)}",
                "share": pair.after / pair.before if pair.before else None,
            }
        )
    timing = wording.headline_timing(record)
    if timing is not None:
        detail = f"{wording.seconds(timing.before_s)} → {wording.seconds(timing.after_s)}, {wording.condition(timing)}"
        share = timing.after_s / timing.before_s
        tiles.append(
            {"label": "Measured", "value": wording.times_faster(timing.ratio), "detail": detail, "share": share}
        )
    return tiles


def flat_config(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Give nested settings as dotted names and texts.

    Args:
        config: settings.
        prefix: of the names.
    """
    pairs: list[tuple[str, str]] = []
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            pairs += flat_config(value, f"{prefix}{key}.")
        else:
            pairs.append((f"{prefix}{key}", ", ".join(map(str, value)) if isinstance(value, list) else str(value)))
    return pairs


@cache
def page_template(name: str) -> Template:
    """Load a template of this folder.

    Args:
        name: of its file.
    """
    environment = Environment(
        loader=PackageLoader("spokeshave.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)
