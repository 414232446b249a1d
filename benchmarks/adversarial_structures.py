"""The structures of MAT: how fast members train in processes, and how much memory mixed MAT takes.

    python benchmarks/adversarial_structures.py        # --ledger results writes a row

Speed: four SmallCNNs, each trained adversarially at its own strength (FGSM with a random start), one after the other
with all threads and with the number of threads that is fastest, in processes, and as one stacked network. All take
turns; seconds of wall time, from the call of `fit` to its end, so with the start of processes. A member trains for as
many steps as take `member_s` seconds in turn. Images are random: time does not depend on what they show. This process
keeps the memory that steps free, as the commands and the processes of members do.
Memory: one network, trained on clean images, at one strength and on all, each in a fresh process: bytes of weights,
momentum and the largest sum of tensors alive in a step, counted at torch's allocator, and the peak of resident memory
above what it was before the first step. A step sees 128 images; those trained adversarially see them clean and
attacked, so the plain network is measured with 128 and with 256.
"""

import contextlib
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from spokeshave.data import Batches, Split
from spokeshave.large_blocks import keep_large_blocks
from spokeshave.ledger import write_row
from spokeshave.models import SmallCNN
from spokeshave.parallel_training import ParallelMAT, Together
from spokeshave.processes import usable_cores
from spokeshave.threats.multi_strength import Drawing, MixedMAT
from spokeshave.timing import median_and_spread, using_threads
from spokeshave.train_settings import TrainSettings, make_optimizer
from spokeshave.worker_processes import do_in_processes

STRENGTHS = {"mnist": (0.05, 0.1, 0.2, 0.3), "cifar10": (2 / 255, 4 / 255, 8 / 255, 12 / 255)}
SHAPES = {"mnist": (1, 28), "cifar10": (3, 32)}
FASTER, MEMORY = 1.3, 1.1
_TRIAL_STEPS = 50
_IMAGES = 4096


@dataclass(frozen=True)
class Options:
    """What to measure."""

    networks: tuple[str, ...] = ("mnist", "cifar10")
    """Shapes of images."""
    member_s: float = 60.0
    """How long a member trains, in turn with all threads."""
    rounds: int = 3
    """Turns of each contestant."""
    batch_size: int = 128
    """Images a step."""
    speed: bool = True
    """Measure speed."""
    memory: bool = True
    """Measure memory."""
    ledger: Path | None = None
    """Folder of the ledger; writes a row there."""


def network_of(kind: str) -> SmallCNN:
    """An untrained network for images of a kind."""
    channels, size = SHAPES[kind]
    return SmallCNN(channels, size)


def random_images(kind: str, images: int) -> Split:
    """Images of noise."""
    channels, size = SHAPES[kind]
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (images, channels, size, size), dtype=torch.uint8, generator=generator)
    return Split(pixels, torch.randint(0, 10, (images,), generator=generator))


def fit(kind: str, together: Together, steps: int, batch_size: int, threads: int) -> float:
    """Seconds that training the members takes."""
    batches = Batches(random_images(kind, _IMAGES), batch_size)
    validation = Batches(random_images(kind, 256), 256)
    mat = ParallelMAT(lambda: network_of(kind), STRENGTHS[kind], together=together)
    settings = TrainSettings(steps=steps, learning_rate=0.01)
    # What it prints, an epoch a line, is of no interest here.
    with using_threads(threads), open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        started = time.perf_counter()
        mat.fit(batches, validation, settings)
        return time.perf_counter() - started


def nothing(shared: object, job: object, say: Callable[[Any], None]) -> None:
    """What processes do whose start is timed."""


def speeds(kind: str, options: Options) -> dict[str, Any]:
    """All ways of training members, in turns."""
    cores = usable_cores()
    fit(kind, Together.IN_TURN, 2, options.batch_size, cores)
    trial = {
        threads: fit(kind, Together.IN_TURN, _TRIAL_STEPS, options.batch_size, threads)
        for threads in range(1, cores + 1)
    }
    members = len(STRENGTHS[kind])
    steps = max(_TRIAL_STEPS, round(_TRIAL_STEPS * options.member_s * members / trial[cores]))
    best = min(trial, key=lambda threads: trial[threads])
    contestants: dict[str, tuple[Together, int]] = {f"in turn, {cores} threads": (Together.IN_TURN, cores)}
    contestants[f"in turn, {best} threads"] = (Together.IN_TURN, best)
    contestants["in processes"] = (Together.PROCESSES, cores)
    contestants["as one stacked network"] = (Together.BATCHED, cores)
    times: dict[str, list[float]] = {name: [] for name in contestants}
    starts = []
    for number in range(options.rounds):
        order = list(contestants) if number % 2 == 0 else list(reversed(contestants))
        for name in order:
            together, threads = contestants[name]
            times[name].append(fit(kind, together, steps, options.batch_size, threads))
        began = time.perf_counter()
        do_in_processes(nothing, None, [None] * cores, ["nothing"] * cores, cores)
        starts.append(time.perf_counter() - began)
    in_turn = [min(both) for both in zip(*(times[name] for name in contestants if "turn" in name), strict=True)]
    found = {}
    for name, values in times.items():
        ratio, spread = median_and_spread([one / own for one, own in zip(in_turn, values, strict=True)])
        seconds, _ = median_and_spread(values)
        found[name] = {"seconds": seconds, "values": values, "times_faster": ratio, "spread": spread}
    return {
        "network": kind, "members": members, "cores": cores, "steps": steps, "best_threads": best,
        "start_s": median_and_spread(starts)[0], "contestants": found,
    }  # fmt: skip


def high_water() -> int:
    """Largest resident memory of this process since it was last reset, in bytes."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


def alive_at_most(step: Callable[[], None]) -> int:
    """Largest sum of bytes that a call has from torch's allocator at a time."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        step()
    assert seen.profiler is not None and seen.profiler.kineto_results is not None
    events: list[Any] = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


def memory_of(kind: str, arm: str, batch_size: int) -> dict[str, int]:
    """Bytes that training a network takes; in a process of its own."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    split = random_images(kind, _IMAGES)
    network = network_of(kind)
    batches = Batches(split, batch_size * (2 if arm == "plain, as many images" else 1))
    strengths = STRENGTHS[kind]
    mats = {
        "one strength": lambda: MixedMAT(network, strengths[-1:], guard=None),
        "mixed": lambda: MixedMAT(network, strengths, guard=None),
        "mixed, every strength": lambda: MixedMAT(network, strengths, drawing=Drawing.ALL, guard=None),
    }
    mat = mats[arm]() if arm in mats else None
    optimizer = make_optimizer(network, TrainSettings(learning_rate=0.01))

    def step(number: int) -> None:
        images, labels = batches.batch(0, number)
        if mat is not None:
            images, labels = mat.transform(number, images, labels)
        network.train()
        optimizer.zero_grad()
        functional.cross_entropy(network(images), labels).backward()
        optimizer.step()

    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of importing and of making the data
    before = high_water()
    for number in range(8):
        step(number)
    resident = high_water() - before
    optimizer.zero_grad()
    peak = alive_at_most(lambda: step(8))
    # Weights and momentum; gradients are made in the step.
    lasting = sum(2 * parameter.nbytes for parameter in network.parameters())
    return {"tensor_bytes": lasting + peak, "resident_bytes": resident}


ARMS = ("plain", "plain, as many images", "one strength", "mixed", "mixed, every strength")


def memories(kind: str, options: Options) -> dict[str, dict[str, int]]:
    """Bytes of every arm."""
    found = {}
    for arm in ARMS:
        with ProcessPoolExecutor(1, get_context("spawn")) as alone:
            found[arm] = alone.submit(memory_of, kind, arm, options.batch_size).result()
    return found


def speed_table(found: dict[str, Any]) -> Table:
    """Seconds of every contestant."""
    table = Table(
        title=f"{found['network']}: {found['members']} members, {found['steps']} steps each, {found['cores']} cores; "
        f"processes start in {found['start_s']:.1f} s",
        box=None,
        title_justify="left",
    )
    for heading in ("members", "seconds", "times faster than the faster of both in turn"):
        table.add_column(heading, justify="left" if heading == "members" else "right")
    for name, numbers in found["contestants"].items():
        table.add_row(name, f"{numbers['seconds']:.1f}", f"{numbers['times_faster']:.2f} +- {numbers['spread']:.2f}")
    return table


def memory_table(kind: str, found: dict[str, dict[str, int]]) -> Table:
    """Bytes of every arm."""
    table = Table(title=f"{kind}: memory of training one network", box=None, title_justify="left")
    for heading in ("trained", "tensors, MiB", "of one strength", "resident, MiB"):
        table.add_column(heading, justify="left" if heading == "trained" else "right")
    one = found["one strength"]["tensor_bytes"]
    for arm, numbers in found.items():
        table.add_row(
            arm, f"{numbers['tensor_bytes'] / 2**20:.2f}", f"{numbers['tensor_bytes'] / one:.3f}",
            f"{numbers['resident_bytes'] / 2**20:.1f}",
        )  # fmt: skip
    return table


def verdict(met: bool) -> str:
    """In a word."""
    return "met" if met else "missed"


def main(options: Options) -> None:
    """Measure, print, and write a row."""
    console, began = Console(highlight=False), time.perf_counter()
    keep_large_blocks()
    results: dict[str, Any] = {"speed": [], "memory": {}}
    for kind in options.networks:
        if options.memory:
            found = memories(kind, options)
            results["memory"][kind] = found
            console.print(memory_table(kind, found))
            for other in ("one strength", "plain, as many images"):
                times = found["mixed"]["tensor_bytes"] / found[other]["tensor_bytes"]
                console.print(
                    f"{kind}: mixed takes at most {MEMORY} times the memory of {other}: {times:.3f}: "
                    f"{verdict(times <= MEMORY)}"
                )
        if options.speed:
            timed = speeds(kind, options)
            results["speed"].append(timed)
            console.print(speed_table(timed))
            times = timed["contestants"]["in processes"]["times_faster"]
            console.print(f"{kind}: processes at least {FASTER} times faster: {times:.2f}: {verdict(times >= FASTER)}")
    if options.ledger:
        config = {"member_s": options.member_s, "rounds": options.rounds, "batch_size": options.batch_size}
        path = write_row(
            "benchmarks", "adversarial-structures", config, results, seeds=[0], wall_s=time.perf_counter() - began,
            command="python benchmarks/adversarial_structures.py", directory=options.ledger,
        )  # fmt: skip
        console.print(f"row: {path}")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
