"""Link probe: latency and bandwidth between the processes that `torchrun` started, measured with their own collectives.

All-reduce, all-gather and all-to-all of several sizes are timed in turns; medians, the slowest process's, are fitted by

    seconds = latency * messages(N) + 8 * bytes / bandwidth

with the least sum of |log(fitted / measured)|: a few outliers move nothing, and small messages count as large ones do.
"""

import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize
from torch import distributed

from spokeshave.communication.link_units import bandwidth_words, latency_words
from spokeshave.communication.performance_model import Collective, Layout, Link, Order, messages
from spokeshave.errors import InvalidArgument

SIZES = (1 << 10, 1 << 13, 1 << 16, 1 << 19, 1 << 22)
"""Bytes that a process hands to a collective: from what latency takes to what bandwidth takes."""
_FEW, _MANY = 1, 8
_SMALL = 1 << 17
"""Calls that one sample repeats: many of small messages, so that the clock's grain and late starters do not show."""
_WARM_UP = 1
_LEAST_LATENCY_S = 1e-9


@dataclass(frozen=True)
class CollectiveTime:
    """One collective, as it was measured.

    Attributes:
        collective: which.
        payload: bytes that each process handed to it.
        passing: bytes that pass the link one way for it.
        messages: that wait for one another.
        seconds: median of the rounds, of the slowest process.
    """

    collective: Collective
    payload: int
    passing: float
    messages: int
    seconds: float


@dataclass(frozen=True)
class LinkProbe:
    """What was measured between the processes.

    Attributes:
        layout: of the processes on machines.
        backend: of torch.distributed; "" where a process runs alone.
        order: of messages, as the backend has it.
        times: of the collectives.
        link: fitted; None where a process runs alone: there is no link.
        misfit: median of |fitted / measured - 1|.
    """

    layout: Layout
    backend: str
    order: Order
    times: tuple[CollectiveTime, ...] = ()
    link: Link | None = None
    misfit: float = 0.0


def probe_links(sizes: Sequence[int] = SIZES, rounds: int = 9) -> LinkProbe:
    """Measure the links of the processes that were joined (`processes.join_processes`); all call it together.

    Args:
        sizes: bytes, multiples of four times the number of processes or rounded up to them.
        rounds: of every collective and size in turn, at least 1; medians count.

    Returns:
        The same numbers in every process.

    Raises:
        InvalidArgument: where there are no sizes or no rounds.

    Example:
        >>> probe_links().link is None  # a process that runs alone has no link
        True
    """
    if not sizes or min(sizes) < 1 or rounds < 1:
        raise InvalidArgument(f"expected sizes of at least 1 byte and at least one round, got {sizes} and {rounds}")
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return LinkProbe(Layout(1), "", Order.RING)
    backend = distributed.get_backend()
    device = torch.device("cuda" if backend == "nccl" else "cpu")
    layout = _layout(device)
    order = Order.TREE if backend == "nccl" else Order.RING
    workers = layout.workers
    cases = [
        (collective, -(-size // (4 * workers)) * 4 * workers, _MANY if size < _SMALL else _FEW)
        for size in sizes
        for collective in Collective
    ]
    calls = [_call(collective, payload, device, workers) for collective, payload, _ in cases]
    samples: list[list[float]] = [[] for _ in cases]
    for number in range(_WARM_UP + rounds):
        for seconds, call, (_, _, repeats) in zip(samples, calls, cases, strict=True):
            taken = _timed(call, repeats, device)
            if number >= _WARM_UP:
                seconds.append(taken)
    medians = torch.tensor([statistics.median(seconds) for seconds in samples], dtype=torch.float64, device=device)
    distributed.all_reduce(medians, distributed.ReduceOp.MAX)
    times = tuple(
        CollectiveTime(
            collective, payload, passing_bytes(collective, payload, layout), messages(collective, workers, order), taken
        )
        for (collective, payload, _), taken in zip(cases, medians.tolist(), strict=True)
    )
    link, misfit = fit_link(times)
    return LinkProbe(layout, backend, order, times, link, misfit)


def fit_link(times: Sequence[CollectiveTime]) -> tuple[Link, float]:
    """Find the latency and the bandwidth that explain some times best.

    Args:
        times: of several sizes.

    Returns:
        (link, median of |fitted / measured - 1|).

    Example:
        >>> sizes = (1e3, 1e5, 1e7)
        >>> times = [CollectiveTime(Collective.ALL_REDUCE, 0, size, 2, 2e-4 + size * 8 / 1e9) for size in sizes]
        >>> link, misfit = fit_link(times)
        >>> f"{link.latency_s:.2e} {link.bit_per_s:.2e} {misfit:.2f}"
        '1.00e-04 1.00e+09 0.00'
    """
    passing = np.array([each.passing for each in times])
    followed = np.array([each.messages for each in times])
    measured = np.array([each.seconds for each in times])

    def fitted(logarithms: np.ndarray) -> np.ndarray:
        latency_s, bit_per_s = np.exp(logarithms)
        return latency_s * followed + 8 * passing / bit_per_s

    def error(logarithms: np.ndarray) -> float:
        return float(np.abs(np.log(fitted(logarithms) / measured)).mean())

    # From several places: sums of absolute values have corners, in which a search may stay.
    starts = [
        np.log([max(float(np.quantile(measured / followed, share)), _LEAST_LATENCY_S), rate])
        for share in (0.0, 0.2, 0.5)
        for rate in np.quantile(8 * passing / measured, (0.5, 1.0))
    ]
    options = {"xatol": 1e-9, "fatol": 1e-12, "maxiter": 4000}
    best = min((minimize(error, each, method="Nelder-Mead", options=options) for each in starts), key=lambda a: a.fun)
    latency_s, bit_per_s = np.exp(best.x).tolist()
    misfit = float(np.median(np.abs(fitted(best.x) / measured - 1)))
    return Link(bit_per_s, latency_s), misfit


def passing_bytes(collective: Collective, payload: int, layout: Layout) -> float:
    """Bytes that pass a machine's link one way; the link between two processes where there is one machine only.

    Args:
        collective: which.
        payload: bytes that each process hands to it.
        layout: of the processes on machines.

    Example:
        >>> [passing_bytes(collective, 1200, Layout(3, 2)) for collective in Collective]
        [2000.0, 6000.0, 1600.0]
    """
    workers = layout.workers
    if collective is Collective.ALL_REDUCE:
        return 2 * (workers - 1) * payload / workers
    if collective is Collective.ALL_GATHER:
        return float((workers - 1) * payload)
    if layout.machines == 1:
        return (workers - 1) * payload / workers
    return layout.devices * (workers - layout.devices) * payload / workers


def _layout(device: torch.device) -> Layout:
    """Of the processes on machines, as torchrun says; where machines have different numbers, each is one of its own."""
    workers, here = distributed.get_world_size(), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    # A process knows of its own machine only, and all have to see the same layout.
    most = torch.tensor([here, -here], device=device)
    distributed.all_reduce(most, distributed.ReduceOp.MAX)
    largest, smallest = most[0].item(), -most[1].item()
    return Layout(workers // here, here) if largest == smallest and workers % here == 0 else Layout(workers)


def _call(collective: Collective, payload: int, device: torch.device, workers: int) -> Callable[[], object]:
    sent = torch.zeros(payload // 4, device=device)
    if collective is Collective.ALL_REDUCE:
        return lambda: distributed.all_reduce(sent)
    received = torch.empty(payload // 4 * (workers if collective is Collective.ALL_GATHER else 1), device=device)
    if collective is Collective.ALL_GATHER:
        return lambda: distributed.all_gather_single(received, sent)
    return lambda: distributed.all_to_all_single(received, sent)


def _timed(call: Callable[[], object], repeats: int, device: torch.device) -> float:
    synchronize = torch.cuda.synchronize if device.type == "cuda" else _nothing
    distributed.barrier()
    synchronize()
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    synchronize()
    return (time.perf_counter() - start) / repeats


def _nothing() -> None:
    """A CPU need not be waited for."""


def summary(probe: LinkProbe) -> str:
    """Say what was measured in one line.

    Args:
        probe: of the processes.

    Example:
        >>> summary(LinkProbe(Layout(1), "", Order.RING))
        'one process: there is no link to measure'
    """
    if probe.link is None:
        return "one process: there is no link to measure"
    link = f"{bandwidth_words(probe.link.bit_per_s)}, {latency_words(probe.link.latency_s)} a message"
    return (
        f"{probe.layout.workers} processes over {probe.backend}: {link}; collectives within {probe.misfit:.0%} of that "
        "(median)"
    )
