"""The options that recipes share and the walk of a row: order of options, lengths of stages, what is written."""

from dataclasses import dataclass, fields
from enum import Enum

import pytest
import torch

from small_road import PLAN, few_digits
from spokeshave import road
from spokeshave.data import DatasetName, load
from spokeshave.errors import CheckpointError, InvalidArgument
from spokeshave.report.run_record import RunRecord
from spokeshave.road import FirstOptions, RoadOptions, plan_with, small_digits, walk_row


class Row(Enum):
    TINY = "tiny-1"


@dataclass(frozen=True)
class Second(FirstOptions):
    own_epochs: int = 0


@dataclass(frozen=True)
class Config(RoadOptions, Second):
    row: Row = Row.TINY
    control: bool = True


def test_a_recipes_own_option_stands_between_those_that_it_shares_and_its_defaults_win():
    names = [item.name for item in fields(Config)]
    assert names == [item.name for item in fields(Second)] + [n for n in names if n not in Second.__annotations__][7:]
    assert names.index("baseline_epochs") + 1 == names.index("own_epochs") == names.index("finetune_epochs") - 1
    assert names[0] == "row" and Config().row is Row.TINY and Config().control


def test_lengths_are_the_rows_own_where_none_is_asked_for():
    config = Config(baseline_epochs=7, checkpoint_every=3, strength=0.5)
    asked = []
    plan, name = plan_with(config, 0, lambda strength: asked.append(strength) or (PLAN, DatasetName.MNIST))
    assert asked == [0.5] and name is DatasetName.MNIST
    assert [stage.epochs for stage in plan.stages.values()] == [7, PLAN.ssl.epochs, PLAN.finetune.epochs]
    assert {stage.checkpoint_every for stage in plan.stages.values()} == {3}
    plan, _ = plan_with(Config(baseline_epochs=7, smoke=True), 5, lambda _: (PLAN, DatasetName.MNIST))
    assert {stage.epochs for stage in plan.stages.values()} == {1}


@pytest.mark.parametrize(
    ("config", "second"),
    [(Config(strength=float("nan")), 0), (Config(strength=-1.0), 0), (Config(), -1), (Config(seeds=()), 0)],
)
def test_bad_options_are_refused(config, second):
    with pytest.raises(InvalidArgument, match="--strength of at least 0"):
        plan_with(config, second, lambda _: (PLAN, DatasetName.DIGITS))


def test_the_digits_take_the_form_of_the_rows_data():
    grey, colour = small_digits(DatasetName.MNIST).train.images, small_digits(DatasetName.CIFAR10).train.images
    assert grey.shape == (256, 1, 28, 28) and colour.shape == (256, 3, 32, 32)
    assert all(torch.equal(colour[:, channel, 2:-2, 2:-2], grey[:, 0]) for channel in range(3))
    assert torch.equal(grey, load(DatasetName.DIGITS).train.images[:256])


def test_a_walk_writes_its_record_and_is_not_written_over(tmp_path, monkeypatch):
    monkeypatch.setattr(road, "load", lambda name, folder: few_digits())
    monkeypatch.chdir(tmp_path)
    config = Config(seeds=(0, 1), control=False)
    plan = plan_with(config, 0, lambda _: (PLAN, DatasetName.DIGITS))
    given = walk_row(config, "tiny", "Tiny", "of-mine", lambda: plan, {"label": "paper"})
    record = RunRecord.load(tmp_path / "runs" / "of-mine")
    assert (record.recipe, record.row, record.seeds) == ("tiny", "tiny-1", [0, 1])
    assert record.title == "Tiny: tiny-1 on digits" and record.paper == {"label": "paper"}
    assert record.command == "spokeshave run tiny --seeds 0 1 --no-control"
    assert list(record.config["stages"]) == ["baseline", "ssl", "finetune"] and record.config["row"] == "tiny-1"
    assert given["final"]["error"] == record.final.error and not list(tmp_path.rglob("sparse.safetensors"))
    with pytest.raises(CheckpointError, match="already holds a finished run"):
        walk_row(config, "tiny", "Tiny", "of-mine", lambda: pytest.fail("asked for a plan"))
