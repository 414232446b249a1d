from dataclasses import dataclass
from types import ModuleType

import pytest

from spokeshave.cli.list_recipes import is_recipe, load_recipe, published_rows, recipe_names, show_value
from spokeshave.cli.main import main
from spokeshave.errors import InvalidArgument


@dataclass(frozen=True)
class Row:
    row: str
    error: float


def recipe(paper: object) -> ModuleType:
    module = ModuleType("recipe")
    module.PAPER = paper  # type: ignore[attr-defined]
    return module


def test_list_shows_every_recipe_and_its_rows(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    shown = capsys.readouterr().out
    assert "ssl" in recipe_names()
    for name in recipe_names():
        assert name in shown
        for row, _ in published_rows(load_recipe(name)):
            assert row in shown


def test_module_without_config_is_no_recipe() -> None:
    assert not is_recipe(recipe({}))


def test_unknown_recipe_names_the_close_one() -> None:
    with pytest.raises(InvalidArgument, match="did you mean ssl"):
        load_recipe("sssl")


def test_rows_of_a_mapping_of_dataclasses_and_of_a_sequence() -> None:
    assert published_rows(recipe({"a": {"error": 1.0}})) == [("a", {"error": 1.0})]
    assert published_rows(recipe((Row("b", 2.0), {"name": "c", "x": 1}))) == [("b", {"error": 2.0}), ("c", {"x": 1})]


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), ((5, 19), "5-19"), (0.5, "0.5"), ("x", "x"), ({"a": (1, 2)}, "a 1-2")]
)
def test_cells(value: object, text: str) -> None:
    assert show_value(value) == text
