"""What recipes of arms share: the order of their options, and what is refused before any work."""

from dataclasses import dataclass, fields
from enum import Enum
from pathlib import Path

import pytest

from spokeshave.arms_course import ArmsOptions, FirstArmsOptions, open_course
from spokeshave.errors import CheckpointError, InvalidArgument
from spokeshave.float_networks import lenet
from spokeshave.recipes import force, group_scissor, one_level


class Row(Enum):
    """Of a made-up recipe."""

    DEMO = "demo"


@dataclass(frozen=True)
class Own(FirstArmsOptions):
    """Its own option."""

    strength: float = 1.0


@dataclass(frozen=True)
class Config(ArmsOptions, Own):
    """All of them."""

    row: Row = Row.DEMO


def test_a_recipes_own_options_stand_between_the_others() -> None:
    first, last = ["row", "data", "data_dir", "run_dir", "seeds"], ["device", "resume", "ledger", "smoke"]
    assert [item.name for item in fields(Config)] == [*first, "strength", *last]
    for recipe in (force, group_scissor, one_level):
        names = [item.name for item in fields(recipe.Config)]
        assert names[:5] == first and names[-4:] == last and len(names) > 9 and recipe.Config().row.value == "demo"


def test_finished_runs_and_unusable_devices_are_refused_first(tmp_path: Path) -> None:
    course = open_course(Config(run_dir=tmp_path / "run", smoke=True), "made-up", lenet())
    assert course.run_dir == tmp_path / "run" and course.splits.name == "digits (smoke)"
    assert open_course(Config(smoke=True), "made-up", lenet()).run_dir == Path("runs/made-up-demo")
    with pytest.raises(InvalidArgument, match="device"):
        open_course(Config(smoke=True, device="nowhere"), "made-up", lenet())
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    with pytest.raises(CheckpointError, match="already holds a finished run"):
        open_course(Config(run_dir=tmp_path / "run", smoke=True), "made-up", lenet())
