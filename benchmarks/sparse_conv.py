"""Direct sparse convolution, layer by layer, beside the engines that one would use otherwise.

    python benchmarks/peer_environments.py --folder build/peers     # once; without it: ours and torch only
    python benchmarks/sparse_conv.py --peers build/peers --threads 1 2
    python benchmarks/sparse_conv.py --quick                        # one layer, a minute at most

AlexNet's conv2 to conv5 (each group as a layer of its own; conv1 too for the SSL weights) with bias and ReLU, on the
weights that the papers' authors trained. Ours is what `to_sparse` gives, called on a tensor of images: packing into
lanes and back is part of the time. Everything takes turns in a random order; `contestants.py` says which clock counts.
"""

import random
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch
import tyro
from contestants import DENSE, OURS, SEGMENT, SUFFIX, Contestant, best_of, load, ratio, start, take_turns, write_models
from onnx_graphs import save_layer
from rich.console import Console
from rich.table import Table
from sparse_conv_bars import (
    Bar,
    Cell,
    against_authors,
    against_better,
    against_dense,
    bars,
    fastest_against,
    middle,
    scaling,
)
from torch import nn

from spokeshave.data.skimcaffe import PublishedWeights, load_alexnet_convolutions
from spokeshave.ledger import write_row


class Weights(StrEnum):
    """Sets of weights."""

    L1 = PublishedWeights.L1.value
    SSL = PublishedWeights.SSL.value
    DENSE = "dense"


@dataclass(frozen=True)
class Options:
    """What to time."""

    weights: tuple[Weights, ...] = (Weights.L1, Weights.SSL)
    """Sets of weights; `dense` is random, for reference."""
    batch_sizes: tuple[int, ...] = (1, 16, 64)
    """Images in a batch."""
    threads: tuple[int, ...] = (1,)
    """Threads to time with."""
    only_layers: tuple[str, ...] = ()
    """Such as conv3 or conv4_2; all if none is given."""
    only_contestants: tuple[str, ...] = ()
    """Whom to compare with; all that are installed if none is given."""
    peers: Path = Path("build/peers")
    """Folder that peer_environments.py made."""
    data_dir: Path | None = None
    """Folder with skimcaffe-alexnet/; else SPOKESHAVE_DATA."""
    rounds: int = 10
    """Turns of each contestant in each setting."""
    turn_ms: float = 20.0
    """About how long a turn lasts."""
    seed: int = 0
    """Of inputs and of the order of turns."""
    ledger: Path | None = None
    """Folder of the ledger; writes one row there."""
    quick: bool = False
    """One layer, few rounds."""


FASTEST: tuple[Callable[[Cell], float | None], ...] = (
    lambda cell: cell.fastest_share,
    lambda cell: fastest_against(cell, ["deepsparse"]),
    lambda cell: fastest_against(cell, DENSE),
)
"""Last columns of the table: the same questions, asked of the fastest calls."""
QUICK = {"weights": (Weights.L1,), "batch_sizes": (1, 16), "only_layers": ("conv4_1",), "rounds": 3, "turn_ms": 5.0}


def layers(options: Options, weights: Weights) -> Iterator[tuple[str, nn.Conv2d, int]]:
    """Name, convolution of one group, side of its input."""
    published = PublishedWeights.L1 if weights is Weights.DENSE else PublishedWeights(weights.value)
    generator = torch.Generator().manual_seed(options.seed)
    for name, layer in load_alexnet_convolutions(options.data_dir, published).items():
        shape = layer.geometry
        if name == "conv1" and weights is not Weights.SSL:
            continue
        for number, weight in enumerate(layer.weight.chunk(shape.groups), start=1):
            part = f"{name}_{number}" if shape.groups > 1 else name
            if options.only_layers and part not in options.only_layers and name not in options.only_layers:
                continue
            filters, channels = weight.shape[:2]
            module = nn.Conv2d(channels, filters, shape.kernel, shape.stride, shape.padding)
            with torch.no_grad():
                module.weight.copy_(weight)
                if weights is Weights.DENSE:
                    module.weight.normal_(0, 0.01, generator=generator)
                assert module.bias is not None
                module.bias.normal_(0, 0.01, generator=generator)
            yield part, module, shape.input_pixels


def measure_layer(
    options: Options, weights: Weights, layer: tuple[str, nn.Conv2d, int], batch: int, contestants: Sequence[Contestant]
) -> Cell:
    """One cell of the table."""
    name, convolution, side = layer
    threads = contestants[0].threads
    network = nn.Sequential(convolution, nn.ReLU()).eval()
    generator = torch.Generator().manual_seed(options.seed)
    images = torch.randn(batch, convolution.in_channels, side, side, generator=generator).relu()
    peak: list[float] = []
    problems: dict[str, str] = {}
    with TemporaryDirectory() as folder:
        models, example = write_models(network, images, Path(folder))
        models[".onnx"] = Path(folder) / "network.onnx"
        pixels = network(images[:1])[0, 0].numel()
        save_layer(models[".onnx"], convolution, tuple(images.shape), tuple(network(images[:1]).shape[1:]))
        ready = {}
        for contestant in contestants:
            problem = load(contestant, models[SUFFIX.get(contestant.name, ".onnx")], example)
            if problem:
                problems[contestant.name] = problem
            else:
                ready[contestant.name] = contestant
        order = random.Random(options.seed)
        turns = take_turns(ready, options.rounds, options.turn_ms / 1e3, order, peak)
    if OURS not in turns:
        raise SystemExit(f"{name}: the engine itself failed: {problems.get(OURS, 'while it was timed')}")
    nonzeros = int(torch.count_nonzero(convolution.weight))
    flops = 2.0 * nonzeros * pixels * batch
    ours = turns[OURS].seconds(threads)
    return Cell(
        weights=weights.value,
        layer=name,
        batch=batch,
        threads=threads,
        nonzeros=nonzeros,
        flops=flops,
        density=nonzeros / convolution.weight.numel(),
        peak_share=flops / median(ours) / (1e9 * threads * median(peak)),
        fastest_share=flops / turns[OURS].fastest(threads) / (1e9 * threads * max(peak)),
        seconds={who: median(turn.seconds(threads)) for who, turn in turns.items()},
        wall_s={who: median(turn.wall_s) for who, turn in turns.items()},
        least_wall_s={who: min(turn.least_wall_s) for who, turn in turns.items()},
        fastest_s={who: turn.fastest(threads) for who, turn in turns.items()},
        ratio={who: ratio(turn.seconds(threads), ours) for who, turn in turns.items() if who != OURS},
        best_dense=best_of(turns, DENSE, threads),
        problems=problems,
    )


def table(cells: Sequence[Cell], title: str) -> Table:
    """Cells of one set, batch size and number of threads, with geometric means."""
    shown = Table(title=title, title_justify="left", box=None, padding=(0, 1))
    headings = (
        "layer",
        "ms",
        "segment ms",
        "GF/s nonzeros",
        "GF/s dense",
        "of peak",
        "/ DeepSparse",
        "/ authors'",
        "/ better",
    )
    fastest = ("fastest: of peak", "/ DeepSparse", "/ dense")
    for heading in (*headings, "/ best dense", "which", *fastest):
        shown.add_column(heading, justify="left" if heading in ("layer", "which") else "right")
    for cell in cells:
        seconds = cell.seconds[OURS]
        rate = cell.flops / seconds / 1e9
        peer = cell.ratio.get("deepsparse")
        shown.add_row(
            cell.layer,
            f"{1e3 * seconds:.3f}",
            f"{1e3 * cell.seconds[SEGMENT]:.3f}" if SEGMENT in cell.seconds else "-",
            f"{rate:.0f}",
            f"{rate / cell.density:.0f}",
            f"{cell.peak_share:.2f}",
            "-" if peer is None else f"{peer[0]:.2f} ± {peer[1]:.2f}",
            times(against_authors(cell)),
            times(against_better(cell)),
            "-" if cell.best_dense is None else "{:.2f} ± {:.2f}".format(*cell.ratio[cell.best_dense]),
            cell.best_dense or "",
            *(times(value(cell)) for value in FASTEST),
        )
    shown.add_row(
        "geo mean",
        f"sum {1e3 * sum(cell.seconds[OURS] for cell in cells):.3f}",
        *("", "", ""),
        times(middle([cell.peak_share for cell in cells])),
        times(middle([cell.ratio.get("deepsparse", (None,))[0] for cell in cells])),
        *(times(middle([value(cell) for cell in cells])) for value in (against_authors, against_better, against_dense)),
        "",
        *(times(middle([value(cell) for cell in cells])) for value in FASTEST),
    )
    return shown


def times(value: float | None) -> str:
    """A ratio for the table."""
    return "-" if value is None else f"{value:.2f}"


def bar_table(found: Sequence[Bar]) -> Table:
    """Bars and what was reached."""
    shown = Table("bar", "at least", "measured", "", title="bars", title_justify="left", box=None, padding=(0, 1))
    for bar in found:
        shown.add_row(bar.what, f"{bar.wanted:.2f}", times(bar.got), bar.verdict)
    return shown


def main(options: Options) -> None:
    """Time every cell, print tables and bars."""
    began = time.perf_counter()
    if options.quick:
        options = replace(options, **QUICK)
    torch.set_num_threads(1)
    console = Console(width=170 if not sys.stdout.isatty() else None)
    crews = {threads: start(threads, options.peers, options.only_contestants) for threads in options.threads}
    versions = {member.name: member.version for crew in crews.values() for member in crew}
    console.print(
        "contestants: " + ", ".join(f"{name} {version}" for name, version in versions.items()), soft_wrap=True
    )
    cells: list[Cell] = []
    try:
        for weights in options.weights:
            for layer in layers(options, weights):
                for batch in options.batch_sizes:
                    for crew in crews.values():
                        cells.append(measure_layer(options, weights, layer, batch, crew))
                        cell = cells[-1]
                        said = ", ".join(f"{who} {1e3 * took:.3f}" for who, took in cell.seconds.items())
                        console.print(f"{weights} {cell.layer} batch {batch} threads {cell.threads}: ms {said}")
                        for who, problem in cell.problems.items():
                            console.print(f"  {who} left out: {problem}", markup=False)
    finally:
        for member in (member for crew in crews.values() for member in crew):
            member.close()
    for key in dict.fromkeys((cell.weights, cell.batch, cell.threads) for cell in cells):
        some = [cell for cell in cells if (cell.weights, cell.batch, cell.threads) == key]
        console.print(table(some, f"{key[0]}, batch {key[1]}, threads {key[2]}: how many times faster ours is"))
    for (weights, layer, batch), value in scaling(cells).items():
        console.print(f"{weights} {layer} batch {batch}: two threads are {value:.2f} times as fast as one")
    found = bars(cells)
    console.print(bar_table(found))
    if options.ledger is not None:
        numbers = {
            "cells": [asdict(cell) for cell in cells],
            "bars": [asdict(bar) | {"verdict": bar.verdict} for bar in found],
            "contestants": versions,
        }
        # Sets are run one by one where their contestants differ: each then has a row of its own.
        sets = "" if Weights.L1 in options.weights else "".join(f"-{one.name.lower()}" for one in options.weights)
        row = "sparse-conv-quick" if options.quick else f"sparse-conv{sets}"
        took = time.perf_counter() - began
        write_row(
            "benchmarks", row, options, numbers, seeds=[options.seed], wall_s=took, directory=options.ledger,
            command=shlex.join(["python", *sys.argv]),
        )  # fmt: skip


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
