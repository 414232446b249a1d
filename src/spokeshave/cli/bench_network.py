"""spokeshave bench-network: whether ternary gradients pay off for a model here, and below which bandwidth."""

import dataclasses
import json
import os
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING

import tyro
from rich.console import Console
from rich.table import Table

from spokeshave.cli.measure_model import parse_shape
from spokeshave.communication.digit_packing import Pack
from spokeshave.errors import InvalidArgument

if TYPE_CHECKING:
    from spokeshave.communication.link_probe import LinkProbe
    from spokeshave.communication.network_benchmark import NetworkBenchmark
    from spokeshave.communication.performance_model import Layout, Link, Order

RECORD_FILE = "bench.json"


@dataclasses.dataclass(frozen=True)
class Options:
    """Predict whether ternary gradients pay off for a model: on links measured under torchrun, or given ones."""

    model: tyro.conf.Positional[str]
    """package.module:factory, file.py:factory, or a .pt2 file; it returns one score for each class."""
    input: str
    """Shape of one input without the batch, such as 3,227,227."""
    batch: int = 32
    """Images in a worker's batch."""
    bandwidth: str | None = None
    """Of a machine's link, such as 100mbit or 10gbit; under torchrun it is measured."""
    latency: str | None = None
    """Of one message, such as 50us, which is the default; under torchrun it is measured."""
    workers: int | None = None
    """Workers; under torchrun, as many as it started, or another number on the links that were measured."""
    devices_per_machine: int = 1
    """Workers that share a machine's link; under torchrun, as many as it started on a machine."""
    pack: Pack = Pack.TWO_BIT
    """How codes travel."""
    min_numel: int = 1024
    """Tensors with fewer elements stay floats."""
    overlap: float = 0.0
    """Share of the codec's time, 0..1, that hides behind other work."""
    device: str | None = None
    """cpu or cuda, to profile the step on; cuda where there is one."""
    threads: int = 0
    """CPU threads; 0 is as many as torch uses."""
    weights: Path | None = None
    """A .safetensors file with the weights."""
    measured: Path | None = None
    """A .json file with throughput that was measured, to be drawn beside the predictions: rows of exchange, workers,
    bit_per_s, images_per_s."""
    repeats: int = 9
    """Rounds of each measurement; medians count."""
    out: Path = Path("runs/bench-network")
    """Folder for bench.json and report.html."""


def command(arguments: list[str]) -> int:
    """Profile a model's step, measure or take the links, and predict every exchange.

    Args:
        arguments: the words after `bench-network`.

    Returns:
        The exit code.

    Raises:
        InvalidArgument: where an option is not understood or out of range, or the links are not known.
        UnsupportedLayer: where the model does not run on such images.
        DataError: where the file with measured throughput is not of its form.
        FileError: where the folder cannot be written.
    """
    options = tyro.cli(Options, prog="spokeshave bench-network", args=arguments)
    import torch

    from spokeshave.communication.codec_cost import measure_codec
    from spokeshave.communication.link_probe import probe_links
    from spokeshave.communication.network_benchmark import NetworkBenchmark, read_measured
    from spokeshave.communication.performance_model import Cluster, at_workers
    from spokeshave.communication.step_profile import profile_step
    from spokeshave.export import load_safetensors
    from spokeshave.files import require_writable
    from spokeshave.ledger import describe_machine, describe_versions
    from spokeshave.models.named_model import load_model
    from spokeshave.processes import is_first, join_processes, leave_processes, usable_device

    started = time.perf_counter()
    together = int(os.environ.get("WORLD_SIZE", "1")) > 1
    _check(options, together)
    given = None if together else _given_links(options)
    shape = parse_shape(options.input)
    measured = read_measured(options.measured) if options.measured else ()
    first = int(os.environ.get("RANK", "0")) == 0
    if first:
        require_writable(options.out)
    model = load_model(options.model)
    if options.weights is not None:
        load_safetensors(model, options.weights)
    device = usable_device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) if together else device.index or 0)
    threads = options.threads or torch.get_num_threads()
    profile = profile_step(model, shape, options.batch, device, options.min_numel, options.repeats, threads)
    # The processes meet only after what may fail in one of them, so that none waits for one that has stopped.
    probe: LinkProbe | None = None
    if together:
        join_processes()
        probe = probe_links(rounds=options.repeats)
        first = is_first()
        leave_processes()
    if not first:
        return 0
    layout, link, order = given or _probed(probe)
    workers = options.workers or layout.workers
    codec = measure_codec(workers, options.pack, device, rounds=options.repeats, threads=threads)
    codec = dataclasses.replace(codec, overlapped=options.overlap)
    cluster = Cluster(layout, link, codec, options.pack, order)
    bench = NetworkBenchmark(
        options.model.rpartition("/")[2].rpartition(":")[2],
        shape,
        profile,
        at_workers(cluster, workers),
        str(device),
        probe,
        measured,
        describe_machine(),
        describe_versions(),
        _command(arguments, layout.devices if together else 0),
        time.perf_counter() - started,
    )
    _write(bench, options.out)
    return 0


def _check(options: Options, together: bool) -> None:
    for name in ("batch", "devices_per_machine", "repeats", "workers"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise InvalidArgument(f"{name.replace('_', '-')}: expected at least 1, got {value}")
    for name in ("threads", "min_numel"):
        if getattr(options, name) < 0:
            raise InvalidArgument(f"{name.replace('_', '-')}: expected at least 0, got {getattr(options, name)}")
    if not 0 <= options.overlap <= 1:
        raise InvalidArgument(f"overlap: expected a share of 0..1, got {options.overlap}")
    if together and (options.bandwidth or options.latency):
        raise InvalidArgument(
            "under torchrun the links are measured: leave --bandwidth and --latency out, or start without torchrun"
        )


def _given_links(options: Options) -> "tuple[Layout, Link, Order]":
    """What the options say of the links; nothing is measured."""
    from spokeshave.communication.link_units import parse_bandwidth, parse_latency
    from spokeshave.communication.performance_model import Layout, Link, Order

    if options.bandwidth is None or options.workers is None:
        raise InvalidArgument(
            "the links are not known: give --bandwidth 1gbit --workers 4 (and --latency 50us), or start it under "
            "torchrun, which measures them: torchrun --nproc-per-node 2 -m spokeshave.cli.main bench-network ..."
        )
    if options.workers % options.devices_per_machine:
        raise InvalidArgument(
            f"workers: {options.workers} do not fill machines of {options.devices_per_machine} (--devices-per-machine)"
        )
    layout = Layout(options.workers // options.devices_per_machine, options.devices_per_machine)
    link = Link(parse_bandwidth(options.bandwidth), parse_latency(options.latency or "50us"))
    return layout, link, Order.RING


def _probed(probe: "LinkProbe | None") -> "tuple[Layout, Link, Order]":
    assert probe is not None and probe.link is not None, "more than one process was measured"
    return probe.layout, probe.link, probe.order


def _command(arguments: list[str], processes: int) -> str:
    words = ["bench-network", *arguments]
    if processes:
        nodes = int(os.environ.get("WORLD_SIZE", "1")) // processes
        start = ["torchrun", "--nnodes", str(nodes), "--nproc-per-node", str(processes), "-m", "spokeshave.cli.main"]
        return shlex.join([*start, *words])
    return shlex.join(["spokeshave", *words])


def _write(bench: "NetworkBenchmark", out: Path) -> None:
    from spokeshave.communication.link_probe import summary
    from spokeshave.communication.network_benchmark import verdict
    from spokeshave.files import atomic_write
    from spokeshave.report.network_page import write_network_page
    from spokeshave.report.page import PAGE_FILE

    console = Console()
    if bench.probe is not None:
        console.print(f"links: {summary(bench.probe)}", highlight=False, soft_wrap=True)
    console.print(_table(bench))
    console.print(verdict(bench), highlight=False, soft_wrap=True)
    atomic_write(out / RECORD_FILE, json.dumps(bench.to_dict(), indent=1, ensure_ascii=False) + "\n")
    write_network_page(bench, out / PAGE_FILE)
    console.print(f"page: {out / PAGE_FILE}", highlight=False, soft_wrap=True)


def _table(bench: "NetworkBenchmark") -> Table:
    from spokeshave.communication.link_units import bandwidth_words
    from spokeshave.communication.wire_bytes import Exchange
    from spokeshave.report import wording

    layout, link = bench.cluster.layout, bench.cluster.link
    where = f"{layout.workers} workers" + (
        f" on {layout.machines} machines" if layout.machines > 1 and layout.devices > 1 else ""
    )
    title = f"{bench.model}, {where}, {bandwidth_words(link.bit_per_s)}, {wording.seconds(link.latency_s)} a message"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    for heading in ("gradients", "sent a step", "step", "images/s", "over fp32", "over bf16", "faster than bf16"):
        table.add_column(heading, justify="left" if heading == "gradients" else "right", overflow="fold")
    steps = bench.predictions()
    for exchange, step in steps.items():
        over = [steps[against].step_s / step.step_s for against in (Exchange.FLOAT32, Exchange.BFLOAT16)]
        table.add_row(
            exchange.value,
            wording.count(step.bytes_sent, "B"),
            wording.seconds(step.step_s),
            f"{step.images_per_s:,.4g}",
            *(f"{ratio:.2f}x" for ratio in over),
            wording.bound(bench.break_even(exchange, Exchange.BFLOAT16)) if exchange.ternary else "",
        )
    return table
