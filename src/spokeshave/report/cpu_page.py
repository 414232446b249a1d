"""The page of a CPU benchmark: one HTML file in the form of a run's page; it loads nothing and runs nothing."""

from pathlib import Path as FilePath
from typing import Any

from spokeshave.cpu_benchmark.benchmark import CpuBenchmark
from spokeshave.cpu_benchmark.layer_paths import LayerPaths
from spokeshave.files import atomic_write
from spokeshave.report import wording
from spokeshave.report.cpu_figures import density_figure, prediction_figure, roofline_figure
from spokeshave.report.page import page_template
from spokeshave.targets.cpu_sparse.planner import Path

ORDER = (Path.DENSE, Path.SQUEEZED, Path.DIRECT)
"""Paths as the table has them."""


def write_cpu_page(benchmark: CpuBenchmark, path: FilePath) -> None:
    """Write the page of a benchmark.

    Args:
        benchmark: of a network.
        path: the HTML file to write.

    Raises:
        FileError: where it cannot be written.
    """
    atomic_write(path, render_cpu_page(benchmark))


def render_cpu_page(benchmark: CpuBenchmark) -> str:
    """Give the page as HTML text.

    Args:
        benchmark: of a network.

    Returns:
        The whole document.
    """
    settings = benchmark.settings
    config = {"input": ",".join(map(str, benchmark.input_shape)), **vars(settings)}
    return page_template("cpu_page.html.j2").render(
        bench=benchmark,
        title=f"{benchmark.model} on this CPU",
        trail=("bench-cpu", benchmark.model),
        verdict=_verdict(benchmark),
        tiles=_tiles(benchmark),
        rows=[_row(layer, benchmark.roofline.peak_flops_per_s) for layer in benchmark.layers],
        roofline=roofline_figure(benchmark),
        prediction=prediction_figure(benchmark),
        curves=[density_figure(curve) for curve in benchmark.curves],
        longest_s=max(step.time.median_s for step in benchmark.steps),
        paths=ORDER,
        setting=_setting(benchmark),
        command=benchmark.command or "spokeshave bench-cpu",
        machine=benchmark.machine,
        versions=benchmark.versions,
        config=[(name, "as it is" if value is None else str(value)) for name, value in config.items()],
        words=wording,
    )


def _setting(benchmark: CpuBenchmark) -> str:
    threads = benchmark.settings.threads
    return f"batch {benchmark.settings.batch}, {'one thread' if threads == 1 else f'{threads} threads'}"


def _verdict(benchmark: CpuBenchmark) -> str:
    whole, layers = benchmark.whole, benchmark.layers
    right = sum(layer.fastest is layer.plan.path for layer in layers)
    direct = sum(layer.plan.path is Path.DIRECT for layer in layers)
    return (
        f"At {_setting(benchmark)}, the network takes {wording.seconds(whole.sparse.median_s)} as a sparse network and "
        f"{wording.seconds(whole.dense.median_s)} in torch: {wording.times_faster(whole.ratio)} "
        f"(± {whole.ratio_spread:.2f}). Of {len(layers)} layers with weights {direct} run as direct sparse code; "
        f"the planner took the path that was measured fastest, layer by layer, in {right}."
    )


def _tiles(benchmark: CpuBenchmark) -> list[dict[str, Any]]:
    whole, weights, peak = benchmark.whole, benchmark.footprint, benchmark.roofline.peak_flops_per_s
    order = "channels last" if whole.channels_last else "contiguous"
    tiles: list[dict[str, Any]] = [
        {
            "label": "Whole network",
            "value": wording.times_faster(whole.ratio),
            "detail": f"{wording.seconds(whole.dense.median_s)} (torch, {order}) → "
            f"{wording.seconds(whole.sparse.median_s)}",
            "share": whole.sparse.median_s / whole.dense.median_s,
        }
    ]
    if weights.sparse_file:
        tiles.append(
            {
                "label": "File",
                "value": wording.times(weights.dense_file / weights.sparse_file) + " smaller",
                "detail": f"{wording.count(weights.dense_file, 'B')} → {wording.count(weights.sparse_file, 'B')}",
                "share": weights.sparse_file / weights.dense_file,
            }
        )
    best = max(benchmark.layers, key=lambda layer: layer.sparse_flops_per_s)
    fastest = max(benchmark.layers, key=lambda layer: layer.speedup)
    tiles.append(
        {
            "label": "Highest rate on nonzeros",
            "value": wording.count(best.sparse_flops_per_s, "FLOP/s"),
            "detail": f"{best.layer}; {wording.percent(best.sparse_flops_per_s / peak, 0)} of the measured peak",
            "share": best.sparse_flops_per_s / peak,
        }
    )
    tiles.append(
        {
            "label": "Largest gain of a layer",
            "value": wording.times_faster(fastest.speedup),
            "detail": f"{fastest.layer}, {wording.percent(fastest.plan.x, 1)} nonzero",
            "share": 1 / fastest.speedup,
        }
    )
    return tiles


def _row(layer: LayerPaths, peak: float) -> dict[str, Any]:
    """What the table shows of a layer; the longest bar is its longest time but for squeezed, which may be far off."""
    measured = layer.measured
    longest = max(*layer.plan.predicted_s.values(), layer.dense.median_s, layer.direct.median_s)
    cells = []
    for path in ORDER:
        timing, predicted = measured.get(path), layer.plan.predicted_s[path]
        cells.append(
            {
                "timing": timing,
                "predicted_s": predicted,
                "old": predicted / longest,
                "new": min(1.0, timing.median_s / longest) if timing else 0.0,
                "fastest": path is layer.fastest,
                "left": f"{wording.percent(layer.plan.left, 0)} left" if path is Path.SQUEEZED else "",
            }
        )
    return {"layer": layer, "cells": cells, "peak_share": layer.sparse_flops_per_s / peak}
