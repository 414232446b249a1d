"""How fast the compact network runs beside GoogLeNet, SqueezeNet and AlexNet: in turns, in one process, on this CPU.

    python benchmarks/compact_speed.py        # --ledger results writes a row

Untrained networks, whose arithmetic is that of trained ones, for 1000 classes at 224 pixels (AlexNet at 227, as it is
defined) and for ten at 64. A ratio is of paired times: how many times as long as the compact network another one takes.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from spokeshave.ledger import write_row
from spokeshave.measure import measure
from spokeshave.recipes.adaptation_rows import NetworkName
from spokeshave.run_output import command_line
from spokeshave.timing import median_and_spread, time_in_turns

NETWORKS = (NetworkName.COMPACT, NetworkName.GOOGLENET, NetworkName.SQUEEZENET, NetworkName.ALEXNET)
FORMS = ((224, 1000), (64, 10))
"""Pixels and classes."""
SIZES = {(NetworkName.ALEXNET, 224): 227}
"""Pixels of a network that is defined for others."""


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


class OnItsImages(nn.Module):
    """A network with a batch of images of the size that it takes.

    Args:
        kind: of network.
        size: height and width that are asked for, in pixels.
        classes: number of logits.
        batch: images.
    """

    def __init__(self, kind: NetworkName, size: int, classes: int, batch: int) -> None:
        super().__init__()
        size = SIZES.get((kind, size), size)
        self.network = kind.make(classes, size)
        self.register_buffer("images", torch.rand(batch, 3, size, size))

    def forward(self, _: Tensor) -> Tensor:
        """Run the network; what is given is for nothing but the turns, whose networks all get the same."""
        return self.network(self.images)


def speed(size: int, classes: int, options: Options) -> list[dict[str, Any]]:
    """Time the networks at one size.

    Args:
        size: height and width of images, in pixels.
        classes: number of logits.
        options: batches, threads and turns.
    """
    torch.manual_seed(0)
    rows = []
    for batch in options.batches:
        models = [OnItsImages(kind, size, classes, batch).eval() for kind in NETWORKS]
        costs = [measure(model.network, model.get_buffer("images"), latency=False) for model in models]
        for threads in options.threads:
            times = time_in_turns(models, (torch.zeros(1),), threads, options.rounds, options.budget_s)
            for model, kind, cost, own in zip(models, NETWORKS, costs, times, strict=True):
                ratio, spread = median_and_spread([its / base for its, base in zip(own, times[0], strict=True)])
                rows.append(
                    {
                        "network": kind.value, "size": model.get_buffer("images").shape[-1], "classes": classes,
                        "batch_size": batch, "threads": threads, "parameters": cost.parameters, "flops": cost.flops,
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
        config |= {"budget_s": options.budget_s}
        path = write_row(
            "benchmarks", "compact-speed", config, {"rows": rows}, seeds=[0], wall_s=time.perf_counter() - began,
            directory=options.ledger, command=command_line(["python", "benchmarks/compact_speed.py"], options),
        )  # fmt: skip
        console.print(f"row: {path}")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
