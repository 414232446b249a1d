"""Benchmark of a network on this CPU: whole, layer by layer, step by step and over densities, predicted and measured.

Everything is timed in turns in one process: medians, with the distance between the quartiles.
"""

import copy
import time
import warnings
from dataclasses import asdict, dataclass
from typing import Any

import torch
from rich.table import Table
from torch import Tensor, nn

from spokeshave.cpu_benchmark.density_sweep import DensityCurve, sweep_densities
from spokeshave.cpu_benchmark.footprint import Footprint, footprint
from spokeshave.cpu_benchmark.layer_paths import LayerPaths, time_layer_paths
from spokeshave.errors import InvalidArgument, JitRefused
from spokeshave.jit.host_cpu import host_cpu
from spokeshave.ledger import describe_machine, describe_versions
from spokeshave.rewrites.prune import prune
from spokeshave.rewrites.to_sparse import to_sparse
from spokeshave.structures.graph_tracing import trace
from spokeshave.structures.magnitude_mask import Scope
from spokeshave.targets.cpu_sparse.layer_profile import StepTime, Timing
from spokeshave.targets.cpu_sparse.lowering import lower
from spokeshave.targets.cpu_sparse.roofline import Roofline, measure_roofline
from spokeshave.targets.cpu_sparse.sparse_network import SparseNetwork
from spokeshave.targets.cpu_sparse.step_fusion import fuse
from spokeshave.targets.cpu_sparse.tuning import TUNE_S
from spokeshave.timing import evaluating, median_and_spread, time_in_turns, using_threads


@dataclass(frozen=True)
class BenchmarkSettings:
    """What is measured.

    Attributes:
        batch: images in a batch, at least 1.
        threads: at least 1.
        prune: share of each layer's weights that is kept first, the largest, below 1; none to take the network as it
            is.
        repeats: rounds of each measurement, at least 1.
        sweep: convolutions whose speedup is measured over densities; 0 for none.
        budget_s: seconds after which a measurement begins no more rounds.
        tune_s: seconds that measuring the fastest tiles may take for each layout.
    """

    batch: int = 16
    threads: int = 1
    prune: float | None = None
    repeats: int = 20
    sweep: int = 3
    budget_s: float = 20.0
    tune_s: float = TUNE_S

    def __post_init__(self) -> None:
        for name in ("batch", "threads", "repeats"):
            if getattr(self, name) < 1:
                raise InvalidArgument(f"{name}: expected at least 1, got {getattr(self, name)}")
        if self.prune is not None and not 0 <= self.prune < 1:
            raise InvalidArgument(f"prune: expected a share of weights to keep, from 0 to below 1, got {self.prune}")
        if self.sweep < 0:
            raise InvalidArgument(f"sweep: expected a number of layers of at least 0, got {self.sweep}")


@dataclass(frozen=True)
class WholeNetwork:
    """The whole network in turns: dense in the faster of torch's two orders of memory, and sparse as planned."""

    dense: Timing
    channels_last: bool
    sparse: Timing
    ratio: float
    ratio_spread: float


@dataclass(frozen=True)
class CpuBenchmark:
    """All that was measured of one network on one machine.

    Attributes:
        model: its name.
        input_shape: of one image.
        settings: what was asked for.
        vectors: set of instructions.
        roofline: of the machine.
        whole: the network.
        layers: convolutions and linear layers.
        steps: every step of the sparse network in place, as planned.
        curves: speedup against density.
        footprint: on disk and in memory.
        max_relative_error: of the sparse network on random probes.
        machine: it was measured on.
        versions: package -> version.
        command: that repeats it.
        wall_s: seconds it took.
    """

    model: str
    input_shape: tuple[int, ...]
    settings: BenchmarkSettings
    vectors: str
    roofline: Roofline
    whole: WholeNetwork
    layers: tuple[LayerPaths, ...]
    steps: tuple[StepTime, ...]
    curves: tuple[DensityCurve, ...]
    footprint: Footprint
    max_relative_error: float
    machine: dict[str, Any]
    versions: dict[str, str]
    command: str
    wall_s: float

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain dicts, lists, numbers and strings, ready for JSON."""
        roofline = asdict(self.roofline) | {
            "bytes_per_s": {level.name: rate for level, rate in self.roofline.bytes_per_s.items()},
            "sparse_flops_per_s": {str(x): rate for x, rate in self.roofline.sparse_flops_per_s.items()},
        }
        return {
            "schema": 1,
            "model": self.model,
            "input": list(self.input_shape),
            "settings": asdict(self.settings),
            "vectors": self.vectors,
            "command": self.command,
            "machine": self.machine,
            "versions": self.versions,
            "wall_s": self.wall_s,
            "max_relative_error": self.max_relative_error,
            "whole": asdict(self.whole),
            "footprint": self.footprint.to_dict(),
            "roofline": roofline,
            "layers": [layer.to_dict() for layer in self.layers],
            "steps": [asdict(step) for step in self.steps],
            "curves": [curve.to_dict() for curve in self.curves],
        }

    def tables(self) -> list[Table]:
        """The layers and the whole network as tables for the terminal."""
        setting = f"batch {self.settings.batch}, {self.settings.threads} thread" + "s" * (self.settings.threads != 1)
        table = Table(
            title=f"{self.model}, {setting}: ms measured (predicted)",
            title_justify="left",
            box=None,
            padding=(0, 1, 0, 0),
        )
        for heading in ("layer", "nonzero", "dense", "squeezed", "direct", "speedup", "GFLOP/s", "peak"):
            table.add_column(heading, justify="left" if heading == "layer" else "right", overflow="fold")
        table.add_column("runs as")
        for layer in self.layers:
            cells = [
                f"{_ms(timing.median_s)}\n({_ms(layer.plan.predicted_s[path])})" if timing else "-"
                for path, timing in ((path, layer.measured.get(path)) for path in reversed(layer.plan.predicted_s))
            ]
            table.add_row(
                layer.layer,
                f"{layer.plan.x:.1%}",
                *cells,
                f"{layer.speedup:.3g}x\n({layer.plan.predicted_speedup:.3g}x)",
                f"{layer.sparse_flops_per_s / 1e9:.1f}",
                f"{layer.sparse_flops_per_s / self.roofline.peak_flops_per_s:.0%}",
                layer.plan.path.value,
            )
        whole = Table(box=None, show_header=False)
        dense, sparse, weights = self.whole.dense, self.whole.sparse, self.footprint
        ratio = f"{self.whole.ratio:.2f} +- {self.whole.ratio_spread:.2f} times faster"
        whole.add_row("whole network", f"{1e3 * dense.median_s:.4g} ms", f"{1e3 * sparse.median_s:.4g} ms", ratio)
        size = f"{weights.sparse_file:,}" if weights.sparse_file else "cannot be stored"
        whole.add_row("bytes on disk", f"{weights.dense_file:,}", size, "")
        return [table, whole]


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.3g}" if seconds >= 1e-4 else f"{1e3 * seconds:.4f}"


class _ChannelsLast(nn.Module):
    """A copy of a network with weights and images in torch's other order of memory."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = copy.deepcopy(model)
        self.model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def forward(self, images: Tensor) -> object:
        return self.model(images.to(memory_format=torch.channels_last))


def benchmark(
    model: nn.Module,
    input_shape: tuple[int, ...],
    settings: BenchmarkSettings = BenchmarkSettings(),
    name: str = "",
    command: str = "",
) -> CpuBenchmark:
    """Compile a network for this CPU and measure it beside torch.

    Args:
        model: takes one tensor; it is not modified.
        input_shape: of one image.
        settings: what to measure.
        name: of the model; its class if none is given.
        command: that repeats the benchmark.

    Returns:
        what was measured.

    Raises:
        InvalidArgument: no code is generated for this CPU.
        UnsupportedLayer: the model cannot be traced or does not run on such an image.
        NothingChanged: no layer of it would run as generated code, or none has anything to prune.
        JitRefused: the system does not let this process run code that it generated.
    """
    started = time.perf_counter()
    if host_cpu().widest() is None:
        raise InvalidArgument(
            f"no code is generated for this CPU ({host_cpu().name}), so there is nothing to compare with torch; "
            "spokeshave measure times the model in torch"
        )
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(settings.batch, *input_shape, generator=generator)
    with using_threads(settings.threads), evaluating(model):
        whole_weights = fuse(lower(trace(model, images[:1], inference=True)))
        if settings.prune is not None:
            model, _ = prune(model, 1 - settings.prune, scope=Scope.LAYER)
        network, report = to_sparse(model, images[:1], batch=settings.batch, tune_s=settings.tune_s)
        if network.vectors is None:
            raise JitRefused("; ".join(report.notes))
        roofline = measure_roofline(images=settings.batch)
        limits = (settings.repeats, settings.budget_s)
        whole = _time_whole(model, network, images, settings)
        layers, steps = time_layer_paths(network, (images,), settings.batch, *limits)
        weights = footprint(model, network)
        curves = sweep_densities(
            whole_weights, roofline, network.vectors, settings.batch, settings.sweep, *limits, settings.tune_s
        )
        machine = describe_machine()
    return CpuBenchmark(
        name or type(model).__name__,
        tuple(input_shape),
        settings,
        network.vectors.name,
        roofline,
        whole,
        tuple(layers),
        steps,
        tuple(curves),
        weights,
        report.max_relative_error,
        machine,
        describe_versions(),
        command,
        time.perf_counter() - started,
    )


def _time_whole(model: nn.Module, network: SparseNetwork, images: Tensor, settings: BenchmarkSettings) -> WholeNetwork:
    models = [model, network]
    if images.ndim == 4:
        other = _ChannelsLast(model)
        try:
            with torch.inference_mode():
                other(images[:1])
            models.append(other)
        except RuntimeError as error:  # such as .view(), which needs the usual order
            reason = str(error).splitlines()[0]
            warnings.warn(f"dense is timed in torch's usual order only: channels-last fails ({reason})", stacklevel=2)
    times = time_in_turns(models, (images,), settings.threads, settings.repeats, settings.budget_s)
    last = len(times) > 2 and median_and_spread(times[2])[0] < median_and_spread(times[0])[0]
    dense = times[2] if last else times[0]
    ratios = [before / after for before, after in zip(dense, times[1], strict=True)]
    return WholeNetwork(Timing.of(dense), last, Timing.of(times[1]), *median_and_spread(ratios))
