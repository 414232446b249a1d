"""How fast LeNet runs on 64 x 64 crossbars, beside aihwkit's torch tiles of the same size, in one process.

    python benchmarks/peer_environments.py --peers aihwkit
    build/peers/aihwkit/bin/python benchmarks/crossbar_forward.py    # --ledger results writes a row

Both hold the same weights in 121 tiles. `perfect`: no converters, no noise. `converters`: 7 bits into a tile, 9 bits
out of it, as aihwkit has by default; its ranges are one a vector (in) and fixed (out), ours one a layer, calibrated.
`noise`: aihwkit's default, a normal number for each output of each tile; here one for each cell, drawn again at each
call. So the third is what either model costs; they are not the same. All take turns; times are of this thread's CPU.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch import Tensor

from spokeshave.ledger import write_row
from spokeshave.models.lenet import LeNet
from spokeshave.optional import available
from spokeshave.targets.crossbar.aihwkit_network import to_aihwkit
from spokeshave.targets.crossbar.converters import Converters
from spokeshave.targets.crossbar.memristor import Memristor
from spokeshave.targets.crossbar.weights_to_tiles import Crossbar
from spokeshave.timing import median_and_spread, using_threads

DAC_BITS, ADC_BITS = 7, 9
SETTINGS = ("perfect", "converters", "noise")
WANTED = 5.0


@dataclass(frozen=True)
class Options:
    """What to measure."""

    batch: int = 64
    """Images in a batch."""
    size: int = 64
    """Most inputs and outputs of a tile."""
    rounds: int = 25
    """Turns of each contestant."""
    threads: int = 1
    """CPU threads; with more than one, times are by the wall."""
    ledger: Path | None = None
    """Folder of the ledger; writes a row there."""


def ours(setting: str, net: LeNet, images: Tensor, size: int) -> Callable[[Tensor], Tensor]:
    """Our network of a setting."""
    converters = Converters() if setting == "perfect" else Converters(DAC_BITS, ADC_BITS)
    device = Memristor(read_noise=0.02) if setting == "noise" else Memristor()
    return Crossbar((size, size), device, converters=converters).map(net, images)


def theirs(setting: str, net: LeNet, size: int) -> Callable[[Tensor], Tensor]:
    """Aihwkit's network of a setting."""
    from aihwkit.simulator.configs import TorchInferenceRPUConfig
    from aihwkit.simulator.parameters.enums import BoundManagementType

    settings = TorchInferenceRPUConfig()
    settings.mapping.max_input_size = settings.mapping.max_output_size = size
    settings.forward.is_perfect = setting == "perfect"
    if setting == "converters":  # the default also repeats products whose outputs were cut off, at a smaller scale
        settings.forward.out_noise, settings.forward.bound_management = 0.0, BoundManagementType.NONE
    return to_aihwkit(net, settings=settings)


def main(options: Options) -> None:
    """Measure in turns and print."""
    console, began = Console(), time.perf_counter()
    torch.manual_seed(0)
    net, images = LeNet().eval(), torch.randn(options.batch, 1, 28, 28)
    contestants: dict[str, Callable[[Tensor], Tensor]] = {"digital, torch": net}
    with using_threads(options.threads), torch.no_grad():
        for setting in SETTINGS:
            contestants[f"spokeshave, {setting}"] = ours(setting, net, images, options.size)
            if available("aihwkit"):
                contestants[f"aihwkit, {setting}"] = theirs(setting, net, options.size)
        wanted = net(images)
        errors = {name: float((run(images) - wanted).norm() / wanted.norm()) for name, run in contestants.items()}
        clock = time.thread_time if options.threads == 1 else time.perf_counter
        times: dict[str, list[float]] = {name: [] for name in contestants}
        for _ in range(options.rounds):
            for name, run in contestants.items():
                start = clock()
                run(images)
                times[name].append(clock() - start)
    kind = "CPU time" if options.threads == 1 else f"wall time, {options.threads} threads"
    table = Table(title=f"LeNet, batch {options.batch}, {kind}", box=None, title_justify="left")
    for heading in ("contestant", "ms", "fastest", "error against digital", "times as fast as aihwkit"):
        table.add_column(heading, justify="left" if heading == "contestant" else "right")
    rows = []
    for name, samples in times.items():
        took, spread = median_and_spread(samples)
        row = {"contestant": name, "ms": 1e3 * took, "ms_spread": 1e3 * spread, "ms_fastest": 1e3 * min(samples)}
        row |= {"relative_error": errors[name], "ratio": None, "ratio_spread": None}
        peer = times.get(name.replace("spokeshave", "aihwkit")) if name.startswith("spokeshave") else None
        if peer:
            pairs = [b / a for a, b in zip(samples, peer, strict=True)]
            row["ratio"], row["ratio_spread"] = median_and_spread(pairs)
        rows.append(row)
        against = f"{row['ratio']:.1f} +- {row['ratio_spread']:.1f}x" if peer else ""
        table.add_row(
            name,
            f"{row['ms']:.1f} +- {row['ms_spread']:.1f}",
            f"{row['ms_fastest']:.1f}",
            f"{errors[name]:.1e}",
            against,
        )
    console.print(table)
    for row in rows:
        if row["ratio"] is not None:
            verdict = "met" if row["ratio"] >= WANTED else "missed"
            console.print(
                f"{row['contestant']}: at least {WANTED:.0f} times as fast: {row['ratio']:.1f}: {verdict}",
                highlight=False,
            )
    if not available("aihwkit"):
        console.print("aihwkit is not installed here: see the first lines of this file", highlight=False)
    if options.ledger:
        config = {"batch": options.batch, "size": options.size, "rounds": options.rounds, "threads": options.threads}
        numbers = {"rows": rows, "dac_bits": DAC_BITS, "adc_bits": ADC_BITS}
        path = write_row(
            "benchmarks", "crossbar-forward", config, numbers, seeds=[0], wall_s=time.perf_counter() - began,
            command="build/peers/aihwkit/bin/python benchmarks/crossbar_forward.py", directory=options.ledger,
        )  # fmt: skip
        console.print(f"row: {path}", highlight=False)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
