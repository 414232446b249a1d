"""The page of a network on neurosynaptic cores: accuracy by copies and spikes, probabilities, cores, traffic, price."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spokeshave.files import atomic_write
from spokeshave.ledger import describe_machine, describe_versions
from spokeshave.report import wording
from spokeshave.report.connection_probabilities import LayerProbabilities, histogram_figure, probabilities_by_layer
from spokeshave.report.core_pictures import chip_figure, copy_figure
from spokeshave.report.core_traffic import CoreTraffic, count_traffic, mean_hops
from spokeshave.report.deployed_accuracy import CLOSE, DeployedAccuracy, Enough, accuracy_maps, counted
from spokeshave.report.page import flat_config, page_template
from spokeshave.targets.truenorth.deployed_network import DeployedNetwork, TrueNorth, TrueNorthCost
from spokeshave.targets.truenorth.tea_network import TeaNetwork

_MOST_IMAGES, _LEAST_IMAGES, _IMAGES_BY_CORES = 64, 4, 1 << 14


@dataclass(frozen=True)
class TrueNorthRun:
    """What the page shows; `before` is the same network trained without biasing.

    Attributes:
        model: its name.
        deployed: all copies on the chip.
        one: one copy by itself.
        traffic: of all copies.
        one_traffic: of one copy.
        layers: probabilities of connections by layer, those of all layers last.
        config: settings by name.
        command: that repeats the run.
        data: name of the data set, or None: traffic is then that of noise.
        images: test images that accuracies are of.
        accuracy: None without data.
        before_layers: likewise.
        before_accuracy: likewise.
        files: written beside the page: what they hold -> their name.
    """

    model: str
    deployed: DeployedNetwork
    one: DeployedNetwork
    traffic: CoreTraffic
    one_traffic: CoreTraffic
    layers: tuple[LayerProbabilities, ...]
    config: dict[str, Any]
    command: str
    data: str | None = None
    images: int = 0
    accuracy: DeployedAccuracy | None = None
    before_layers: tuple[LayerProbabilities, ...] = ()
    before_accuracy: DeployedAccuracy | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=describe_versions)
    machine: dict[str, Any] = field(default_factory=describe_machine)

    @classmethod
    def of(
        cls, model: str, network: TeaNetwork, chip: TrueNorth, shown: Tensor | None, config: dict[str, Any],
        command: str, deployed: DeployedNetwork | None = None, **more: Any,
    ) -> "TrueNorthRun":  # fmt: skip
        """Map a network and count its spikes.

        Args:
            model: its name.
            network: to map.
            chip: with the number of copies.
            shown: images, 0..1, the first of which are shown to count spikes; None for noise.
            config: settings by name.
            command: that repeats the run.
            deployed: what mapping gave, where that was done already.
            more: other attributes.

        Raises:
            InvalidArgument: images that do not fit the network, or copies that do not fit the chip.
        """
        deployed = deployed or chip.map(network)
        one = dataclasses.replace(chip, copies=1).map(network)
        if shown is None:
            shown = torch.rand(_MOST_IMAGES, network.pixels, generator=torch.Generator().manual_seed(chip.seed))
        traffic, one_traffic = (count_traffic(mapped, _some(shown, mapped)) for mapped in (deployed, one))
        layers = probabilities_by_layer(network)
        return cls(model, deployed, one, traffic, one_traffic, layers, config, command, **more)

    def to_dict(self) -> dict[str, Any]:
        """As plain numbers, without settings, versions and machine."""
        return {
            "cost": self.deployed.cost().to_dict(),
            "layers": [dataclasses.asdict(layer) for layer in self.layers],
            "before_layers": [dataclasses.asdict(layer) for layer in self.before_layers],
            "spikes_per_image": float(self.traffic.spikes.sum()),
            "links_per_spike": mean_hops(self.deployed.mapped.grid, self.traffic),
            "images_of_traffic": self.traffic.images,
            "images": self.images,
            "accuracy": self.accuracy and self.accuracy.to_dict(),
            "before_accuracy": self.before_accuracy and self.before_accuracy.to_dict(),
        }


def write_truenorth_page(run: TrueNorthRun, path: Path) -> None:
    """Write the page.

    Args:
        run: of a mapped network.
        path: the HTML file to write.

    Raises:
        FileError: where it cannot be written.
    """
    atomic_write(path, render_truenorth_page(run))


def draw_truenorth(
    network: TeaNetwork,
    path: Path | str,
    chip: TrueNorth | None = None,
    images: Tensor | None = None,
    name: str = "network",
) -> None:
    """Draw a network on cores: a page with its probabilities, every core and what goes between them, and its price.

    Args:
        network: to map.
        path: the HTML file to write; it needs no other file.
        chip: and how many copies; one by default.
        images: 0..1, to count spikes with; noise by default.
        name: of the network, for the title.

    Raises:
        InvalidArgument: images that do not fit the network, or copies that do not fit the chip.
        FileError: where it cannot be written.
    """
    data = None if images is None else "the images given"
    command = f"draw_truenorth(network, ..., name={name!r})"
    write_truenorth_page(
        TrueNorthRun.of(name, network, chip or TrueNorth(), images, {}, command, data=data), Path(path)
    )


def render_truenorth_page(run: TrueNorthRun) -> str:
    """Give the page as HTML text.

    Args:
        run: of a mapped network.
    """
    grid = run.deployed.mapped.grid
    pictures = [copy_figure(run.one.mapped, run.one_traffic)]
    pictures += [chip_figure(run.deployed.mapped, run.traffic)]
    return page_template("truenorth_page.html.j2").render(
        run=run,
        title=f"{run.model} on neurosynaptic cores",
        trail=("map-truenorth", run.model),
        verdict=_verdict(run),
        tiles=_tiles(run),
        accuracy=run.accuracy,
        before=run.before_accuracy,
        maps=accuracy_maps(_named(run)),
        corners=run.accuracy.corners() if run.accuracy else (),
        named=_named(run),
        layers=_rows(run),
        histogram=histogram_figure({label: rows[-1] for label, rows in _named_layers(run).items()}),
        pictures=pictures,
        hops=mean_hops(grid, run.traffic),
        one_hops=mean_hops(run.one.mapped.grid, run.one_traffic),
        prices=_prices(run),
        command=run.command,
        machine=run.machine,
        versions=run.versions,
        config=flat_config(run.config),
        words=wording,
        counted=counted,
        close=CLOSE,
        files=run.files,
    )


def _some(images: Tensor, deployed: DeployedNetwork) -> Tensor:
    """The more cores, the fewer images are shown to count spikes."""
    return images[: max(_LEAST_IMAGES, min(_MOST_IMAGES, _IMAGES_BY_CORES // deployed.mapped.grid.cores))]


def _named(run: TrueNorthRun) -> dict[str, DeployedAccuracy]:
    """Accuracies by what they are called, the run's own last."""
    if run.accuracy is None:
        return {}
    if run.before_accuracy is None:
        return {"the network": run.accuracy}
    return {"without biasing": run.before_accuracy, "with biasing": run.accuracy}


def _rows(run: TrueNorthRun) -> list[tuple[LayerProbabilities, LayerProbabilities | None]]:
    """Of every layer, now and before; those of all layers only where there are several."""
    rows = list(zip(run.layers, run.before_layers or [None] * len(run.layers), strict=True))
    return rows if len(rows) > 2 else rows[:1]


def _named_layers(run: TrueNorthRun) -> Mapping[str, tuple[LayerProbabilities, ...]]:
    if not run.before_layers:
        return {"the network": run.layers}
    return {"without biasing": run.before_layers, "with biasing": run.layers}


def _verdict(run: TrueNorthRun) -> str:
    cost, cores = run.deployed.cost(), len(run.deployed.mapped.layer)
    text = f"One copy takes {counted(cores, 'core')} of the chip's {round(cost.cores / cost.chip_share):,}"
    text += f", {cost.copies:,} copies {cost.cores:,}." if cost.copies > 1 else "."
    if run.accuracy is None:
        return text
    _, copies, ticks = run.accuracy.draws.shape
    best, enough = run.accuracy.best, run.accuracy.enough()
    text += (
        f" With one spike per frame one copy is right on {wording.percent(run.accuracy.at(1, 1)[0])} of "
        f"{run.images:,} test images; the float network on {wording.percent(run.accuracy.floating)}, and the best of "
        f"up to {counted(copies, 'copy')} and {counted(ticks, 'spike')} per frame on {wording.percent(best)}."
    )
    if enough == Enough(None, None):
        text += " Neither more copies alone nor more spikes alone come within 0.1 points of that best."
    else:
        reached = [f"{counted(enough.copies, 'copy')} with one spike per frame"] * bool(enough.copies)
        reached += [f"one copy with {counted(enough.spikes, 'spike')} per frame"] * bool(enough.spikes)
        text += f" Within 0.1 points of that best: {', or '.join(reached)}."
    return text if run.before_accuracy is None else text + _against(run.before_accuracy, run.accuracy)


def _against(before: DeployedAccuracy, after: DeployedAccuracy) -> str:
    """What biasing came to, at the accuracy that is reached without it."""
    wanted = before.best - CLOSE
    needed = [counted(one.enough(wanted).copies, "copy", "no number of copies") for one in (after, before)]
    return (
        f" Trained without biasing, one copy with one spike is right on {wording.percent(before.at(1, 1)[0])}, the "
        f"best on {wording.percent(before.best)}; within 0.1 points of the latter, at one spike per frame: "
        f"{needed[0]} with biasing, {needed[1]} without."
    )


def _tiles(run: TrueNorthRun) -> list[dict[str, Any]]:
    cost = run.deployed.cost()
    tiles: list[dict[str, Any]] = [
        {
            "label": "Cores",
            "value": f"{cost.cores:,}",
            "detail": f"{wording.percent(cost.chip_share)} of the chip",
            "share": cost.chip_share,
        },
        {
            "label": "Copies",
            "value": f"{cost.copies:,}",
            "detail": f"of {counted(len(run.deployed.mapped.layer), 'core')} each",
            "share": None,
        },
        {
            "label": "Spikes per frame",
            "value": f"{cost.frame_spikes:,}",
            "detail": f"{wording.seconds(cost.latency_s)} from first input to last vote",
            "share": None,
        },
    ]
    if run.accuracy is not None:
        one, spread = run.accuracy.at(1, 1)
        often = f" ± {100 * spread:.2f}" if len(run.accuracy.draws) > 1 else ""
        tiles += [
            {
                "label": "One copy, one spike",
                "value": wording.percent(one),
                "detail": f"right{often}",
                "share": None,
            },
            {
                "label": "Best on the chip",
                "value": wording.percent(run.accuracy.best),
                "detail": f"{wording.percent(run.accuracy.floating)} as a float network",
                "share": None,
            },
        ]
    return tiles


def _prices(run: TrueNorthRun) -> dict[str, TrueNorthCost]:
    prices = {"one copy": run.one.cost()}
    if run.deployed.mapped.copies > 1:
        prices[f"{run.deployed.mapped.copies:,} copies"] = run.deployed.cost()
    return prices
