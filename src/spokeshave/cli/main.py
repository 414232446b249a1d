"""The command `spokeshave`: finds the subcommand, and turns every expected error into one clear message.

Exit codes: 0 done, 1 nothing found, 2 an error said in one message, 130 stopped by Ctrl-C, 141 reader gone.
Nothing heavy is imported here, so that `spokeshave --help` answers at once.
"""

import ast
import difflib
import importlib
import os
import shlex
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from spokeshave.errors import SpokeshaveError

SUBCOMMANDS: dict[str, str] = {
    "run": "run",
    "list": "list_recipes",
    "show": "show",
    "measure": "measure_model",
    "bench-cpu": "bench_cpu",
    "bench-network": "bench_network",
    "map-crossbar": "map_crossbar",
    "map-truenorth": "map_truenorth",
    "compress": "compress",
    "adapt": "adapt_folders",
    "doctor": "doctor",
    "where": "where",
}
"""Name on the command line -> module of this folder, which defines `command(arguments) -> exit code`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: the words after `spokeshave`; those of this process where None.

    Returns:
        The exit code.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        code = _dispatch(words)
        sys.stdout.flush()
    except SpokeshaveError as error:
        if debug:
            traceback.print_exc()
        _complain(str(error))
        return 2
    except KeyboardInterrupt:
        _complain("stopped by Ctrl-C", advice=_how_to_go_on(words))
        return 130
    except BrokenPipeError:
        # The reader (head, less) has what it wanted. Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return code


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        _print_help()
        return 0
    if words[0] in ("-V", "--version"):
        from importlib.metadata import version

        print(f"spokeshave {version('spokeshave')}")
        return 0
    name, rest = words[0], words[1:]
    if name not in SUBCOMMANDS:
        close = difflib.get_close_matches(name, SUBCOMMANDS, n=1)
        meant = f"; did you mean {close[0]}?" if close else ""
        _complain(f"{name!r} is not a subcommand{meant} (there are: {', '.join(SUBCOMMANDS)})")
        return 2
    module = importlib.import_module(f"spokeshave.cli.{SUBCOMMANDS[name]}")
    return module.command(rest)


def _print_help() -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print("[bold]spokeshave[/bold] shapes neural networks for the machine that will run them.\n")
    console.print("usage: spokeshave SUBCOMMAND ...    (spokeshave SUBCOMMAND --help says more)\n", markup=False)
    table = Table(box=None, show_header=False, padding=(0, 2))
    for name, module in SUBCOMMANDS.items():
        source = Path(__file__).with_name(f"{module}.py")
        summary = (ast.get_docstring(ast.parse(source.read_text())) or "").splitlines()[0]
        table.add_row(f"[cyan]{name}[/cyan]", summary.split(": ", 1)[-1])
    console.print(table)
    console.print("\n--debug anywhere shows the traceback of an error; --version prints the version.", markup=False)


def _complain(message: str, advice: str = "") -> None:
    from rich.console import Console

    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print("error:", style="bold red", end=" ")
    console.print(message, style="red", markup=False)
    if advice:
        console.print(advice, markup=False)


def _how_to_go_on(words: list[str]) -> str:
    if not words or words[0] not in ("run", "compress", "adapt"):
        return ""
    again = words if "--resume" in words else [*words, "--resume"]
    return f"to go on from the last checkpoint: {shlex.join(['spokeshave', *again])}"


if __name__ == "__main__":
    sys.exit(main())
