"""Adaptation on fixed features of Office-Caltech10: shallow baselines, and a head trained with and without the target.

    python benchmarks/fixed_features.py        # --ledger results writes a row

SURF histograms of all four domains (12 tasks) and GoogLeNet's last features of three (6 tasks), each column
standardized over its domain. Every task: the nearest neighbour, a linear support vector machine, both after correlation
alignment, and for each seed a head of one hidden layer, trained on the source alone and with the default terms of
adaptation; its answers are those of the last step. Accuracies are of the whole target, whose labels nothing has seen.
"""

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import torch
import tyro
from adaptation_tables import percent
from rich.console import Console
from rich.table import Table

from spokeshave.adaptation.adaptation_objective import SOURCE_ONLY
from spokeshave.adaptation.feature_adaptation import HeadTraining, adapt_features
from spokeshave.adaptation.shallow_baselines import correlation_aligned, linear_svm, nearest_neighbour
from spokeshave.data.office_features import FeatureKind, Features, read_office_features, standardized
from spokeshave.ledger import write_row
from spokeshave.processes import usable_cores
from spokeshave.run_output import command_line
from spokeshave.worker_processes import do_in_processes

DOMAINS = {
    FeatureKind.SURF: ("amazon", "caltech10", "dslr", "webcam"),
    FeatureKind.GOOGLENET: ("amazon", "dslr", "webcam"),
}
WAYS = ("1-NN", "CORAL, 1-NN", "SVM", "CORAL, SVM", "head, source only", "head, adapted")


@dataclass(frozen=True)
class Options:
    """What to measure."""

    kinds: tuple[FeatureKind, ...] = tuple(FeatureKind)
    """Features."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the heads."""
    steps: int = HeadTraining().steps
    """Of their trainings."""
    workers: int = 0
    """Processes that measure side by side; one a core by default."""
    data_dir: Path | None = None
    """Folder of the data; else SPOKESHAVE_DATA."""
    ledger: Path | None = None
    """Folder of the ledger; writes a row there."""


def domain(folder: Path, kind: FeatureKind, name: str) -> Features:
    """Features as all methods get them."""
    return standardized(read_office_features(folder, kind, name), histogram=kind is FeatureKind.SURF)


def measure(shared: tuple[Path, Options], job: tuple[FeatureKind, str, str], tell: Callable[[Any], None]) -> dict:
    """Accuracies of every way on one task: a list of one, or of one for each seed."""
    (folder, options), (kind, first, second) = shared, job
    source, target = domain(folder, kind, first), domain(folder, kind, second)
    aligned = correlation_aligned(source.rows, target.rows)

    def right(answers: torch.Tensor) -> float:
        return (answers == target.labels).double().mean().item()

    found = {
        "1-NN": [right(nearest_neighbour(source.rows, source.labels, target.rows))],
        "CORAL, 1-NN": [right(nearest_neighbour(aligned, source.labels, target.rows))],
        "SVM": [right(linear_svm(source.rows, source.labels, target.rows))],
        "CORAL, SVM": [right(linear_svm(aligned, source.labels, target.rows))],
    }
    training = HeadTraining(steps=options.steps)
    for way, terms in (("head, source only", SOURCE_ONLY), ("head, adapted", None)):
        found[way] = [
            right(adapt_features(source.rows, source.labels, target.rows, terms, training, seed).argmax(1))
            for seed in options.seeds
        ]
    return found


def table_of(kind: FeatureKind, found: dict[str, dict[str, list[float]]]) -> Table:
    """Accuracies task by task, and their means."""
    table = Table(title=f"{kind.value}: accuracy on the target, %", box=None, title_justify="left")
    table.add_column("task")
    for way in WAYS:
        table.add_column(way, justify="right")
    for task, ways in found.items():
        table.add_row(task, *(percent(ways[way]) for way in WAYS))
    table.add_row("mean", *(f"{100 * mean_of(found, way):.1f}" for way in WAYS))
    return table


def mean_of(found: dict[str, dict[str, list[float]]], way: str) -> float:
    """Over tasks, of the means over seeds."""
    return statistics.mean(statistics.mean(ways[way]) for ways in found.values())


def main(options: Options) -> None:
    """Measure, print, and write a row."""
    console, began = Console(highlight=False), time.perf_counter()
    folder = options.data_dir or os.environ.get("SPOKESHAVE_DATA")
    if not folder:
        raise SystemExit("no data: name its folder with --data-dir or SPOKESHAVE_DATA")
    jobs = [(kind, *pair) for kind in options.kinds for pair in permutations(DOMAINS[kind], 2)]
    names = [f"{kind.value}, {first} to {second}" for kind, first, second in jobs]
    shared = Path(folder) / "office-caltech10", options
    answers = do_in_processes(measure, shared, jobs, names, options.workers or usable_cores())
    results: dict[str, dict[str, dict[str, list[float]]]] = {kind.value: {} for kind in options.kinds}
    for (kind, first, second), found in zip(jobs, answers, strict=True):
        results[kind.value][f"{first} to {second}"] = found
    for kind in options.kinds:
        found = results[kind.value]
        console.print(table_of(kind, found))
        best = max(WAYS[:-1], key=lambda way: mean_of(found, way))
        above = mean_of(found, "head, adapted") - mean_of(found, best)
        console.print(f"{kind.value}: the adapted head is {100 * above:+.1f} points beside the best other, {best}")
    if options.ledger:
        config = {"steps": options.steps, "training": str(HeadTraining(steps=options.steps))}
        path = write_row(
            "benchmarks", "fixed-features", config, results, seeds=list(options.seeds),
            command=command_line(["python", "benchmarks/fixed_features.py"], options), directory=options.ledger,
            wall_s=time.perf_counter() - began,
        )  # fmt: skip
        console.print(f"row: {path}")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
