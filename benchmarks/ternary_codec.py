"""What making and reading ternary codes costs, an element and a step, beside the same in torch, on one core.

    python benchmarks/ternary_codec.py    # writes results/benchmarks/ternary-codec.json with --ledger results

A step is all that one of N workers does to M gradients: statistics, codes drawn and packed, the server's sums of its
share, and the mean gradient from what comes back (all-gather at N = 2: both workers' codes are read; all-to-all from
three on). The peers do the same work with torch's own float32 operations and random numbers, written as fast as we
could: `eager`, and `compiled` by torch.compile. All take turns in one process; times are of this thread's CPU.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
import tyro
from rich.console import Console
from rich.table import Table
from sparse_conv_bars import Bar
from torch import Tensor

from spokeshave.communication.counter_random import stream_key
from spokeshave.communication.digit_packing import LANES, Pack, code_packing, packed_bytes, sum_packing
from spokeshave.communication.ternary_codes import decode_factors, local_scalers
from spokeshave.communication.ternary_loops import tile_rows
from spokeshave.communication.ternary_packing import GeneratedCodec, Place
from spokeshave.jit.host_cpu import host_cpu
from spokeshave.ledger import write_row
from spokeshave.timing import median_and_spread, using_threads

MOST_NS, LEAST_TIMES = 1.5, 8.0


@dataclass(frozen=True)
class Options:
    """What to measure."""

    elements: tuple[int, ...] = (1 << 20, 1 << 22, 1 << 24)
    """Gradients of the layer, each in turn."""
    workers: tuple[int, ...] = (2, 4, 8)
    """Numbers of workers."""
    rounds: int = 15
    """Turns of each contestant."""
    compiled: bool = True
    """Also time torch.compile, which takes a minute to begin."""
    ledger: Path | None = None
    """Folder of the ledger; writes a row there."""


def torch_step(gradient: Tensor, received: Tensor, returned: Tensor, workers: int) -> tuple[Tensor, Tensor, Tensor]:
    """The same in torch: codes of two bits, four contiguous quarters side by side in a byte; sums of four bits.

    (N = 8 would need five: torch gets off lightly there.)

    Returns:
        packed codes, packed sums of the server's share, mean gradient.
    """
    low, high = torch.aminmax(gradient)
    scaler = torch.minimum(torch.maximum(-low, high), 2.5 * torch.linalg.vector_norm(gradient) / len(gradient) ** 0.5)
    drawn = torch.rand_like(gradient) * scaler < gradient.abs()
    digits = (torch.sign(gradient) * drawn + 1).to(torch.uint8).view(4, -1)
    codes = digits[0] + digits[1] * 4 + digits[2] * 16 + digits[3] * 64
    if workers == 2:
        mean = (torch.stack(_added(received)).flatten().to(torch.float32) - workers) * (scaler / workers)
        return codes, codes, mean
    parts = _added(received)
    sums = torch.cat([parts[0] | parts[1] << 4, parts[2] | parts[3] << 4])
    mean = (torch.stack([returned & 15, returned >> 4]).flatten().to(torch.float32) - workers) * (scaler / workers)
    return codes, sums, mean


def _added(received: Tensor) -> list[Tensor]:
    """Sums over the workers of each of the four digits of a byte; row after row is faster than torch's sum."""
    sums = []
    for shift in (0, 2, 4, 6):
        total = (received[0] >> shift) & 3
        for row in received[1:]:
            total = total + ((row >> shift) & 3)
        sums.append(total)
    return sums


def spokeshave_step(gradient: Tensor, workers: int, pack: Pack) -> Callable[[], Tensor]:
    """Our step, on streams of the right sizes."""
    codec, codes, sums = GeneratedCodec(), code_packing(pack), sum_packing(pack, workers)
    place, keys, mean = [Place(0, len(gradient))], [stream_key(0, 0, 0, 0)], torch.empty_like(gradient)
    tile = tile_rows(codes, sums)
    rows = -(-packed_bytes(codes, len(gradient)) // codes.block_bytes * codes.digits // (workers * tile)) * tile
    share, packed = packed_bytes(codes, rows * LANES), packed_bytes(codes, workers * rows * LANES)
    sent = torch.zeros(packed, dtype=torch.uint8)
    returned = torch.zeros(packed_bytes(sums, workers * rows * LANES), dtype=torch.uint8)
    server = torch.zeros(packed_bytes(sums, rows * LANES), dtype=torch.uint8)

    def step() -> Tensor:
        scalers = local_scalers(codec.statistics([gradient], totals=False), 2.5)
        codec.encode([gradient], scalers, scalers, keys, codes, place, sent)
        factors = decode_factors(scalers, workers)
        if workers == 2:
            codec.decode([sent, sent], codes, workers, factors, place, [mean])
        else:
            codec.reduce(list(sent.view(workers, share)), codes, sums, server)
            codec.decode([returned], sums, workers, factors, place, [mean])
        return mean

    return step


def measure(elements: int, workers: int, options: Options) -> list[dict[str, float | str | int]]:
    """All contestants in turns."""
    gradient = torch.randn(elements, generator=torch.Generator().manual_seed(0))
    share = elements // 4 if workers == 2 else elements // 4 // workers
    received = torch.randint(0, 171, (workers, share), dtype=torch.uint8) & 0b10101010
    returned = torch.zeros(elements // 2, dtype=torch.uint8)
    contestants: dict[str, Callable[[], object]] = {
        f"spokeshave, {pack.value}": spokeshave_step(gradient, workers, pack) for pack in Pack
    }
    contestants["torch, eager"] = lambda: torch_step(gradient, received, returned, workers)
    if options.compiled:
        torch._dynamo.reset()
        compiled = torch.compile(torch_step, dynamic=False)
        contestants["torch, compiled"] = lambda: compiled(gradient, received, returned, workers)
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(options.rounds):
        for name, contestant in contestants.items():
            contestant()  # what the one before left in the caches, and has yet to be written, is not its fault
            start = time.thread_time()
            contestant()
            times[name].append((time.thread_time() - start) / elements * 1e9)
    peers = [name for name in times if name.startswith("torch")]
    best = min(peers, key=lambda name: median(times[name]))
    rows: list[dict[str, float | str | int]] = []
    for name, samples in times.items():
        took, spread = median_and_spread(samples)
        ratio, ratio_spread = median_and_spread([b / a for a, b in zip(samples, times[best], strict=True)])
        rows.append({
            "elements": elements, "workers": workers, "contestant": name, "ns": took, "ns_spread": spread,
            "ns_fastest": min(samples), "ratio": ratio, "ratio_spread": ratio_spread,
        })  # fmt: skip
    return rows


def main(options: Options) -> None:
    """Measure in turns and print."""
    console, began = Console(), time.perf_counter()
    sizes = [elements // 1024 * 1024 for elements in options.elements]
    rows: list[dict[str, float | str | int]] = []
    with using_threads(1), torch.inference_mode():
        for elements in sizes:
            for workers in options.workers:
                rows += measure(elements, workers, options)
    table = Table(title=f"{host_cpu().name}, one thread", box=None, title_justify="left")
    for heading in ("gradients", "workers", "contestant", "ns an element: median", "fastest", "best of torch takes"):
        table.add_column(heading, justify="left" if heading == "contestant" else "right")
    for row in rows:
        took = f"{row['ns']:.2f} +- {row['ns_spread']:.2f}"
        ratio = f"{row['ratio']:.1f} +- {row['ratio_spread']:.1f}x"
        table.add_row(
            f"{row['elements']:,}", str(row["workers"]), str(row["contestant"]), took, f"{row['ns_fastest']:.2f}", ratio
        )
    console.print(table)
    ours = [row for row in rows if row["contestant"] == f"spokeshave, {Pack.TWO_BIT.value}"]
    bars = [
        Bar("nanoseconds an element, two bits, slowest", MOST_NS, max(float(row["ns"]) for row in ours), at_most=True),
        Bar("times as fast as the best of torch, least", LEAST_TIMES, min(float(row["ratio"]) for row in ours)),
    ]
    for bar in bars:
        limit = "at most" if bar.at_most else "at least"
        console.print(f"{bar.what}: {limit} {bar.wanted:.1f}, measured {bar.got:.2f}: {bar.verdict}", highlight=False)
    if options.ledger:
        numbers = {"rows": rows, "cpu": host_cpu().name}
        settings = {"elements": sizes, "rounds": options.rounds, "workers": list(options.workers)}
        path = write_row(
            "benchmarks", "ternary-codec", settings, numbers, seeds=[0], wall_s=time.perf_counter() - began,
            command="python benchmarks/ternary_codec.py", directory=options.ledger,
        )  # fmt: skip
        console.print(f"row: {path}", highlight=False)


if __name__ == "__main__":
    main(tyro.cli(Options))
