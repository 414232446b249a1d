"""spokeshave compress: makes your own model smaller, within a drop of accuracy that you name."""

from spokeshave.cli.run import parse
from spokeshave.large_blocks import keep_large_blocks


def command(arguments: list[str]) -> int:
    """Compress a model: the options are those of `spokeshave.recipes.compression.Config`.

    Args:
        arguments: the words after `compress`.

    Returns:
        The exit code.
    """
    from spokeshave.recipes.compression import Config, run

    keep_large_blocks()
    run(parse(Config, arguments, prog="spokeshave compress", about="Make your own model smaller."))
    return 0
