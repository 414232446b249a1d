"""The page of a mapped network: price by layer, tiles with their wires, accuracy against variation; one HTML file."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from spokeshave.files import atomic_write
from spokeshave.ledger import describe_machine, describe_versions
from spokeshave.report import wording
from spokeshave.report.charts import Axis, Line, Mark, scatter_chart
from spokeshave.report.crossbar_pictures import tiles_figure
from spokeshave.report.figures import Figure, LegendEntry
from spokeshave.report.page import flat_config, page_template
from spokeshave.targets.crossbar.layer_product import matrices_of
from spokeshave.targets.crossbar.mapped_network import MappedLayer, MappedNetwork
from spokeshave.targets.crossbar.wires_and_area import LayerCrossbars

_MOST_PICTURES = 12


@dataclass(frozen=True)
class VariationPoint:
    """Accuracy at one relative sigma of programming.

    Attributes:
        variation: the sigma.
        errors: share of images that were wrong, 0..1, one for each draw of all devices.
    """

    variation: float
    errors: tuple[float, ...]

    @property
    def mean_error(self) -> float:
        """Mean over the draws."""
        return mean(self.errors)

    @property
    def error_spread(self) -> float:
        """Standard deviation over the draws; 0 for one."""
        return stdev(self.errors) if len(self.errors) > 1 else 0.0


@dataclass(frozen=True)
class CrossbarRun:
    """What the page shows.

    Attributes:
        model: its name.
        mapped: the network on crossbars.
        config: settings by name.
        command: that repeats the run.
        data: name of the data set, or None.
        digital_error: of the network that was mapped, 0..1, on `images` test images; None without data.
        images: how many.
        points: accuracy by variation, none without data.
    """

    model: str
    mapped: MappedNetwork
    config: dict[str, Any]
    command: str
    data: str | None = None
    digital_error: float | None = None
    images: int = 0
    points: tuple[VariationPoint, ...] = ()
    versions: dict[str, str] = field(default_factory=describe_versions)
    machine: dict[str, Any] = field(default_factory=describe_machine)


def write_crossbar_page(run: CrossbarRun, path: Path) -> None:
    """Write the page.

    Args:
        run: of a mapped network.
        path: the HTML file to write.

    Raises:
        FileError: where it cannot be written.
    """
    atomic_write(path, render_crossbar_page(run))


def draw_crossbars(mapped: MappedNetwork, path: Path | str, name: str = "network") -> None:
    """Draw a mapped network: a page with its price and every tile, deleted rows and columns, the wires that are left.

    Args:
        mapped: from `Crossbar.map`.
        path: the HTML file to write; it needs no other file.
        name: of the network, for the title.

    Raises:
        FileError: where it cannot be written.
    """
    write_crossbar_page(CrossbarRun(name, mapped, {}, f"draw_crossbars(mapped, ..., name={name!r})"), Path(path))


def render_crossbar_page(run: CrossbarRun) -> str:
    """Give the page as HTML text.

    Args:
        run: of a mapped network.
    """
    cost = run.mapped.cost()
    mapped = {layer.name: layer for layer in run.mapped.report.layers}
    return page_template("crossbar_page.html.j2").render(
        run=run,
        cost=cost,
        title=f"{run.model} on crossbars",
        trail=("map-crossbar", run.model),
        verdict=_verdict(run),
        tiles=_tiles(run),
        rows=_rows(cost.layers, mapped),
        digital=run.mapped.report.digital,
        points=_by_variation(run),
        variation=variation_figure(run) if run.points else None,
        pictures=_pictures(run.mapped),
        left_out=max(0, len(mapped) - _MOST_PICTURES),
        command=run.command,
        machine=run.machine,
        versions=run.versions,
        config=flat_config(run.config),
        words=wording,
    )


def variation_figure(run: CrossbarRun) -> Figure:
    """Draw the test error of every draw against the variation of the devices, with the mean.

    Args:
        run: with points.
    """
    points = _by_variation(run)
    marks = [
        Mark("", point.variation, error, "sweep", hint=f"variation {point.variation:g}: {wording.percent(error)} wrong")
        for point in points
        for error in point.errors
    ]
    xs = [point.variation for point in points]
    lines = [Line("mean", xs, [point.mean_error for point in points])]
    legend = [LegendEntry("one draw of all devices", mark="sweep"), LegendEntry("mean", 0.0)]
    if run.digital_error is not None:
        lines.append(Line("digital", [xs[0], xs[-1]], [run.digital_error] * 2, 1.0, dashed=True))
        legend.append(LegendEntry("digital network", 1.0, dashed=True))
    title = "Test error against variation"
    axes = Axis("relative sigma of a programmed conductance"), Axis("test error", percent=True, include=(0.0,))
    return Figure(title, scatter_chart(title, marks, *axes, lines=lines), tuple(legend))


def _by_variation(run: CrossbarRun) -> list[VariationPoint]:
    return sorted(run.points, key=lambda point: point.variation)


def _pictures(mapped: MappedNetwork) -> list[Figure]:
    figures = []
    for name, layer in list(mapped.layers.items())[:_MOST_PICTURES]:
        matrix = matrices_of(layer.product, layer.weight.detach())[0].float().cpu()
        used = layer.grid.join(layer.used.float())[0].cpu() != 0
        figures.append(tiles_figure(name or "the model", matrix * used, layer.grid, used))
    return figures


def _rows(layers: Sequence[LayerCrossbars], mapped: dict[str, MappedLayer]) -> list[dict[str, Any]]:
    most_cells = max(layer.area_cells for layer in layers)
    most_wires = max((layer.wires for layer in layers), default=0) or 1
    return [
        {
            "layer": layer,
            "mapped": mapped[layer.name],
            "cells_share": layer.area_cells / most_cells,
            "wires_share": layer.wires / most_wires,
        }
        for layer in layers
    ]


def _verdict(run: CrossbarRun) -> str:
    cost, report = run.mapped.cost(), run.mapped.report
    device = next(iter(run.mapped.layers.values())).device
    kind = {None: "memristors of any conductance", 1: "memristors of two states"}.get(
        device.levels, f"memristors of {device.levels} levels above off"
    )
    layers = "1 layer is" if len(report.layers) == 1 else f"{len(report.layers)} layers are"
    text = (
        f"{layers} held by {report.crossbars:,} crossbars of at most {run.mapped.size[0]} × "
        f"{run.mapped.size[1]} {kind}, two for each of {report.crossbars // 2:,} tiles: one for each sign. "
        f"Between them run {cost.wires:,} wires."
    )
    if run.points and run.digital_error is not None:
        worst = max(run.points, key=lambda point: (point.mean_error, point.variation))
        text += (
            f" The digital network is wrong on {wording.percent(run.digital_error)} of {run.images:,} test images, "
            f"the crossbars on {wording.percent(worst.mean_error)} ± {100 * worst.error_spread:.2f} where "
            f"conductances vary by {wording.percent(worst.variation, 0)}."
        )
    return text


def _tiles(run: CrossbarRun) -> list[dict[str, Any]]:
    cost, report = run.mapped.cost(), run.mapped.report
    full = cost.area_cells / max(1, _all_cells(report.layers))
    tiles: list[dict[str, Any]] = [
        {
            "label": "Crossbars",
            "value": f"{report.crossbars:,}",
            "detail": f"{cost.crossbars:,} tiles have a weight; each takes two",
            "share": None,
        },
        {
            "label": "Cells",
            "value": f"{cost.area_cells:,}",
            "detail": f"{wording.percent(full, 0)} of the cells of all tiles",
            "share": full,
        },
        {
            "label": "Wires",
            "value": f"{cost.wires:,}",
            "detail": f"{wording.percent(cost.wires_share, 1)} of those of full tiles",
            "share": cost.wires_share,
        },
    ]
    if run.points:
        best = _by_variation(run)[0]
        tiles.append(
            {
                "label": f"Test error, variation {best.variation:g}",
                "value": wording.percent(best.mean_error),
                "detail": f"{wording.percent(run.digital_error or 0.0)} digital",
                "share": None,
            }
        )
    return tiles


def _all_cells(layers: Sequence[MappedLayer]) -> int:
    return sum(layer.crossbars // 2 * layer.tile_inputs * layer.tile_outputs for layer in layers)
