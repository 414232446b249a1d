"""How fast the compact network runs beside GoogLeNet, SqueezeNet and AlexNet: in turns, in one process, on this CPU.

    python benchmarks/compact_speed.py        # --ledger results writes a row

Untrained networks, whose arithmetic is that of trained ones, for 1000 classes at 224 pixels and for ten at 64. A ratio
is of paired times: how many times as long as the compact network the other one takes.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from rich.console import Console
from rich.table import Table

from spokeshave.ledger import write_row
from spokeshave.measure import measure
from spokeshave.recipes.adaptation_rows import NetworkName
from spokeshave.run_output import command_line
from spokeshave.timing import median_and_spread, time_in_turns

NETWORKS = (NetworkName.COMPACT, NetworkName.GOOGLENET, NetworkName.SQUEEZENET, NetworkName.ALEXNET)
FORMS = ((224, 1000), (64, 10))
"""Pixels and classes."""


@dataclass(frozen=True)
class Options:
    """What to measure."""

    batches: tuple[int, ...] = (1, 16)
    """Images at a time."""
    threads: tuple[int, ...] = (1,)
    """Of torch."""
    rounds: int = 25
    """Turns of each network."""
    budget_s: float = 60.0
    """Most seconds of turns of one size, batch and number of threads."""
    ledger: Path | None = None
    """Folder of the ledger; writes a row there."""


def speed(size: int, classes: int, options: Options) -> list[dict[str, Any]]:
    """Time the networks at one size.

    Args:
        size: height and width of images, in pixels.
        classes: number of logits.
        options: batches, threads and turns.
    """
    torch.manual_seed(0)
    models = [network.make(classes, size).eval() for network in NETWORKS]
    costs = [measure(model, torch.rand(1, 3, size, size), latency=False) for model in models]
    rows = []
    for batch in options.batches:
        for threads in options.threads:
            images = (torch.rand(batch, 3, size, size),)
            times = time_in_turns(models, images, threads, options.rounds, options.budget_s)
            for network, cost, own in zip(NETWORKS, costs, times, strict=True):
                ratio, spread = median_and_spread([its / base for its, base in zip(own, times[0], strict=True)])
                rows.append(
                    {
                        "network": network.value, "size": size, "classes": classes, "batch_size": batch,
                        "threads": threads, "parameters": cost.parameters, "flops": cost.flops,
                        "ms": 1e3 * median_and_spread(own)[0], "ratio": ratio, "ratio_spread": spread,
                    }
                )  # fmt: skip
    return rows


def main(options: Options) -> None:
    """Measure, print, and write a row."""
    console, began = Console(highlight=False), time.perf_counter()
    rows = [row for size, classes in FORMS for row in speed(size, classes, options)]
    table = Table(title="Networks in turns: times as long as the compact one", box=None, title_justify="left")
    for name in ("network", "pixels", "batch", "threads", "parameters", "MFLOPs", "ms", "times as long"):
        table.add_column(name, justify="left" if name == "network" else "right")
    for row in rows:
        about = (row["network"], str(row["size"]), str(row["batch_size"]), str(row["threads"]))
        cost = (f"{row['parameters']:,}", f"{row['flops'] / 1e6:.0f}", f"{row['ms']:.1f}")
        table.add_row(*about, *cost, f"{row['ratio']:.2f} ± {row['ratio_spread']:.2f}")
    console.print(table)
    if options.ledger:
        config = {"batches": options.batches, "threads": options.threads, "rounds": options.rounds}
        path = write_row(
            "benchmarks", "compact-speed", config, {"rows": rows}, seeds=[0], wall_s=time.perf_counter() - began,
            directory=options.ledger, command=command_line(["python", "benchmarks/compact_speed.py"], options),
        )  # fmt: skip
        console.print(f"row: {path}")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
