"""The road on a small network, walked once for the tests of the walk and of what it writes."""

import time
from dataclasses import replace
from pathlib import Path

from torch import nn

from spokeshave.data import Split, Splits, load
from spokeshave.regularizers import GroupLasso
from spokeshave.report.run_record import RunRecord
from spokeshave.run_output import write_run
from spokeshave.shaping import Plan, Shaped
from spokeshave.structures.groups import GroupKind
from spokeshave.structures.truncation import Keep
from spokeshave.train_settings import TrainSettings

STAGE = TrainSettings(epochs=2, learning_rate=0.05)
PLAN = Plan(
    network=lambda: nn.Sequential(
        nn.Conv2d(1, 8, 5, stride=2), nn.ReLU(), nn.Dropout(0.1), nn.Flatten(), nn.Linear(8 * 144, 10)
    ),
    pull=lambda net: GroupLasso(net, filters=1e-3),
    baseline=STAGE,
    ssl=STAGE,
    finetune=STAGE,
    keeps=[Keep("0", GroupKind.FILTER, 5)],
    batch_size=50,
    validation=100,
    dropout=0.5,
)


def few_digits() -> Splits:
    """600 images of each split of the embedded digits."""
    digits = load("digits")
    few = [Split(split.images[:600], split.labels[:600]) for split in (digits.train, digits.test)]
    return replace(digits, train=few[0], test=few[1])


def record_of(shaped: tuple[Shaped, Path], splits: Splits, row: str = "tiny-1") -> RunRecord:
    result, run_dir = shaped
    run_dir = run_dir.parent / row
    started = time.perf_counter()
    return write_run([result], splits, run_dir, recipe="r", row=row, title="t", config={"a": 1}, started=started)
