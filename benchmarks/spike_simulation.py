"""How many image-ticks a second the simulator of neurosynaptic cores does, beside RANC's C++ emulator and plain numpy.

    python benchmarks/spike_simulation.py --ranc-sim .../ranc_sim    # --ledger results writes a row

`small`: RANC's own MNIST network (tea/256; five programmed cores of a 4 x 3 grid) on MNIST's test images, one image a
tick. `large`: the same cores in a grid of 64 x 64, where RANC spends its time on the empty ones too. `tiled`: 819
copies of those cores, 4,095 in use. `full`: 4,096 cores of 256 random neurons, half of all crosspoints on, every neuron
with a potential, a delay and a destination of its own. RANC takes one image at a time and is timed on the first two; on
the last two it would have to read a file of half a gigabyte, and its time a core is the same. All take turns on one
thread; seconds are of CPU time, RANC's without its start, ours with packing spikes into bits and out of them.
RANC's emulator: https://github.com/UA-RCL/RANC, simulator/, built with -DCMAKE_BUILD_TYPE=Release.
"""

import os
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch import Tensor

from spokeshave.data import DatasetName, load
from spokeshave.ledger import write_row
from spokeshave.targets.truenorth.core_grid import NOWHERE, CoreGrid, Neurons, OutputBus
from spokeshave.targets.truenorth.ranc_files import write_ranc
from spokeshave.targets.truenorth.ranc_memory import read_ranc_memory
from spokeshave.targets.truenorth.ranc_network import RancNetwork
from spokeshave.targets.truenorth.spike_simulator import Engine, InputLines, SpikeSimulator
from spokeshave.timing import median_and_spread

SLICES = (0, 176, 352, 528)
"""First pixel of what each input core of tea/256 sees."""
SIDE = 64
WANTED, AIM = 100.0, 500.0


@dataclass(frozen=True)
class Options:
    """What to measure."""

    data_dir: Path | None = None
    """Folder of ranc/tea_256 and MNIST; else SPOKESHAVE_DATA."""
    ranc_sim: Path | None = None
    """RANC's emulator; without it ours are compared with each other and with numpy."""
    images: int = 2560
    """For the simulator, at a time."""
    ranc_ticks: int = 300
    """Of a turn of RANC on the small grid; a tenth of it on the large one."""
    rounds: int = 5
    """Turns of each contestant."""
    cases: tuple[str, ...] = ("small", "large", "tiled", "full")
    """Which to run."""
    ledger: Path | None = None
    """Folder of the ledger; writes a row there."""


@dataclass(frozen=True)
class Case:
    """A grid, its inputs, and what is fed: booleans [images, ticks, lines]."""

    grid: CoreGrid
    inputs: InputLines
    spikes: Tensor
    ranc: bool = False


def tea_256(folder: Path, side: int | None = None) -> tuple[CoreGrid, InputLines]:
    """RANC's network, in its own grid or at the corner of a square one, with a line for each pixel."""
    grid = read_ranc_memory(folder, 4, 3, OutputBus(0, 2, 250))
    if side:
        grid = replace(grid, width=side, height=side)
    places = grid.places()
    core = torch.stack([places[0, x] for x in range(4)])
    line = torch.cat([torch.arange(first, first + 256) for first in SLICES])
    entries = InputLines(
        784, line, core.repeat_interleave(256), torch.arange(256).repeat(4), torch.ones_like(line)
    )  # fmt: skip
    return grid, entries


def tiled(grid: CoreGrid, inputs: InputLines, copies: int) -> tuple[CoreGrid, InputLines]:
    """Copies of a grid below each other; each has lines of the bus of its own, and all share the input lines."""
    assert grid.output is not None
    routes, cores = grid.routes(), grid.cores
    shift = torch.arange(copies)[:, None]
    neurons = Neurons(**{
        name: value.repeat(copies, *[1] * (value.ndim - 1)) for name, value in vars(grid.neurons).items()
    })  # fmt: skip
    places = torch.stack([torch.arange(copies * cores) % SIDE, torch.arange(copies * cores) // SIDE], 1)
    bus = (0, SIDE)
    core = torch.where(routes.core == NOWHERE, NOWHERE, routes.core + cores * shift[:, :, None]).flatten(0, 1)
    leaves = (routes.line != NOWHERE).repeat(copies, 1)
    to = torch.where(leaves[:, :, None], torch.tensor(bus), places[core.clamp(min=0)])
    axon = torch.where(routes.line == NOWHERE, routes.axon, routes.line + grid.output.lines * shift[:, :, None])
    made = replace(
        grid, width=SIDE, height=SIDE + 1, coordinates=places, axon_types=grid.axon_types.repeat(copies, 1),
        connections=grid.connections.repeat(copies, 1, 1), output=OutputBus(*bus, copies * grid.output.lines),
        neurons=replace(
            neurons, target=(to - places[:, None]).int(), target_axon=axon.flatten(0, 1).int()
        ),
    )  # fmt: skip
    entries = replace(
        inputs, line=inputs.line.repeat(copies), core=(inputs.core + cores * shift).flatten(),
        axon=inputs.axon.repeat(copies), delay=inputs.delay.repeat(copies),
    )  # fmt: skip
    return made, entries


def full(images: int, ticks: int) -> Case:
    """Every core busy, and all that RANC's neurons can do in use."""
    generator = torch.Generator().manual_seed(0)

    def draw(low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high + 1, shape, generator=generator, dtype=torch.int32)

    cores, size = SIDE * SIDE, 256
    places = torch.stack([torch.arange(cores) % SIDE, torch.arange(cores) // SIDE], 1)
    to = torch.stack([draw(0, SIDE - 1, cores, size), draw(0, SIDE - 1, cores, size)], 2).long()
    to[:, ::64] = torch.tensor([0, SIDE])  # a few lines of the bus
    neurons = replace(
        Neurons.inert(cores, size), weights=torch.tensor([1, -1, 2, -2], dtype=torch.int32).repeat(cores, size, 1),
        leak=draw(-2, 2, cores, size), positive_threshold=draw(1, 20, cores, size),
        negative_threshold=draw(-20, -1, cores, size), reset_mode=draw(0, 1, cores, size).to(torch.uint8),
        target=(to - places[:, None]).int(), target_axon=draw(0, size - 1, cores, size), delay=draw(1, 4, cores, size),
    )  # fmt: skip
    connections = torch.randint(0, 2, (cores, size, size), generator=generator, dtype=torch.uint8).view(torch.bool)
    types = draw(0, 3, cores, size).to(torch.uint8)
    grid = CoreGrid(SIDE, SIDE + 1, places, types, connections, neurons, OutputBus(0, SIDE, size))
    line = torch.arange(SIDE * size)
    inputs = InputLines(len(line), line, line // size, line % size, torch.ones_like(line))
    return Case(grid, inputs, draw(0, 9, images, ticks, len(line)) == 0)


def case_of(name: str, options: Options, folder: Path, pixels: Tensor) -> Case:
    """One of the four."""
    if name == "full":
        return full(256, 4)
    if name == "tiled":
        grid, inputs = tiled(*tea_256(folder), (SIDE * SIDE) // 5)
        return Case(grid, inputs, pixels[:512].view(256, 2, 784))
    grid, inputs = tea_256(folder, SIDE if name == "large" else None)
    return Case(grid, inputs, pixels[: options.images * 3].view(-1, 3, 784), ranc=True)


def plain_numpy(grid: CoreGrid, pixels: np.ndarray) -> Callable[[], np.ndarray]:
    """tea/256 as two products of matrices for all images: a few lines, which know the network."""
    places = grid.places()
    signs = np.where(grid.axon_types.numpy() % 2 == 0, 1.0, -1.0).astype(np.float32)
    weights = signs[:, None] * grid.connections.numpy()
    first = [int(places[0, x]) for x in range(4)]
    last = int(places[1, 0])
    leak = grid.neurons.leak.numpy()

    def run() -> np.ndarray:
        hidden = [
            pixels[:, start : start + 256] @ weights[core, :64].T + leak[core, :64] >= 0
            for start, core in zip(SLICES, first, strict=True)
        ]
        return np.concatenate(hidden, 1).astype(np.float32) @ weights[last, :250].T + leak[last, :250] >= 0

    return run


def ranc_turn(program: Path, case: Case, ticks: int, folder: Path) -> Callable[[], float]:
    """Image-ticks a second of RANC's emulator in a turn, without its start."""
    flat = case.spikes.flatten(0, 1)[None, :ticks]
    write_ranc(RancNetwork.given(case.grid, case.inputs, flat), folder / "input.json", folder / "config.json")

    def seconds(count: int) -> float:
        words: list[Any] = [
            program,
            "-i",
            folder / "input.json",
            "-o",
            folder / "out.txt",
            "-c",
            folder / "config.json",
        ]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        words += ["--ticks", count, "-r", 10**6]
        subprocess.run([str(word) for word in words], check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    return lambda: (ticks - 1) / (seconds(ticks) - seconds(1))


def rate(run: Callable[[], Any], work: int) -> Callable[[], float]:
    """Image-ticks a second in a turn, by this thread's CPU time."""

    def turn() -> float:
        start = time.thread_time()
        run()
        return work / (time.thread_time() - start)

    return turn


def measured(name: str, options: Options) -> dict[str, Any]:
    """All contestants of a case in turns; in a process of its own, whose memory is then the case's."""
    pixels = load(DatasetName.MNIST, options.data_dir).test.images.flatten(1) > 127
    data = options.data_dir or Path(os.environ["SPOKESHAVE_DATA"])
    torch.set_num_threads(1)
    case = case_of(name, options, data / "ranc" / "tea_256", pixels)
    work = case.spikes.shape[0] * case.spikes.shape[1]
    planes = SpikeSimulator(case.grid, case.inputs, Engine.BIT_PLANES)
    turns = {"bit planes": rate(lambda: planes.run(case.spikes), work)}
    if name in ("small", "large"):
        products, few = SpikeSimulator(case.grid, case.inputs, Engine.TORCH), case.spikes[:256]
        turns["torch"] = rate(lambda: products.run(few), few.shape[0] * few.shape[1])
        wanted = products.run(few).outputs
        assert torch.equal(planes.run(few).outputs, wanted)
    if name == "small":
        batch = case.spikes.flatten(0, 1)[:2560].float().numpy()
        turns["plain numpy"] = rate(plain_numpy(case.grid, batch), len(batch))
    with tempfile.TemporaryDirectory() as made:
        if options.ranc_sim is not None and case.ranc:
            ticks = options.ranc_ticks if name == "small" else max(10, options.ranc_ticks // 10)
            turns["RANC"] = ranc_turn(options.ranc_sim, case, ticks, Path(made))
        for turn in turns.values():
            turn()
        rates = {contestant: [] for contestant in turns}
        for _ in range(options.rounds):
            for contestant, turn in turns.items():
                rates[contestant].append(turn())
    against = "RANC" if "RANC" in rates else None
    found = {}
    for contestant, values in rates.items():
        ratio = [a / b for a, b in zip(values, rates[against], strict=True)] if against else None
        found[contestant] = {
            "image_ticks_per_s": median(values), "values": values,
            "ratio": None if ratio is None else median_and_spread(ratio)[0],
            "ratio_spread": None if ratio is None else median_and_spread(ratio)[1],
        }  # fmt: skip
    return {
        "case": name, "cores": case.grid.cores, "grid": [case.grid.width, case.grid.height],
        "crosspoints": int(torch.count_nonzero(case.grid.connections)),
        "images": case.spikes.shape[0], "ticks": case.spikes.shape[1],
        "contestants": found, "peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }  # fmt: skip


def main(options: Options) -> None:
    """Measure case after case, the small ones first, and print."""
    console, began = Console(), time.perf_counter()
    table = Table(title="image-ticks a second, one thread", box=None, title_justify="left")
    for heading in ("case", "cores", "contestant", "image-ticks a second", "times RANC", "peak memory"):
        table.add_column(heading, justify="left" if heading in ("case", "contestant") else "right")
    cases = []
    for name in options.cases:
        with ProcessPoolExecutor(1, get_context("spawn")) as alone:
            found = alone.submit(measured, name, options).result()
        cases.append(found)
        for contestant, numbers in found["contestants"].items():
            times = "" if numbers["ratio"] is None else f"{numbers['ratio']:,.0f} +- {numbers['ratio_spread']:,.0f}"
            table.add_row(
                name, f"{found['cores']:,}", contestant, f"{numbers['image_ticks_per_s']:,.0f}", times,
                f"{found['peak_bytes'] / 2**30:.2f} GiB",
            )  # fmt: skip
    console.print(table)
    for found in cases:
        ratio = found["contestants"]["bit planes"]["ratio"]
        if ratio is not None:
            verdict = "met" if ratio >= WANTED else "missed"
            console.print(
                f"{found['case']}: at least {WANTED:.0f} times RANC's rate (aim {AIM:.0f}): {ratio:,.0f}: {verdict}",
                highlight=False,
            )
    if options.ledger:
        config = {"images": options.images, "ranc_ticks": options.ranc_ticks, "rounds": options.rounds, "threads": 1}
        path = write_row(
            "benchmarks", "spike-simulation", config, {"cases": cases}, seeds=[0], wall_s=time.perf_counter() - began,
            command="python benchmarks/spike_simulation.py --ranc-sim ranc_sim", directory=options.ledger,
        )  # fmt: skip
        console.print(f"row: {path}", highlight=False)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
