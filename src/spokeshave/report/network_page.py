"""The page of a network benchmark: one HTML file in the form of a run's page; it loads nothing and runs nothing."""

from pathlib import Path
from typing import Any

from spokeshave.communication.link_probe import summary
from spokeshave.communication.link_units import bandwidth_words
from spokeshave.communication.network_benchmark import NetworkBenchmark, verdict
from spokeshave.communication.paper_performance_model import speedup
from spokeshave.communication.published_throughput import GPUS, PaperCluster, PaperNetwork, published_speedup
from spokeshave.communication.wire_bytes import Exchange
from spokeshave.files import atomic_write
from spokeshave.report import wording
from spokeshave.report.network_figures import (
    bytes_figure,
    link_figure,
    on_this_link,
    paper_figures,
    scaling_figure,
    speedup_figure,
    worker_counts,
)
from spokeshave.report.page import page_template

HOW = {
    Exchange.FLOAT32: "all-reduce of float32",
    Exchange.BFLOAT16: "all-reduce of bfloat16",
    Exchange.ALLGATHER: "every worker's codes to every other",
    Exchange.ALLTOALL: "codes to the worker that sums them, sums to all",
    Exchange.LANES: "all-reduce of words that hold codes side by side",
}
_SHOWN_GPUS = tuple(gpus for gpus in GPUS if gpus >= 8)


def write_network_page(bench: NetworkBenchmark, path: Path) -> None:
    """Write the page of a benchmark.

    Args:
        bench: of a model.
        path: the HTML file to write.

    Raises:
        FileError: where it cannot be written.
    """
    atomic_write(path, render_network_page(bench))


def render_network_page(bench: NetworkBenchmark) -> str:
    """Give the page as HTML text.

    Args:
        bench: of a model.

    Returns:
        The whole document.
    """
    cluster = bench.cluster
    config = {
        "input": ",".join(map(str, bench.input_shape)),
        "batch": bench.profile.images,
        "machines": cluster.layout.machines,
        "workers a machine": cluster.layout.devices,
        "codes": cluster.pack.value,
        "messages": cluster.order.value,
        "codec overlapped": wording.percent(cluster.codec.overlapped, 0),
        "device": bench.device,
    }
    figures = [scaling_figure(bench), speedup_figure(bench)] if bench.workers > 1 else [scaling_figure(bench)]
    return page_template("network_page.html.j2").render(
        bench=bench,
        title=f"{bench.model} over the network",
        trail=("bench-network", bench.model),
        verdict=verdict(bench).replace("x over", "× over"),
        tiles=_tiles(bench),
        rows=_rows(bench),
        setting=_setting(bench),
        figures=[*figures, bytes_figure(bench)],
        largest=worker_counts(bench)[-1],
        link=link_figure(bench.probe) if bench.probe and bench.probe.link else None,
        probed=summary(bench.probe) if bench.probe else "",
        paper=[(each, paper_figures(each), _paper_rows(each)) for each in PaperCluster],
        gpus=_SHOWN_GPUS,
        command=bench.command or "spokeshave bench-network",
        machine=bench.machine,
        versions=bench.versions,
        config=[(name, str(value)) for name, value in config.items()],
        words=wording,
        rate=_rate,
    )


def _rate(images_per_s: float) -> str:
    return f"{images_per_s:,.{1 if images_per_s < 1000 else 0}f}"


def _setting(bench: NetworkBenchmark) -> str:
    layout, link = bench.cluster.layout, bench.cluster.link
    workers = "one worker" if layout.workers == 1 else f"{layout.workers} workers"
    machines = f" on {layout.machines} machines" if layout.machines > 1 and layout.devices > 1 else ""
    return (
        f"{workers}{machines}, {bandwidth_words(link.bit_per_s)}, {wording.seconds(link.latency_s)} a message, "
        f"{bench.profile.images} images a worker"
    )


def _tiles(bench: NetworkBenchmark) -> list[dict[str, Any]]:
    steps = bench.predictions()
    floats, halves = steps[Exchange.FLOAT32], steps[Exchange.BFLOAT16]
    best = steps[bench.best().exchange]
    tiles: list[dict[str, Any]] = []
    for label, base in (("Over fp32", floats), ("Over bf16", halves)):
        tiles.append(
            {
                "label": label,
                "value": wording.times(base.step_s / best.step_s),
                "detail": f"{wording.seconds(base.step_s)} → {wording.seconds(best.step_s)} a step "
                f"({best.exchange.value})",
                "share": best.step_s / base.step_s,
            }
        )
    tiles.append(
        {
            "label": "Sent by a worker in a step",
            "value": wording.times_fewer(floats.bytes_sent, best.bytes_sent).replace("fewer", "less"),
            "detail": f"{wording.count(floats.bytes_sent, 'B')} → {wording.count(best.bytes_sent, 'B')}",
            "share": best.bytes_sent / floats.bytes_sent if floats.bytes_sent else None,
        }
    )
    tiles.append(
        {
            "label": "Pay off against bf16",
            "value": wording.bound(bench.pays_below(Exchange.BFLOAT16)),
            "detail": f"against fp32 {wording.bound(bench.pays_below(Exchange.FLOAT32))}",
            "share": None,
        }
    )
    return tiles


def _rows(bench: NetworkBenchmark) -> list[dict[str, Any]]:
    steps = bench.predictions()
    floats, halves = steps[Exchange.FLOAT32], steps[Exchange.BFLOAT16]
    most_bytes = max(step.bytes_sent for step in steps.values()) or 1.0
    longest = max(step.step_s for step in steps.values())
    fastest = min(step.step_s for step in steps.values())
    rows = []
    for exchange, step in steps.items():
        bounds = ("", "")
        if exchange.ternary:
            against = (Exchange.FLOAT32, Exchange.BFLOAT16)
            bounds = tuple(wording.bound(bench.break_even(exchange, each)) for each in against)
        here = [
            row.images_per_s for row in on_this_link(bench) if (row.exchange, row.workers) == (exchange, bench.workers)
        ]
        rows.append(
            {
                "exchange": exchange,
                "how": HOW[exchange],
                "step": step,
                "bytes_share": step.bytes_sent / most_bytes,
                "step_share": step.step_s / longest,
                "fastest": step.step_s == fastest,
                "over_fp32": floats.step_s / step.step_s,
                "over_bf16": halves.step_s / step.step_s,
                "bounds": bounds,
                "measured": here,
            }
        )
    return rows


def _paper_rows(cluster: PaperCluster) -> list[dict[str, Any]]:
    rows = []
    for network in PaperNetwork:
        pairs = [(published_speedup(cluster, network, gpus), speedup(cluster, network, gpus)) for gpus in _SHOWN_GPUS]
        rows.append({"network": network.value, "pairs": pairs, "worst": max(abs(b / a - 1) for a, b in pairs)})
    return rows
