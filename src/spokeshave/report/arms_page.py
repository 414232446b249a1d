"""The page of a run that compares arms: errors as table and figure, layers, further charts, curves of training."""

from pathlib import Path
from typing import Any

from spokeshave.files import atomic_write
from spokeshave.report import wording
from spokeshave.report.arms_record import Arm, ArmsRecord, Chart, Curve, number_words
from spokeshave.report.charts import Axis, Line, line_chart
from spokeshave.report.dot_chart import Dots, dot_chart
from spokeshave.report.exchange_record import with_spread
from spokeshave.report.figures import Figure, LegendEntry
from spokeshave.report.heat_table import heat_table_figure
from spokeshave.report.image_gallery import gallery_figure
from spokeshave.report.page import flat_config, page_template


def write_arms_page(record: ArmsRecord, path: Path) -> None:
    """Write a run's page.

    Args:
        record: of the run.
        path: the HTML file to write.

    Raises:
        FileError: where it cannot be written.
    """
    atomic_write(path, render_arms_page(record))


def render_arms_page(record: ArmsRecord) -> str:
    """Give a run's page as HTML text.

    Args:
        record: of the run.

    Returns:
        The whole document.
    """
    names = list(dict.fromkeys(name for rows in record.layers.values() for row in rows for name in row))
    return page_template("arms_page.html.j2").render(
        run=record,
        title=record.title,
        trail=(record.recipe, record.row),
        verdict=_verdict(record),
        tiles=_tiles(record),
        rows=[arm_cells(record, arm) for arm in record.arms],
        headings=arm_headings(record),
        arms=_arms_figure(record),
        by_layer="layer" in names,
        layer_headings={name: record.quantities.get(name, name.replace("_", " ")) for name in names},
        number=number_words,
        charts=[_figure(chart) for chart in record.charts],
        tables=[heat_table_figure(table) for table in record.tables],
        galleries=[gallery_figure(one) for one in record.galleries],
        curves=_curves(record),
        command=record.command or f"spokeshave run {record.recipe} --row {record.row}",
        machine=record.machine,
        versions=record.versions,
        config=flat_config(record.config),
        words=wording,
    )


def shown_quantities(record: ArmsRecord) -> list[str]:
    """Names of the numbers that at least one arm has, in the record's order."""
    return [name for name in record.quantities if any(arm.number(name) is not None for arm in record.arms)]


def arm_headings(record: ArmsRecord) -> list[str]:
    """Headings of the table of arms; see `arm_cells`. Those of the further numbers come last."""
    published = ["published: error"] if (record.paper or {}).get("accuracy") else []
    published += ["published: gap"] if (record.paper or {}).get("gap") else []
    quantities = [record.quantities[name] for name in shown_quantities(record)]
    return ["arm", "validation error", "test error", f"above {record.reference.name}", *published, *quantities]


def arm_cells(record: ArmsRecord, arm: Arm) -> list[str]:
    """One row of the table of arms, as text.

    Args:
        record: of the run.
        arm: one of its arms.
    """
    gap = "" if arm is record.reference else with_spread(arm.gaps(record.reference), points=True)
    cells = [arm.label, with_spread(arm.validation_errors), with_spread(arm.errors), gap]
    if (record.paper or {}).get("accuracy"):
        accuracy = record.published(arm, "accuracy")
        cells.append("" if accuracy is None else f"{100 - accuracy:.2f} %")
    if (record.paper or {}).get("gap"):
        published = record.published(arm, "gap")
        cells.append("" if published is None else f"{published:+.2f} points".replace("-", "−"))
    return cells + [number_words(name, arm.number(name)) for name in shown_quantities(record)]


def _verdict(record: ArmsRecord) -> str:
    main, reference = record.main, record.reference
    start = f"On {record.data}, test" if record.data else "Test"
    sentence = f"{start} error is {with_spread(reference.errors)} for {reference.label}"
    if main is reference:
        return sentence + "."
    gap = with_spread(main.gaps(reference), points=True)
    return f"{sentence} and {with_spread(main.errors)} for {main.label} ({gap})."


def _tiles(record: ArmsRecord) -> list[dict[str, Any]]:
    main, reference = record.main, record.reference
    runs = f"mean of {len(record.seeds)} seeds" if len(record.seeds) > 1 else "one seed"
    tiles: list[dict[str, Any]] = [
        {"label": "Test error", "value": with_spread(main.errors), "detail": f"{main.label}; {runs}", "share": None}
    ]
    if main is not reference:
        published = record.published(main, "gap")
        detail = f"{reference.label}: {with_spread(reference.errors)}"
        detail += "" if published is None else f"; published gap {published:+.2f}".replace("-", "−")
        value = with_spread(main.gaps(reference), points=True)
        tiles.append({"label": f"Above {reference.name}", "value": value, "detail": detail, "share": None})
    for name in shown_quantities(record):
        mean = main.number(name)
        if mean is not None and len(tiles) < 4:
            share = mean if name.endswith("_share") and 0 <= mean <= 1 else None
            tile = {"label": record.quantities[name], "value": number_words(name, mean), "detail": main.label}
            tiles.append(tile | {"share": share})
    return tiles


def _arms_figure(record: ArmsRecord) -> Figure:
    rows = [Dots(arm.name, arm.errors, arm.name == record.headline) for arm in record.arms]
    return Figure("Test error of the arms", dot_chart("Test error of the arms", rows, "test error"))


def _figure(chart: Chart) -> Figure:
    groups = list(dict.fromkeys(_group(curve) for curve in chart.curves))
    last = max(1, len(groups) - 1)
    lines = [_line(curve, groups.index(_group(curve)) / last) for curve in chart.curves]
    words = f"{chart.y} (logarithmic)" if chart.log else chart.y
    drawing = line_chart(chart.title, lines, Axis(chart.x), Axis(words, percent=chart.percent, log=chart.log))
    looks = ["points" if curve.points else "" for curve in chart.curves]
    legend = [LegendEntry(line.label, line.tone, line.dashed, look) for line, look in zip(lines, looks, strict=True)]
    return Figure(chart.title, drawing, tuple(legend))


def _group(curve: Curve) -> int | str:
    return curve.label if curve.group is None else curve.group


def _line(curve: Curve, tone: float) -> Line:
    xs, ys = curve.xs, curve.ys
    if curve.points:  # a gap after each point leaves a point alone
        xs, ys = [x for one in xs for x in (one, one)], [y for one in ys for y in (one, None)]
    return Line(curve.label, xs, ys, tone, curve.dashed)


def _curves(record: ArmsRecord) -> list[Figure]:
    """Validation accuracy and training loss of every stage of the first seed."""
    stages = {name: rows for name, rows in record.history.items() if rows}
    last = max(1, len(stages) - 1)
    figures = []
    # An objective that rewards something, such as even answers, goes below 0.
    positive = all(row.get("train_loss") is None or row["train_loss"] > 0 for rows in stages.values() for row in rows)
    loss = Axis("loss (logarithmic)", log=True) if positive else Axis("loss")
    for key, title, axis in (
        ("validation_accuracy", "Validation accuracy", Axis("accuracy", percent=True)),
        ("train_loss", "Training loss", loss),
    ):
        lines = [
            Line(name, [row["step"] for row in rows], [row.get(key) for row in rows], index / last, index == 0)
            for index, (name, rows) in enumerate(stages.items())
        ]
        if lines:
            legend = tuple(LegendEntry(line.label, line.tone, line.dashed) for line in lines)
            figures.append(Figure(title, line_chart(title, lines, Axis("step of the stage"), axis), legend))
    return figures
