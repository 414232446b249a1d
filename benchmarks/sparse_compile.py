"""How long AlexNet takes to compile, and how much memory it then needs.

    python benchmarks/sparse_compile.py    # on Linux, where a process can read what memory it holds

Every measurement is a process of its own, which has imported everything and built the network before its clock starts:
first with an empty cache (the machine's rates, the tilings and the code are all found anew), then with what that left
there. Memory is what the process holds, beside mapped files, after calls of the network, less what it held before
`to_sparse`, against the weights (a float and a position of four bytes for each nonzero) and the two largest
activations of the larger batch.
"""

import ctypes
import gc
import json
import os
import random
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch
import tyro
from rich.console import Console
from rich.table import Table
from sparse_conv_bars import Bar
from sparse_networks import LINEAR_DENSITY, prune
from torch import nn

from spokeshave import to_sparse
from spokeshave.data.skimcaffe import PublishedWeights
from spokeshave.jit.host_cpu import host_cpu
from spokeshave.ledger import write_row
from spokeshave.recipes.ssl_alexnet import sparse_alexnet
from spokeshave.user_cache import ENVIRONMENT

COLD_S, CACHED_S = 3.0, 0.3
MEMORY_TIMES = 1.5
BYTES_A_NONZERO = 8
SHAPE = (3, 227, 227)


@dataclass(frozen=True)
class Options:
    """What to measure."""

    data_dir: Path | None = None
    """Folder with skimcaffe-alexnet/; else SPOKESHAVE_DATA."""
    rounds: int = 5
    """Empty caches, and processes that find each filled."""
    batch_sizes: tuple[int, ...] = (1, 16)
    """Images in a batch, where memory is measured."""
    ledger: Path | None = None
    """Folder of the ledger; writes a row there."""
    once: bool = False
    """Compile once, in this process and with its own cache folder, and print what was measured as JSON."""


def held_bytes() -> int:
    """Memory of this process that comes from no file; what its heap has free is given back first."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/status") as status:
        return 1024 * int(re.search(r"RssAnon:\s+(\d+) kB", status.read())[1])  # type: ignore[index]


def needed_bytes(network: nn.Module, images: int) -> int:
    """Of the nonzeros, and of the two largest activations."""
    nonzeros = sum(int(torch.count_nonzero(p)) for name, p in network.named_parameters() if name.endswith("weight"))
    sizes: list[int] = [images * 3 * 227 * 227]
    hooks = [
        module.register_forward_hook(lambda _, given, result: sizes.append(images * result.numel()))
        for module in network.modules()
        if not list(module.children())
    ]
    network(torch.zeros(1, *SHAPE))
    for hook in hooks:
        hook.remove()
    return BYTES_A_NONZERO * nonzeros + 4 * sum(sorted(sizes)[-2:])


@torch.inference_mode()
def measure(options: Options) -> dict[str, float]:
    """Compile once, in this process."""
    torch.set_num_threads(1)
    network = prune(sparse_alexnet(PublishedWeights.L1, options.data_dir), nn.Linear, LINEAR_DENSITY)
    needed = needed_bytes(network, max(options.batch_sizes))
    x = torch.zeros(1, *SHAPE)
    before, wall, cpu = held_bytes(), time.perf_counter(), time.process_time()
    fast, _ = to_sparse(network, x)
    took = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
    for images in options.batch_sizes:
        fast(torch.zeros(images, *SHAPE))
    return took | {"memory": float(held_bytes() - before), "needed": float(needed)}


def in_a_process(options: Options, cache: Path, batch_sizes: tuple[int, ...]) -> dict[str, float]:
    """`measure` in a new process with a cache folder."""
    data = ["--data-dir", str(options.data_dir)] if options.data_dir else []
    sizes = ["--batch-sizes", *map(str, batch_sizes)]
    answer = subprocess.run(
        [sys.executable, __file__, "--once", *data, *sizes],
        env=os.environ | {ENVIRONMENT: str(cache)}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    if answer.returncode:
        raise SystemExit(f"a measuring process ended with status {answer.returncode}; what it said is above")
    return json.loads(answer.stdout.splitlines()[-1])


def main(options: Options) -> None:
    """Measure in processes of their own and print."""
    if options.once:
        print(json.dumps(measure(options)))
        return
    console, began = Console(), time.perf_counter()
    runs: dict[str, list[dict[str, float]]] = {"empty": [], "filled": []}
    for _ in range(options.rounds):
        with TemporaryDirectory() as folder:
            for kind in runs:
                runs[kind].append(in_a_process(options, Path(folder), options.batch_sizes))
    settings = [(images,) for images in options.batch_sizes] + [options.batch_sizes] * (len(options.batch_sizes) > 1)
    memory: dict[str, tuple[float, float]] = {}
    with TemporaryDirectory() as folder:
        in_a_process(options, Path(folder), options.batch_sizes)
        for sizes in random.sample(settings, len(settings)):
            found = in_a_process(options, Path(folder), sizes)
            memory[" and ".join(map(str, sizes))] = found["memory"], found["needed"]
    shown = Table(title=f"AlexNet, {host_cpu().name}, one thread", box=None, title_justify="left")
    for heading in ("cache", "wall, s: median", "fastest", "slowest", "CPU, s"):
        shown.add_column(heading, justify="right")
    for kind, found in runs.items():
        walls = [run["wall_s"] for run in found]
        said = [f"{took:.2f}" for took in (median(walls), min(walls), max(walls), median(r["cpu_s"] for r in found))]
        shown.add_row(kind, *said)
    console.print(shown)
    for sizes, (held, needed) in memory.items():
        console.print(
            f"memory after batches of {sizes}: {held / 1e6:.0f} MB, {held / needed:.2f} times the weights and the two "
            f"largest activations, {needed / 1e6:.0f} MB"
        )
    walls = {kind: median(run["wall_s"] for run in found) for kind, found in runs.items()}
    most = max(held / needed for held, needed in memory.values())
    bars = [
        Bar("seconds to compile, empty cache", COLD_S, walls["empty"], at_most=True),
        Bar("seconds to compile, filled cache", CACHED_S, walls["filled"], at_most=True),
        Bar("memory, times the weights and activations", MEMORY_TIMES, most, at_most=True),
    ]
    for bar in bars:
        console.print(f"{bar.what}: at most {bar.wanted:.2f}, measured {bar.got:.2f}: {bar.verdict}")
    if options.ledger is not None:
        numbers = {"runs": runs, "memory": memory, "bars": [vars(bar) | {"verdict": bar.verdict} for bar in bars]}
        write_row(
            "benchmarks", "sparse-compile", {"rounds": options.rounds, "batch_sizes": options.batch_sizes}, numbers,
            seeds=[0], wall_s=time.perf_counter() - began, directory=options.ledger,
            command=" ".join(["python", *sys.argv]),
        )  # fmt: skip


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
