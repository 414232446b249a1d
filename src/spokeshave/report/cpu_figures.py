"""The figures of a CPU benchmark: layers under the machine's roofline, predicted against measured, speedup by density.

Williams, Waterman, Patterson, Roofline, CACM 2009; Park et al., ICLR 2017, figure 2.
"""

import numpy as np

from spokeshave.cpu_benchmark.benchmark import CpuBenchmark
from spokeshave.cpu_benchmark.density_sweep import DensityCurve
from spokeshave.cpu_benchmark.layer_paths import LayerPaths
from spokeshave.report import wording
from spokeshave.report.charts import Axis, Line, Mark, scatter_chart
from spokeshave.report.figures import Figure, LegendEntry
from spokeshave.targets.cpu_sparse.planner import Path
from spokeshave.targets.cpu_sparse.roofline import Level

MARKS = {Path.DENSE: "before", Path.SQUEEZED: "paper", Path.DIRECT: "after"}
"""Path of a layer -> kind of its mark."""
_LEVELS = {Level.L1: "L1", Level.L2: "L2", Level.LAST_LEVEL_CACHE: "last-level cache", Level.MEMORY: "memory"}
_WIDER = 2.0
"""The roofline is drawn so many times beyond the outermost layers."""


def roofline_figure(benchmark: CpuBenchmark) -> Figure:
    """Draw every layer's direct sparse code under the peak and the bandwidths that were measured.

    Args:
        benchmark: of a network.
    """
    roofline = benchmark.roofline
    places = [layer.flops_per_byte for layer in benchmark.layers if layer.flops_per_byte > 0]
    ridges = [roofline.peak_flops_per_s / roofline.bytes_per_s[level] for level in (Level.L1, Level.MEMORY)]
    xs = np.geomspace(min([*places, *ridges]) / _WIDER, max([*places, *ridges]) * _WIDER, 61)
    lines, legend = [], []
    for number, (level, name) in enumerate(_LEVELS.items()):
        rate = roofline.bytes_per_s[level]
        roof = [min(roofline.peak_flops_per_s, rate * float(x)) / 1e9 for x in xs]
        label = f"{name}, {wording.count(rate, 'B/s')}"
        lines.append(Line(label, xs.tolist(), roof, number / (len(_LEVELS) - 1), dashed=True))
        legend.append(LegendEntry(label, number / (len(_LEVELS) - 1), dashed=True))
    marks = [_roofline_mark(layer, roofline.peak_flops_per_s) for layer in benchmark.layers if layer.flops_per_byte > 0]
    legend += [
        LegendEntry(f"{kind} layer", mark=mark)
        for kind, mark in (("convolution", "after"), ("linear", "sweep"))
        if any(layer.kind == kind for layer in benchmark.layers)
    ]
    title = f"Peak {wording.count(roofline.peak_flops_per_s, 'FLOP/s')}, {benchmark.vectors}"
    x = Axis("FLOPs on nonzeros for each byte of activations and weights", log=True)
    chart = scatter_chart(title, marks, x, Axis("GFLOP/s on nonzeros", log=True), lines=lines)
    return Figure(title, chart, tuple(legend))


def _roofline_mark(layer: LayerPaths, peak: float) -> Mark:
    rate = layer.sparse_flops_per_s
    hint = f"{layer.layer}: {rate / 1e9:.3g} GFLOP/s on nonzeros, {wording.percent(rate / peak, 0)} of the peak"
    kind = "after" if layer.kind == "convolution" else "sweep"
    return Mark(layer.layer, layer.flops_per_byte, rate / 1e9, kind, True, hint)


def prediction_figure(benchmark: CpuBenchmark) -> Figure:
    """Draw measured against predicted times of every layer on every path; on the diagonal they agree.

    Args:
        benchmark: of a network.
    """
    marks = []
    for layer in benchmark.layers:
        for path, timing in layer.measured.items():
            predicted, measured = layer.plan.predicted_s[path], timing.median_s
            hint = f"{layer.layer}, {path.value}: {wording.seconds(measured)}, predicted {wording.seconds(predicted)}"
            marks.append(Mark(layer.layer, predicted * 1e3, measured * 1e3, MARKS[path], hint=hint))
    known = [value for mark in marks for value in (mark.x, mark.y)] or [1.0, 2.0]
    ends = [min(known), max(known)]
    seen = {mark.kind for mark in marks}
    legend = [LegendEntry(path.value, mark=kind) for path, kind in MARKS.items() if kind in seen]
    legend.append(LegendEntry("as predicted", 0.0))
    axes = Axis("predicted, ms", log=True), Axis("measured, ms", log=True)
    chart = scatter_chart("Measured against predicted", marks, *axes, lines=[Line("as predicted", ends, ends)])
    return Figure("Measured against predicted time", chart, tuple(legend))


def density_figure(curve: DensityCurve) -> Figure:
    """Draw the speedup of one layer against its density, with the bounds between which more zeros make it faster.

    Args:
        curve: of the layer.
    """
    marks = [
        Mark(
            curve.layer,
            point.x,
            point.speedup,
            "after",
            hint=f"{wording.percent(point.x, 1)} nonzero: {wording.times(point.speedup)}",
        )
        for point in curve.points
        if point.x > 0
    ]
    heights = [*curve.predicted, *(mark.y for mark in marks), 1.0]
    lines, legend = [Line("predicted", curve.xs, curve.predicted)], [LegendEntry("predicted", 0.0)]
    for bound, label, tone in (
        (curve.lower_bound, f"faster than dense below {wording.percent(curve.lower_bound, 0)}", 1.0),
        (curve.upper_bound, f"bound by memory below {wording.percent(curve.upper_bound, 1)}", 0.5),
    ):
        if curve.xs[0] < bound < curve.xs[-1]:
            lines.append(Line(label, [bound, bound], [min(heights), max(heights)], tone, dashed=True))
            legend.append(LegendEntry(label, tone, dashed=True))
    if marks:
        legend.append(LegendEntry("measured", mark="after"))
    axes = Axis("share of nonzero weights", percent=True, log=True), Axis("times faster than dense", log=True)
    chart = scatter_chart(curve.layer, marks, *axes, width=340, height=250, lines=lines)
    return Figure(curve.layer, chart, tuple(legend))
