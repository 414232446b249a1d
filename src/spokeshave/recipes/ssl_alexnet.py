"""SSL on AlexNet: Table 4 on the authors' own sparse weights, checked, shrunk and timed against dense. No training.

Wen, Wu, Wang, Chen, Li: Learning Structured Sparsity in Deep Neural Networks, NIPS 2016, Table 4; the weights are those
published with SkimCaffe, before fine-tuning (top-1 error 45.79 %). Biases and classifier were not published: ours are
AlexNet's initial ones.
Departs from the paper: whole layers are timed, as they run, not matrix products alone; filters leave across layers.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from spokeshave.data.skimcaffe import PublishedWeights, load_alexnet_convolutions
from spokeshave.errors import InvalidArgument, NothingChanged
from spokeshave.ledger import write_row
from spokeshave.measure import Comparison, compare, measure
from spokeshave.models import AlexNet
from spokeshave.rewrites import shrink
from spokeshave.run_output import command_line
from spokeshave.structures.sparsity import layer_sparsity

LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5")
# Percent, and times faster than dense on one thread of a Xeon; rows of the published file are from before fine-tuning.
PAPER: dict[str, dict[str, Any]] = {
    "4.1": {
        "method": "l1",
        "error": 44.67,
        "sparsity": (67.6, 92.4, 97.2, 96.6, 94.3),
        "cpu": (0.80, 2.91, 4.84, 3.83, 2.76),
    },
    "4.2": {
        "method": "SSL",
        "error": 44.66,
        "column": (0.0, 63.2, 76.9, 84.7, 80.7),
        "row": (9.4, 12.9, 40.6, 46.9, 0.0),
        "cpu": (1.05, 3.37, 6.27, 9.73, 4.93),
    },
}


@dataclass(frozen=True)
class Config:
    """Options of Table 4 on the authors' weights."""

    weights: PublishedWeights = PublishedWeights.SSL
    """Which published weights."""
    data_dir: Path | None = None
    """Folder that holds skimcaffe-alexnet/; else SPOKESHAVE_DATA."""
    batch_size: int = 16
    """Images in the batch that is timed, at least 1."""
    repeats: int = 30
    """Timed pairs of each setting, at least 1."""
    ledger: Path | None = None
    """Folder of the ledger; writes a row there."""
    smoke: bool = False
    """One image, few repeats."""


def run(config: Config) -> dict[str, Any]:
    """Load, compare the zero rates with Table 4, shrink, time.

    Returns:
        The numbers, as JSON values.

    Raises:
        DataError: where the weights are missing or damaged.
        InvalidArgument: for a batch size or a number of repeats below 1.
    """
    if config.batch_size < 1 or config.repeats < 1:
        raise InvalidArgument(
            f"batch_size and repeats must be at least 1, got {config.batch_size} and {config.repeats}"
        )
    started = time.perf_counter()
    model = sparse_alexnet(config.weights, config.data_dir)
    example = torch.randn(1, 3, 227, 227, generator=torch.Generator().manual_seed(0))
    rates = {name: layer_sparsity(model.get_submodule(name)) for name in LAYERS}
    try:
        small, report = shrink(model, example)
    except NothingChanged as error:
        raise NothingChanged(f"{config.weights.value} has no structured zeros that pay: {error}") from error
    batch = 1 if config.smoke else config.batch_size
    repeats = 2 if config.smoke else config.repeats
    timed = compare(model, small, example, threads=(1,), batch_sizes=(batch,), repeats=repeats, layer_batch_size=batch)
    before, after = measure(model, example, latency=False), measure(small, example, latency=False)
    numbers: dict[str, Any] = {
        "row_percent": [100 * rates[name].filters for name in LAYERS],
        "column_percent": [100 * rates[name].shapes for name in LAYERS],
        "element_percent": [100 * rates[name].elements for name in LAYERS],
        "speedup": _speedups(timed),
        "comparison": timed.to_dict(),
        "flops": [before.flops, after.flops],
        "parameters": [before.parameters, after.parameters],
        "max_relative_error": report.max_relative_error,
        "published": PAPER["4.2" if config.weights is PublishedWeights.SSL else "4.1"],
    }
    _print(numbers, Console())
    if config.ledger is not None:
        command = command_line(["spokeshave", "run", "ssl_alexnet"], config)
        settings = {"weights": config.weights.value, "batch_size": batch, "repeats": repeats}
        write_row(
            "ssl_alexnet", config.weights.value, settings, numbers, seeds=[0],
            wall_s=time.perf_counter() - started, command=command, directory=config.ledger,
        )  # fmt: skip
    return numbers


def sparse_alexnet(weights: PublishedWeights, data_dir: Path | None = None) -> nn.Module:
    """CaffeNet with the authors' convolution weights, and initial biases and classifier (seed 0).

    Raises:
        DataError: where the weights are missing or damaged.
    """
    torch.manual_seed(0)
    model = AlexNet().eval()
    with torch.no_grad():
        for name, layer in load_alexnet_convolutions(data_dir, weights).items():
            model.get_submodule(name).get_parameter("weight").copy_(layer.weight)
    return model


def _speedups(timed: Comparison) -> list[float | None]:
    ratios = {row.name: row.before_s / row.after_s for row in timed.layers if row.before_s and row.after_s}
    return [ratios.get(name) for name in LAYERS]


def _print(numbers: dict[str, Any], console: Console) -> None:
    paper = numbers["published"]
    table = Table("", *LAYERS, "mean", title="SSL, Table 4: published / here", title_justify="left", box=None)
    for label, ours, theirs in (
        ("zero rows %", numbers["row_percent"], paper.get("row")),
        ("zero columns %", numbers["column_percent"], paper.get("column")),
        ("zero weights %", numbers["element_percent"], paper.get("sparsity")),
        ("times faster", numbers["speedup"], paper["cpu"]),
    ):
        pairs = zip(theirs or ours, ours, strict=True)
        cells = [f"{t:g} / " * (theirs is not None) + ("-" if o is None else f"{o:.2f}") for t, o in pairs]
        known = [value for value in ours if value is not None]
        table.add_row(label, *cells, f"{mean(known):.2f}" if known else "-")
    console.print(table)
    whole, (before, after) = numbers["comparison"]["rows"][0], numbers["flops"]
    console.print(
        f"whole network, batch {whole['batch_size']}, 1 thread: {whole['ratio']:.2f} +- {whole['ratio_spread']:.2f} "
        f"times faster; FLOPs {before:,} -> {after:,}; largest relative error {numbers['max_relative_error']:.1e}",
        highlight=False,
        soft_wrap=True,
    )
