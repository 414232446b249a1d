"""Conv-M's branches at equal parameters: the same small compact network with other kinds of branches, on CIFAR-10.

    python benchmarks/conv_m_ablation.py        # --ledger results writes a row

Three branches in each variant, and each kind of branch has as many parameters. All variants see the same batches for
as long. Accuracy is that of the test images after the last step; of validation images it is printed beside it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from adaptation_tables import percent
from rich.console import Console
from rich.table import Table

from spokeshave.data import Augmentation, Batches, DatasetName, Normalization, Splits, load
from spokeshave.evaluation import evaluate
from spokeshave.ledger import write_row
from spokeshave.models import CompactNet
from spokeshave.models.conv_m import Branch
from spokeshave.processes import usable_cores
from spokeshave.run_output import command_line
from spokeshave.train_settings import TrainSettings
from spokeshave.training import train
from spokeshave.worker_processes import do_in_processes

VARIANTS = {
    "convolutions": (Branch.CONV, Branch.CONV, Branch.CONV),
    "and dilated": (Branch.CONV, Branch.CONV, Branch.DILATED),
    "and deconvolution, stride 1": (Branch.CONV, Branch.DILATED, Branch.DECONV_STRIDE_1),
    "and deconvolution, stride 2": (Branch.CONV, Branch.DILATED, Branch.DECONV),
}
STAGES = ((16, 32, 1), (36, 60, 1), (64, 80, 1))
"""Half of the compact network's widths, a module a stage, without its last stage: what two cores train in minutes."""
VALIDATION, BATCH_SIZE = 5000, 128


@dataclass(frozen=True)
class Options:
    """What to measure."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Of weights and batches."""
    epochs: int = 6
    """Of every training."""
    workers: int = 0
    """Processes that train side by side; one a core by default."""
    run_dir: Path = Path("runs/conv-m-ablation")
    """Folder of the checkpoints; the same command goes on where it was interrupted."""
    data_dir: Path | None = None
    """Folder of the data; else SPOKESHAVE_DATA."""
    ledger: Path | None = None
    """Folder of the ledger; writes a row there."""


def network(branches: tuple[Branch, ...], classes: int) -> CompactNet:
    """A variant; its stem halves images of 32 pixels once, by pooling."""
    return CompactNet(classes, 64, branches, dropout=0.1, stages=STAGES)


def accuracies(
    shared: tuple[Splits, Options], job: tuple[str, int], tell: Callable[[Any], None]
) -> tuple[float, float, float]:
    """Accuracy of a variant on validation and on test images, and seconds of its training."""
    (splits, options), (variant, seed) = shared, job
    training, held_out = splits.hold_out(min(VALIDATION, len(splits.train) // 5), seed=0)
    normalize = Normalization.per_channel(training)
    torch.manual_seed(seed)
    model = network(VARIANTS[variant], len(splits.classes))
    settings = TrainSettings(epochs=options.epochs, learning_rate=0.1, warmup_epochs=0.5, channels_last=True, seed=seed)
    size = min(BATCH_SIZE, len(training))
    batches = Batches(
        training, size, seed, normalize, Augmentation(pad=4, flip=True), drop_last=True, channels_last=True
    )
    validation, test = (Batches(part, 500, 0, normalize, channels_last=True) for part in (held_out, splits.test))
    folder = options.run_dir / f"{variant.replace(',', '').replace(' ', '-')}-seed-{seed}"
    label = f"{variant} (seed {seed})"
    history = train(model, batches, validation, settings, run_dir=folder, resume=True, label=label)
    return evaluate(model, validation).accuracy, evaluate(model, test).accuracy, history.rows[-1]["wall_s"]


def main(options: Options) -> None:
    """Measure, print, and write a row."""
    console = Console(highlight=False)
    splits = load(DatasetName.CIFAR10, options.data_dir)
    jobs = [(variant, seed) for seed in options.seeds for variant in VARIANTS]
    names = [f"{variant} (seed {seed})" for variant, seed in jobs]
    found = do_in_processes(accuracies, (splits, options), jobs, names, options.workers or usable_cores())
    table = Table(title="Conv-M at equal parameters, CIFAR-10: accuracy, %", box=None, title_justify="left")
    for name in ("branches", "parameters", "validation", "test"):
        table.add_column(name, justify="left" if name == "branches" else "right")
    numbers: dict[str, dict[str, Any]] = {}
    for variant, branches in VARIANTS.items():
        own = [answer for (name, _), answer in zip(jobs, found, strict=True) if name == variant]
        size = sum(one.numel() for one in network(branches, len(splits.classes)).parameters())
        held_out, test = ([answer[place] for answer in own] for place in (0, 1))
        numbers[variant] = {"parameters": size, "validation": held_out, "test": test}
        table.add_row(variant, f"{size:,}", percent(held_out), percent(test))
    console.print(table)
    if options.ledger:
        config = {"epochs": options.epochs, "stages": STAGES, "batch_size": BATCH_SIZE, "data": splits.name}
        path = write_row(
            "benchmarks", "conv-m-ablation", config, numbers, seeds=list(options.seeds),
            wall_s=sum(seconds for _, _, seconds in found), directory=options.ledger,
            command=command_line(["python", "benchmarks/conv_m_ablation.py"], options),
        )  # fmt: skip
        console.print(f"row: {path}")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
