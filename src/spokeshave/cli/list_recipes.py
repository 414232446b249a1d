"""spokeshave list: the recipes, with the published rows that each of them reproduces.

A recipe is any module of `spokeshave.recipes` that has `PAPER`, `Config` and `run`: it is found by import.
"""

import dataclasses
import difflib
import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

import tyro
from rich.console import Console
from rich.table import Table

from spokeshave import recipes
from spokeshave.errors import InvalidArgument


def command(arguments: list[str]) -> int:
    """Print the recipes and their rows.

    Args:
        arguments: the words after `list`.

    Returns:
        The exit code.
    """

    def options() -> None:
        """List the recipes, with the published rows that each of them reproduces."""

    tyro.cli(options, prog="spokeshave list", args=arguments)
    console = Console()
    for name in recipe_names():
        recipe = load_recipe(name)
        console.print(f"[bold cyan]{name}[/bold cyan]  {headline(recipe)}", highlight=False)
        rows = published_rows(recipe)
        if rows:
            console.print(rows_table(rows))
    console.print("spokeshave run RECIPE --help shows a recipe's options", style="dim", highlight=False)
    return 0


def recipe_names() -> list[str]:
    """Name every recipe of the package, in the alphabet's order."""
    found = [module.name for module in pkgutil.iter_modules(recipes.__path__) if not module.name.startswith("_")]
    return sorted(name for name in found if is_recipe(importlib.import_module(f"spokeshave.recipes.{name}")))


def is_recipe(module: ModuleType) -> bool:
    """Say whether a module follows the protocol of recipes: PAPER, a dataclass Config, run."""
    config = getattr(module, "Config", None)
    return hasattr(module, "PAPER") and dataclasses.is_dataclass(config) and callable(getattr(module, "run", None))


def load_recipe(name: str) -> ModuleType:
    """Import a recipe by its name.

    Args:
        name: the name of a module of `spokeshave.recipes`.

    Raises:
        InvalidArgument: where there is no recipe of that name; the message names the close ones.
    """
    names = recipe_names()
    name = name.replace("-", "_")
    if name not in names:
        close = difflib.get_close_matches(name, names, n=3)
        meant = f"did you mean {' or '.join(close)}?" if close else f"there are: {', '.join(names) or 'none'}"
        raise InvalidArgument(f"no recipe is called {name!r}: {meant} (spokeshave list shows them)")
    return importlib.import_module(f"spokeshave.recipes.{name}")


def headline(recipe: ModuleType) -> str:
    """Return the first line of a recipe's docstring."""
    return (recipe.__doc__ or "").strip().splitlines()[0] if recipe.__doc__ else ""


def published_rows(recipe: ModuleType) -> list[tuple[str, dict[str, Any]]]:
    """Return a recipe's published rows as (name, columns), whether PAPER is a mapping or a sequence."""
    paper = recipe.PAPER
    if isinstance(paper, Mapping):
        return [(str(name), _columns(row)) for name, row in paper.items()]
    rows: list[tuple[str, dict[str, Any]]] = []
    for number, row in enumerate(_sequence(paper), start=1):
        columns = _columns(row)
        name = columns.pop("row", None) or columns.pop("name", None) or str(number)
        rows.append((str(name), columns))
    return rows


def rows_table(rows: list[tuple[str, dict[str, Any]]]) -> Table:
    """Lay published rows out: the value of --row, then its columns as words, so that narrow terminals cut nothing."""
    table = Table(box=None, padding=(0, 2), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, columns in rows:
        words = (f"{key.replace('_', ' ')} {show_value(value)}" for key, value in columns.items() if value is not None)
        table.add_row(name, ", ".join(words))
    return table


def show_value(value: Any) -> str:
    """Write a cell: nested sequences joined by dashes as in the papers' tables, None as a dash."""
    if value is None:
        return "-"
    if isinstance(value, (list, tuple)):
        return "-".join(show_value(part) for part in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {show_value(part)}" for key, part in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)


def _columns(row: Any) -> dict[str, Any]:
    if isinstance(row, Mapping):
        return dict(row)
    if dataclasses.is_dataclass(row) and not isinstance(row, type):
        return dataclasses.asdict(row)
    return {"published": row}


def _sequence(paper: Any) -> Iterable[Any]:
    return paper if isinstance(paper, (list, tuple)) else [paper]
