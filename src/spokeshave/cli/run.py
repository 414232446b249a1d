"""spokeshave run: runs a recipe, with the options of its typed Config.

The options, their defaults and their help are the recipe's frozen dataclass; nothing is listed twice.
"""

from typing import Any

import tyro
from rich.console import Console

from spokeshave.cli.list_recipes import headline, load_recipe, recipe_names
from spokeshave.errors import InvalidArgument
from spokeshave.large_blocks import keep_large_blocks

USAGE = "usage: spokeshave run RECIPE [options]    (spokeshave run RECIPE --help shows the options)"


def command(arguments: list[str]) -> int:
    """Run a recipe.

    Args:
        arguments: the recipe's name, then its options.

    Returns:
        The exit code.

    Raises:
        InvalidArgument: where no recipe is named, or none is called so.
    """
    if arguments and arguments[0] in ("-h", "--help"):
        console = Console(highlight=False)
        console.print(USAGE, markup=False)
        console.print("\nrecipes:")
        for name in recipe_names():
            console.print(f"  [cyan]{name}[/cyan]  {headline(load_recipe(name))}")
        return 0
    if not arguments or arguments[0].startswith("-"):
        raise InvalidArgument(f"name a recipe first: {', '.join(recipe_names())}\n{USAGE}")
    recipe = load_recipe(arguments[0])
    config = parse(recipe.Config, arguments[1:], prog=f"spokeshave run {arguments[0]}", about=headline(recipe))
    keep_large_blocks()
    recipe.run(config)
    from spokeshave.processes import leave_processes  # not before the help: it brings torch

    leave_processes()
    return 0


def parse(config: type, arguments: list[str], prog: str, about: str) -> Any:
    """Turn options into an instance of a Config.

    Args:
        config: a frozen dataclass; the docstrings of its fields are the help.
        arguments: the options as typed.
        prog: the command as typed, for the help.
        about: one line, for the help.

    Returns:
        The instance.
    """
    return tyro.cli(config, prog=prog, description=about, args=arguments, config=(tyro.conf.EnumChoicesFromValues,))
