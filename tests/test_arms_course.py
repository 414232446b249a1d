"""What recipes of arms share: the order of their options, and what is refused before any work."""

from dataclasses import dataclass, fields, replace
from enum import Enum
from pathlib import Path

import pytest

from spokeshave.arms_course import ArmsOptions, FirstArmsOptions, do_side_by_side, open_course
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


def _mark(folder: Path, name: str, tell: object) -> None:
    (folder / name).write_text("done")


def test_jobs_go_side_by_side_only_where_nothing_else_shares_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [(name, name) for name in ("first", "second")]
    config = Config()
    for changed in ({"smoke": True}, {"device": "cuda"}):
        assert not do_side_by_side(replace(config, **changed), 2, _mark, tmp_path, jobs)
    assert not do_side_by_side(config, 1, _mark, tmp_path, jobs)
    with monkeypatch.context() as torchrun:
        torchrun.setenv("WORLD_SIZE", "2")
        assert not do_side_by_side(config, 2, _mark, tmp_path, jobs)
    assert not list(tmp_path.iterdir())
    assert do_side_by_side(config, 2, _mark, tmp_path, jobs)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "second"]
