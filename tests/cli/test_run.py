import enum
from dataclasses import dataclass
from pathlib import Path

import pytest

from spokeshave.cli.list_recipes import load_recipe, recipe_names
from spokeshave.cli.main import main
from spokeshave.cli.run import parse


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Config:
    rate: float = 0.5
    """Steps a second."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of the runs."""
    run_dir: Path | None = None
    """Where to write."""
    colour: Colour = Colour.RED
    """Which one."""


def test_options_become_a_typed_config() -> None:
    words = ["--rate", "2", "--seeds", "1", "2", "--run-dir", "runs/a", "--colour", "blue"]
    config = parse(Config, words, prog="p", about="")
    assert config == Config(rate=2.0, seeds=(1, 2), run_dir=Path("runs/a"), colour=Colour.BLUE)
    assert parse(Config, [], prog="p", about="") == Config()


def test_wrong_option_leaves_with_2_and_names_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        parse(Config, ["--rat", "2"], prog="p", about="")
    assert leaving.value.code == 2
    assert "--rat" in "".join(capsys.readouterr())


@pytest.mark.parametrize("name", recipe_names())
def test_help_of_a_recipe_documents_every_option(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    import dataclasses

    with pytest.raises(SystemExit) as leaving:
        main(["run", name, "--help"])
    assert leaving.value.code == 0
    shown = capsys.readouterr().out
    fields = dataclasses.fields(load_recipe(name).Config)
    assert len(fields) >= 5
    for field in fields:
        assert field.name.replace("_", "-") in shown


def test_run_without_a_recipe_names_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run"]) == 2
    assert "ssl" in capsys.readouterr().err
    assert main(["run", "--help"]) == 0
    assert "ssl" in capsys.readouterr().out


def test_unknown_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "slss"]) == 2
    assert "no recipe is called 'slss'" in capsys.readouterr().err
