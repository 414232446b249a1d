"""A network benchmark whose numbers are made up, for tests of what is said and drawn of it."""

from spokeshave.communication.link_probe import CollectiveTime, LinkProbe, fit_link, passing_bytes
from spokeshave.communication.network_benchmark import MeasuredThroughput, NetworkBenchmark
from spokeshave.communication.performance_model import (
    Cluster,
    CodecCost,
    Collective,
    Layout,
    Link,
    Order,
    StepProfile,
    messages,
)
from spokeshave.communication.wire_bytes import Exchange, GradientSize

PROFILE = StepProfile(0.31, 0.62, 0.02, 32, GradientSize(60_900_000, 12_000, 8), 9)
CODEC = CodecCost(0.9e-9, 0.05e-9, 0.07e-9, 0.4e-9)
MEASURED = (
    MeasuredThroughput(Exchange.FLOAT32, 4, 1e9, 34.0),
    MeasuredThroughput(Exchange.ALLTOALL, 4, 1e9, 110.0),
    MeasuredThroughput(Exchange.FLOAT32, 4, 1e8, 4.0),
    MeasuredThroughput(Exchange.ALLTOALL, 4, 1e8, 34.0),
)


def made_up_probe(workers: int = 4) -> LinkProbe:
    """Times of collectives that fit a link."""
    link = Link(1e9, 50e-6)
    times, layout = [], Layout(workers)
    for size in (1 << 10, 1 << 16, 1 << 22):
        for collective in Collective:
            passing, followed = passing_bytes(collective, size, layout), messages(collective, workers)
            seconds = followed * link.latency_s + 8 * passing / link.bit_per_s
            times.append(CollectiveTime(collective, size, passing, followed, seconds))
    fitted, misfit = fit_link(times)
    return LinkProbe(layout, "gloo", Order.RING, tuple(times), fitted, misfit)


def made_up_benchmark(
    workers: int = 4,
    bit_per_s: float = 1e9,
    devices: int = 1,
    codec: CodecCost = CODEC,
    probe: LinkProbe | None = None,
    measured: tuple[MeasuredThroughput, ...] = MEASURED,
    model: str = "AlexNet",
) -> NetworkBenchmark:
    """A benchmark of a network like AlexNet."""
    cluster = Cluster(Layout(workers // devices, devices), Link(bit_per_s, 50e-6), codec)
    machine, versions = {"cpu": "Some CPU at 3 GHz", "cores": 2}, {"torch": "2.13.0"}
    command = f"spokeshave bench-network nets:{model} --input 3,227,227"
    return NetworkBenchmark(
        model, (3, 227, 227), PROFILE, cluster, "cpu", probe, measured, machine, versions, command, 12.5
    )
