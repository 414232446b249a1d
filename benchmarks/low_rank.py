"""Do two launches take less time than one? AlexNet's convolutions split at the authors' ranks, layer by layer.

    python benchmarks/low_rank.py
    python benchmarks/low_rank.py --ledger results

conv1 and conv2 are separable with K = 8 and 40, conv3 to conv5 split by filters with the authors' released ranks, of
all groups together: 150/160/120, beside their first row in Wen et al., ICCV 2017, Table 6 (error +0.17 points), and
120/120/110, for which no published time is known. 63/74/72 stands beside their second row (+1.71 points), whose ranks
are not published: these give its speedups if time is proportional to rank, from the ranks and CPU times of Table 4.
The weights are random: time does not depend on them.
Dense in two orders of memory and split in both take turns in one process; compared are the better of each, ratios are
medians over rounds with their quartile distance. One thread is judged by CPU time, which other work on the machine
disturbs least. Predicted is the ratio of multiply-adds, and by the roofline that decides in `ss.low_rank`, at the
rates of this machine.
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
from spokeshave.structures.factorized_layer import FactorizedLayer
from spokeshave.structures.layer_calls import layer_calls
from spokeshave.structures.layer_spectrum import Split
from spokeshave.structures.roofline_model import MachineRates
from spokeshave.structures.separable_layer import SeparableLayer
from spokeshave.structures.split_work import flops_of, seconds_of, split_launches, whole_launches
from spokeshave.targets.cpu_sparse.roofline import measure_roofline
from spokeshave.timing import median_and_spread, using_threads


@dataclass(frozen=True)
class Case:
    """One layer, split in one way.

    Attributes:
        name: of the layer.
        sizes: channels in and out, kernel, stride, padding, groups.
        image: height and width that enter.
        rank: of all groups together.
        split: what into.
        published: speedup in Table 6, where one is known.
    """

    name: str
    sizes: tuple[int, int, int, int, int, int]
    image: int
    rank: int
    split: Split
    published: float | None = None

    def layer(self) -> nn.Conv2d:
        """The dense layer, in inference."""
        channels, filters, kernel, stride, padding, groups = self.sizes
        return nn.Conv2d(channels, filters, kernel, stride, padding, groups=groups).eval().requires_grad_(False)


CONV1, CONV2 = (3, 96, 11, 4, 0, 1), (96, 256, 5, 1, 2, 2)
CONV3, CONV4, CONV5 = (256, 384, 3, 1, 1, 1), (384, 384, 3, 1, 1, 2), (384, 256, 3, 1, 1, 2)
CASES = (
    Case("conv1", CONV1, 227, 8, Split.SEPARABLE, 2.61),
    Case("conv2", CONV2, 27, 40, Split.SEPARABLE, 6.06),
    Case("conv3", CONV3, 13, 150, Split.FILTERS, 2.48),
    Case("conv4", CONV4, 13, 160, Split.FILTERS, 2.20),
    Case("conv5", CONV5, 13, 120, Split.FILTERS, 1.58),
    Case("conv3", CONV3, 13, 120, Split.FILTERS),
    Case("conv4", CONV4, 13, 120, Split.FILTERS),
    Case("conv5", CONV5, 13, 110, Split.FILTERS),
    Case("conv3", CONV3, 13, 63, Split.FILTERS, 4.81),
    Case("conv4", CONV4, 13, 74, Split.FILTERS, 4.00),
    Case("conv5", CONV5, 13, 72, Split.FILTERS, 2.92),
)
CALLS, FEWEST_ROUNDS = 3, 5
TOTALS = (
    ("all, 150/160/120", (0, 1, 2, 3, 4), 2.69),
    ("all, 120/120/110", (0, 1, 5, 6, 7), None),
    ("all, 63/74/72", (0, 1, 8, 9, 10), 4.05),
)
"""Which cases make up a network, and the published speedup of all five convolutions, where one is known."""


@dataclass(frozen=True)
class Options:
    """What to time."""

    batch_sizes: tuple[int, ...] = (1, 16)
    """Images in a batch."""
    threads: int = 1
    """Threads to time with."""
    repeats: int = 25
    """Rounds of each setting."""
    budget_s: float = 4.0
    """Seconds after which a setting begins no more rounds."""
    ledger: Path | None = None
    """Folder of the ledger; writes a row there."""


class Fed(nn.Module):
    """A layer with its input at hand, so that contestants may have theirs in an order of memory of their own."""

    def __init__(self, layer: nn.Module, image: Tensor) -> None:
        super().__init__()
        self.layer, self.image = layer, image

    def forward(self) -> Tensor:
        """Run the layer on its input."""
        return self.layer(self.image)


def split_of(case: Case, layer: nn.Conv2d) -> nn.Module:
    """The layer in two."""
    rank = case.rank // layer.groups
    if case.split is Split.SEPARABLE:
        return SeparableLayer.of(case.name, layer, rank)
    return FactorizedLayer.of(case.name, layer, rank)


def in_turns(contestants: list[Fed], options: Options) -> list[list[float]]:
    """Seconds a call, round by round: of CPU on one thread, of the clock on more."""
    clock = time.process_time if options.threads == 1 else time.perf_counter
    samples: list[list[float]] = [[] for _ in contestants]
    begin = time.perf_counter()
    with torch.inference_mode(), using_threads(options.threads):
        for contestant in contestants:
            contestant()
        for number in range(options.repeats):
            order = range(len(contestants)) if number % 2 == 0 else reversed(range(len(contestants)))
            for index in order:
                start = clock()
                for _ in range(CALLS):
                    contestants[index]()
                samples[index].append((clock() - start) / CALLS)
            if number >= FEWEST_ROUNDS and time.perf_counter() - begin > options.budget_s:
                break
    return samples


def time_case(case: Case, batch: int, options: Options, rates: MachineRates) -> dict[str, Any]:
    """Speedup of one layer at one batch size, measured and predicted."""
    layer = case.layer()
    split = split_of(case, layer).eval()
    image = torch.randn(batch, layer.in_channels, case.image, case.image, generator=torch.Generator().manual_seed(0))
    contestants = {}
    for name, module in (("dense", layer), ("split", split)):
        contestants[name] = Fed(module, image)
        last = split_of(case, layer) if name == "split" else case.layer()
        last = last.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        contestants[f"{name}-channels-last"] = Fed(last, image.contiguous(memory_format=torch.channels_last))
    samples = in_turns(list(contestants.values()), options)
    medians = {name: median_and_spread(own) for name, own in zip(contestants, samples, strict=True)}
    best = [min((n for n in medians if n.startswith(kind)), key=lambda n: medians[n][0]) for kind in ("dense", "split")]
    pairs = [samples[list(contestants).index(name)] for name in best]
    ratio, spread = median_and_spread([a / b for a, b in zip(*pairs, strict=True)])
    calls = layer_calls(layer, (image,), {"": layer})[""].calls
    whole, halves = whole_launches(layer, calls), split_launches(layer, calls, case.rank // layer.groups, case.split)
    return {
        "layer": case.name,
        "rank": case.rank,
        "split": case.split.value,
        "batch_size": batch,
        "published": case.published,
        "ratio": ratio,
        "ratio_spread": spread,
        "best": best,
        "dense_s": medians[best[0]],
        "split_s": medians[best[1]],
        "all_s": medians,
        "predicted_flops": flops_of(whole) / flops_of(halves),
        "predicted_roofline": seconds_of(whole, rates) / seconds_of(halves, rates),
    }


def totals(rows: list[dict[str, Any]], batch: int) -> list[dict[str, Any]]:
    """Speedup of all five convolutions together, from the medians of each."""
    own = [row for row in rows if row["batch_size"] == batch]
    found = []
    for name, members, published in TOTALS:
        before, after = (sum(own[at][key][0] for at in members) for key in ("dense_s", "split_s"))
        found.append({"layer": name, "batch_size": batch, "published": published, "ratio": before / after})
    return found


def table(rows: list[dict[str, Any]], sums: list[dict[str, Any]]) -> Table:
    """What was measured, for the terminal."""
    shown = Table(title="dense over split, the better order of memory of each", box=None, padding=(0, 2))
    for heading in ("layer", "rank", "batch", "dense ms", "split ms", "measured", "multiply-adds", "roofline", "paper"):
        shown.add_column(heading, justify="left" if heading == "layer" else "right")
    for row in rows:
        times = (f"{1e3 * row[key][0]:.2f} ± {1e3 * row[key][1]:.2f}" for key in ("dense_s", "split_s"))
        ratio = f"{row['ratio']:.2f} ± {row['ratio_spread']:.2f}x"
        predicted = (faster(row[key]) for key in ("predicted_flops", "predicted_roofline", "published"))
        shown.add_row(row["layer"], str(row["rank"]), str(row["batch_size"]), *times, ratio, *predicted)
    for row in sums:
        cells = ("", str(row["batch_size"]), "", "", faster(row["ratio"]), "", "", faster(row["published"]))
        shown.add_row(row["layer"], *cells)
    return shown


def faster(ratio: float | None) -> str:
    """A speedup, or a dash."""
    return "-" if ratio is None else f"{ratio:.2f}x"


def main(options: Options) -> None:
    """Time every case and print the table."""
    begin = time.perf_counter()
    torch.manual_seed(0)
    rates = {batch: measure_roofline(options.threads, batch).rates() for batch in options.batch_sizes}
    rows = [time_case(case, batch, options, rates[batch]) for batch in options.batch_sizes for case in CASES]
    sums = [line for batch in options.batch_sizes for line in totals(rows, batch)]
    Console(width=120).print(table(rows, sums))
    if options.ledger is not None:
        config = {"threads": options.threads, "batch_sizes": options.batch_sizes, "repeats": options.repeats}
        numbers = {"rows": rows, "totals": sums}
        wall_s = time.perf_counter() - begin
        write_row("benchmarks", "low-rank", config, numbers, seeds=[0], wall_s=wall_s, directory=options.ledger)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
