"""The figures of a network benchmark: throughput by workers, speedup by bandwidth, bytes; the paper's Figure 5.

TernGrad, Wen et al., NIPS 2017, figure 5: throughput on 1 to 512 GPUs.
"""

import math
from collections.abc import Sequence

import numpy as np

from spokeshave.communication.link_probe import LinkProbe
from spokeshave.communication.link_units import bandwidth_words
from spokeshave.communication.network_benchmark import MeasuredThroughput, NetworkBenchmark
from spokeshave.communication.paper_performance_model import images_per_s
from spokeshave.communication.performance_model import Collective, at_bandwidth, at_workers, predict
from spokeshave.communication.published_throughput import GPUS, Gradients, PaperCluster, PaperNetwork, published
from spokeshave.communication.wire_bytes import Exchange
from spokeshave.report import wording
from spokeshave.report.charts import Axis, Line, Mark, scatter_chart
from spokeshave.report.figures import Figure, LegendEntry

TONES = {
    Exchange.FLOAT32: 1.0,
    Exchange.BFLOAT16: 0.6,
    Exchange.ALLGATHER: 0.0,
    Exchange.ALLTOALL: 0.0,
    Exchange.LANES: 0.3,
}
MOST_WORKERS = 512
_BANDWIDTHS = tuple(np.geomspace(1e6, 1e11, 101).tolist())
_MBIT = 1e6
_SAME_LINK = 0.1
"""Measured throughput is drawn beside predictions where its bandwidth differs from theirs by less than this share."""
_COLLECTIVES = {Collective.ALL_REDUCE: "after", Collective.ALL_GATHER: "before", Collective.ALL_TO_ALL: "paper"}


def worker_counts(bench: NetworkBenchmark) -> list[int]:
    """Numbers of workers that curves are drawn over: 1 to 512, from two whole machines on where those hold several.

    Args:
        bench: of a model.
    """
    devices = bench.cluster.layout.devices
    counts = {1} if devices == 1 else set()
    counts |= {devices * 2**power for power in range(1, 10) if devices * 2**power <= max(MOST_WORKERS, 2 * devices)}
    return sorted(counts | {bench.workers})


def on_this_link(bench: NetworkBenchmark) -> list[MeasuredThroughput]:
    """Measured throughput of links that are (nearly) as fast as the one that predictions are for.

    Args:
        bench: of a model.
    """
    here = bench.cluster.link.bit_per_s
    return [row for row in bench.measured if abs(row.bit_per_s / here - 1) < _SAME_LINK]


def scaling_figure(bench: NetworkBenchmark) -> Figure:
    """Draw predicted throughput against the number of workers, and what was measured on such a link.

    Args:
        bench: of a model.
    """
    counts, lines = worker_counts(bench), []
    for exchange in Exchange:
        steps = [predict(exchange, bench.profile, at_workers(bench.cluster, workers)) for workers in counts]
        lines.append(_line(exchange, counts, [step.images_per_s for step in steps]))
    here = bench.cluster.link.bit_per_s
    marks = [
        Mark(
            row.exchange.value,
            row.workers,
            row.images_per_s,
            "after" if row.exchange.ternary else "before",
            hint=f"{row.exchange.value}, {row.workers} workers: {row.images_per_s:,.4g} images/s, measured",
        )
        for row in on_this_link(bench)
    ]
    title = f"Throughput at {bandwidth_words(here)}"
    axes = Axis("workers", log=True), Axis("images a second, all workers", log=True)
    return Figure(title, scatter_chart(title, marks, *axes, lines=lines), (*_legend(), *_measured_legend(marks)))


def speedup_figure(bench: NetworkBenchmark) -> Figure:
    """Draw the speedup over fp32 against the bandwidth of the link, and where ternary gradients stop to pay.

    Args:
        bench: of a model.
    """
    rates = _BANDWIDTHS
    xs = [rate / _MBIT for rate in rates]
    floats = [_step(bench, Exchange.FLOAT32, rate) for rate in rates]
    lines, highest = [], 1.0
    for exchange in list(Exchange)[1:]:
        ys = [base / _step(bench, exchange, rate) for base, rate in zip(floats, rates, strict=True)]
        highest = max(highest, *ys)
        lines.append(_line(exchange, xs, ys))
    legend = list(_legend()[1:])
    for against, tone in ((Exchange.FLOAT32, 1.0), (Exchange.BFLOAT16, 0.6)):
        rate = bench.pays_below(against)
        if rate is not None and rates[0] < rate < rates[-1]:
            label = f"faster than {against.value} {wording.bound(rate)}"
            lines.append(Line(label, [rate / _MBIT] * 2, [min(1.0, _lowest(lines)), highest], tone))
            legend.append(LegendEntry(label, tone))
    marks = _measured_speedups(bench)
    legend += _measured_legend(marks)
    here = bench.cluster.link.bit_per_s
    if bench.workers > 1:
        best = bench.best().exchange
        gain = bench.gain(best, Exchange.FLOAT32)
        hint = f"{best.value} at {bandwidth_words(here)}: {wording.times(gain)} over fp32"
        marks.append(Mark("this link", here / _MBIT, gain, "paper", show_label=True, hint=hint))
    workers = "1 worker" if bench.workers == 1 else f"{bench.workers} workers"
    title = f"Speedup over fp32, {workers}"
    axes = Axis("bandwidth of the link, Mbit/s", log=True), Axis("times faster than fp32", log=True, include=(1.0,))
    return Figure(title, scatter_chart(title, marks, *axes, lines=lines), tuple(legend))


def bytes_figure(bench: NetworkBenchmark) -> Figure:
    """Draw the bytes that a worker sends in a step against the number of workers.

    Args:
        bench: of a model.
    """
    counts, lines = [count for count in worker_counts(bench) if count > 1], []
    for exchange in Exchange:
        steps = [predict(exchange, bench.profile, at_workers(bench.cluster, workers)) for workers in counts]
        lines.append(_line(exchange, counts, [step.bytes_sent / 1e6 for step in steps]))
    title = "Sent by a worker in a step"
    chart = scatter_chart(title, [], Axis("workers", log=True), Axis("MB", log=True), lines=lines)
    return Figure(title, chart, _legend())


def link_figure(probe: LinkProbe) -> Figure:
    """Draw the times of collectives against the bytes that pass the link, as measured and as fitted.

    Args:
        probe: that measured a link.
    """
    assert probe.link is not None, "a process alone has no figure"
    marks, lines = [], []
    for number, (collective, kind) in enumerate(_COLLECTIVES.items()):
        rows = sorted((row for row in probe.times if row.collective is collective), key=lambda row: row.passing)
        for row in rows:
            hint = f"{collective.value}, {wording.count(row.passing, 'B')}: {wording.seconds(row.seconds)}"
            marks.append(Mark(collective.value, row.passing / 1e3, row.seconds * 1e3, kind, hint=hint))
        fitted = [row.messages * probe.link.latency_s + 8 * row.passing / probe.link.bit_per_s for row in rows]
        xs = [row.passing / 1e3 for row in rows]
        lines.append(Line(f"{collective.value}, fitted", xs, [1e3 * each for each in fitted], number / 2, dashed=True))
    legend = [LegendEntry(collective.value, mark=kind) for collective, kind in _COLLECTIVES.items()]
    legend += [LegendEntry(line.label, line.tone, dashed=True) for line in lines]
    title = f"Collectives of {probe.layout.workers} processes"
    axes = Axis("kB that pass the link", log=True), Axis("ms", log=True)
    return Figure(title, scatter_chart(title, marks, *axes, lines=lines), tuple(legend))


def paper_figures(cluster: PaperCluster) -> list[Figure]:
    """Draw the paper's Figure 5: published bars as points, the model as lines, one chart a network.

    Args:
        cluster: of the figure.
    """
    figures = []
    for network in PaperNetwork:
        marks, lines, legend = [], [], []
        for gradients, kind, tone in ((Gradients.FLOAT32, "before", 1.0), (Gradients.TERNARY, "after", 0.0)):
            name = gradients.value
            for gpus in GPUS:
                bar = published(cluster, network, gradients, gpus)
                ours = images_per_s(cluster, network, gradients, gpus)
                hint = f"{name}, {gpus} GPUs: {bar:,} images/s published, {ours:,.0f} by the model"
                marks.append(Mark(f"{name}, {gpus}", gpus, bar, kind, hint=hint))
            ys = [images_per_s(cluster, network, gradients, gpus) for gpus in GPUS]
            lines.append(Line(f"{name}, model", GPUS, ys, tone, dashed=gradients is Gradients.FLOAT32))
            legend.append(LegendEntry(f"{name}, published", mark=kind))
            legend.append(LegendEntry("model", tone, dashed=gradients is Gradients.FLOAT32))
        axes = Axis("GPUs", log=True), Axis("images a second", log=True)
        title = f"{network.value}, {cluster.value}"
        chart = scatter_chart(title, marks, *axes, width=340, height=250, lines=lines)
        figures.append(Figure(network.value, chart, tuple(legend)))
    return figures


def _line(exchange: Exchange, xs: Sequence[float], ys: Sequence[float]) -> Line:
    dotted = exchange is Exchange.ALLGATHER
    return Line(exchange.value, xs, ys, TONES[exchange], dashed=not exchange.ternary, dotted=dotted)


def _legend() -> tuple[LegendEntry, ...]:
    return tuple(
        LegendEntry(line.label, line.tone, line.dashed, dotted=line.dotted)
        for line in (_line(exchange, (), ()) for exchange in Exchange)
    )


def _measured_legend(marks: Sequence[Mark]) -> list[LegendEntry]:
    kinds = {mark.kind for mark in marks}
    entries = (("after", "ternary, measured"), ("before", "floats, measured"))
    return [LegendEntry(label, mark=kind) for kind, label in entries if kind in kinds]


def _step(bench: NetworkBenchmark, exchange: Exchange, bit_per_s: float) -> float:
    return predict(exchange, bench.profile, at_bandwidth(bench.cluster, bit_per_s)).step_s


def _lowest(lines: Sequence[Line]) -> float:
    return min(y for line in lines for y in line.ys if y is not None and math.isfinite(y))


def _measured_speedups(bench: NetworkBenchmark) -> list[Mark]:
    """Of rows with as many workers, those whose floats were measured on the same link."""
    rows = [row for row in bench.measured if row.workers == bench.workers]
    floats = {row.bit_per_s: row.images_per_s for row in rows if row.exchange is Exchange.FLOAT32}
    marks = []
    for row in rows:
        if row.exchange is not Exchange.FLOAT32 and row.bit_per_s in floats:
            ratio = row.images_per_s / floats[row.bit_per_s]
            hint = f"{row.exchange.value} at {bandwidth_words(row.bit_per_s)}: {wording.times(ratio)}, measured"
            kind = "after" if row.exchange.ternary else "before"
            marks.append(Mark(row.exchange.value, row.bit_per_s / _MBIT, ratio, kind, hint=hint))
    return marks
