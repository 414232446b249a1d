"""spokeshave measure: parameters, bytes, FLOPs and latency of a model, whole and layer by layer."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from spokeshave.errors import InvalidArgument


@dataclasses.dataclass(frozen=True)
class Options:
    """Measure parameters, bytes, FLOPs and latency of a model, whole and layer by layer."""

    model: tyro.conf.Positional[str]
    """package.module:factory, file.py:factory, or a .pt2 file."""
    input: str
    """Shape of one input without the batch, such as 1,28,28."""
    against: str | None = None
    """A second model: both are timed in turns, and the ratio is printed."""
    batch_sizes: tuple[int, ...] = (1, 16)
    """Images in a batch."""
    threads: Annotated[tuple[int, ...], tyro.conf.arg(metavar="INT [INT ...]")] = (1, 0)
    """CPU threads; 0 is as many as torch uses."""
    repeats: int = 30
    """Timed samples of each setting; the median is shown, and the distance between the quartiles."""
    latency: bool = True
    """Time the model; without it, only counts."""
    json: Path | None = None
    """Write the numbers to this file too."""


def command(arguments: list[str]) -> int:
    """Measure a model and print the numbers.

    Args:
        arguments: the words after `measure`.

    Returns:
        The exit code.

    Raises:
        InvalidArgument: where the model or the shape of its input is not understood.
    """
    options = tyro.cli(Options, prog="spokeshave measure", args=arguments)
    import torch

    from spokeshave.files import atomic_write
    from spokeshave.measure import compare, measure
    from spokeshave.models.named_model import load_model

    console = Console()
    shape = parse_shape(options.input)
    model = load_model(options.model)
    example = torch.zeros(1, *shape)
    settings = {
        "threads": tuple(count or None for count in options.threads),
        "batch_sizes": options.batch_sizes,
        "repeats": options.repeats,
    }
    measurement = measure(model, example, latency=options.latency, **settings)
    console.print(measurement.table())
    numbers = {"model": options.model, "input": shape, "measurement": measurement.to_dict()}
    if options.against is not None:
        if not options.latency:
            raise InvalidArgument("--against times two models in turns: leave --no-latency out")
        comparison = compare(model, load_model(options.against), example, **settings)
        console.print(comparison.table())
        numbers["comparison"] = comparison.to_dict()
    if options.json is not None:
        atomic_write(options.json, json.dumps(numbers, indent=1) + "\n")
    return 0


def parse_shape(text: str) -> tuple[int, ...]:
    """Read the shape of one input, without the batch: `1,28,28`.

    Args:
        text: whole numbers of at least 1, with commas (or the letter x) between them.

    Returns:
        The shape.

    Raises:
        InvalidArgument: where it is anything else.

    Example:
        >>> parse_shape("3,32,32")
        (3, 32, 32)
    """
    parts = text.strip("()[] ").replace("x", ",").split(",")
    try:
        shape = tuple(int(part) for part in parts if part.strip())
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1:
        raise InvalidArgument(f"--input: expected the shape of one input such as 1,28,28 (no batch), got {text!r}")
    return shape
