"""spokeshave bench-cpu: times a pruned network on this CPU, dense, squeezed and direct sparse, beside predictions."""

import dataclasses
import json
import shlex
from pathlib import Path

import tyro
from rich.console import Console

from spokeshave.cli.measure_model import parse_shape
from spokeshave.errors import InvalidArgument

RECORD_FILE = "bench.json"


@dataclasses.dataclass(frozen=True)
class Options:
    """Time a pruned network on this CPU, dense, squeezed and direct sparse, beside what the roofline predicts."""

    model: tyro.conf.Positional[str]
    """package.module:factory, file.py:factory, or an .onnx file."""
    input: str
    """Shape of one input without the batch, such as 3,227,227."""
    batch: int = 16
    """Images in a batch."""
    threads: int = 1
    """CPU threads."""
    prune: float | None = None
    """Share of each layer's weights that is kept first, the largest, such as 0.1; none to take the network as it is."""
    weights: Path | None = None
    """A .safetensors file with the weights."""
    out: Path = Path("runs/bench-cpu")
    """Folder for bench.json and report.html."""
    repeats: int = 20
    """Rounds of each measurement; medians are shown, and the distance between the quartiles."""
    sweep: int = 3
    """Largest convolutions whose speedup is measured over densities; 0 for none."""


def command(arguments: list[str]) -> int:
    """Measure a network, print its tables and write its page.

    Args:
        arguments: the words after `bench-cpu`.

    Returns:
        The exit code.

    Raises:
        InvalidArgument: where an option is not understood or out of range, or no code is generated for this CPU.
        FileError: where the folder cannot be written.
    """
    options = tyro.cli(Options, prog="spokeshave bench-cpu", args=arguments)
    from spokeshave.cpu_benchmark.benchmark import BenchmarkSettings, benchmark
    from spokeshave.export import load_safetensors
    from spokeshave.files import atomic_write, require_writable
    from spokeshave.models.named_model import load_model
    from spokeshave.report.cpu_page import write_cpu_page
    from spokeshave.report.page import PAGE_FILE
    from spokeshave.structures.onnx_graph import load_onnx

    shape = parse_shape(options.input)
    settings = BenchmarkSettings(
        options.batch, options.threads, options.prune, repeats=options.repeats, sweep=options.sweep
    )
    if options.model.endswith(".pt2"):
        raise InvalidArgument(
            f"{options.model}: exported programs have no layers of their own to time in torch; name the module that it "
            "was exported from, as package.module:factory or file.py:factory"
        )
    require_writable(options.out)
    model = load_onnx(Path(options.model)) if options.model.endswith(".onnx") else load_model(options.model)
    if options.weights is not None:
        load_safetensors(model, options.weights)
    name = Path(options.model.rpartition("/")[2]).name.rpartition(":")[2]
    done = benchmark(model, shape, settings, name, shlex.join(["spokeshave", "bench-cpu", *arguments]))
    console = Console()
    for table in done.tables():
        console.print(table)
    atomic_write(options.out / RECORD_FILE, json.dumps(done.to_dict(), indent=1) + "\n")
    write_cpu_page(done, options.out / PAGE_FILE)
    console.print(f"page: {options.out / PAGE_FILE}", highlight=False, soft_wrap=True)
    return 0
