"""All tasks of Office-Caltech10, network by network: rows of recipe `adaptation` in one process.

    python benchmarks/office_tasks.py --ledger results      # --networks compact squeezenet

Each network is pretrained once, on the same images for as long, and the images of the pretraining are decoded once for
all tasks. A task whose run is finished is left as it is, an interrupted one goes on: give the same command again.
"""

import gc
import json
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console

from spokeshave.recipes.adaptation import Config, Row, run
from spokeshave.recipes.adaptation_arms import ArmName
from spokeshave.recipes.adaptation_forms import Form, strength_of
from spokeshave.recipes.adaptation_rows import ROWS, NetworkName
from spokeshave.run_output import RECORD_FILE

TASKS = tuple(row for row in Row if ROWS[row.value]().pretraining is not None)


@dataclass(frozen=True)
class Options:
    """What to adapt."""

    networks: tuple[NetworkName, ...] = (
        NetworkName.COMPACT, NetworkName.GOOGLENET, NetworkName.SQUEEZENET, NetworkName.ALEXNET,
    )  # fmt: skip
    """One after the other."""
    tasks: tuple[Row, ...] = TASKS
    """Source and target."""
    form: Form = Form.DENSE
    """Adapt the networks as they are, or compressed first."""
    recovery_epochs: int = 0
    """Of going on with the pretraining after the compression; one of a compressed network if none are given."""
    arms: tuple[ArmName, ...] = (ArmName.FULL,)
    """What is compared with training on the source alone."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the layers that are new, and of batches."""
    workers: int = 0
    """Processes that train side by side; one a core by default."""
    data_dir: Path | None = None
    """Folder of the data; else SPOKESHAVE_DATA."""
    run_dir: Path = Path("runs")
    """Folder of the runs, a folder a task and network in it."""
    ledger: Path | None = None
    """Folder of the ledger; writes a row a task and network there."""


def main(options: Options) -> None:
    """Run what is not finished."""
    console = Console(highlight=False)
    for network in options.networks:
        for task in options.tasks:
            form = [] if options.form is Form.DENSE else [options.form.value]
            longer = ["longer"] if options.recovery_epochs and not form else []
            run_dir = options.run_dir / "-".join(["adaptation", task.value, network.value, *form, *longer])
            if _finished(run_dir, options.ledger, strength_of(options.form)):
                console.print(f"{run_dir}: finished before")
                continue
            config = Config(
                row=task, network=network, form=options.form, recovery_epochs=options.recovery_epochs,
                arms=options.arms, seeds=options.seeds, workers=options.workers,
                data_dir=options.data_dir, run_dir=run_dir, ledger=options.ledger, resume=run_dir.exists(),
            )  # fmt: skip
            run(config)
            gc.collect()  # traced networks refer to themselves: else those of many tasks stay in memory


def _finished(run_dir: Path, ledger: Path | None, strength: float) -> bool:
    """Whether a run has its record, and its row where one is asked for: a changed tree or a kill comes between.

    A run whose form was made by another strength is none.
    """
    record = run_dir / RECORD_FILE
    if not record.exists():
        return False
    found = json.loads(record.read_text())
    if strength and found["config"].get("by") != strength:
        return False
    return ledger is None or (ledger / "adaptation" / f"{found['row']}.json").exists()


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__, config=(tyro.conf.EnumChoicesFromValues,)))
