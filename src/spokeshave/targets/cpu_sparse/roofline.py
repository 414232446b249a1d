"""Roofline of this machine: peak of multiply-adds, bandwidth of each level of memory, rates of dense and sparse layers.

Williams, Waterman, Patterson, Roofline, CACM 2009; Park et al., ICLR 2017, section 2.2, whose model
(`structures/roofline_model.py`) takes these numbers: F is the rate of torch's dense convolution, alpha = F / (rate of
direct sparse convolution on nonzeros), B the bandwidth of the level that the data is in.
Departs from the paper: everything is measured on the machine at hand, for one image and for a vector of images, instead
of taken from data sheets; a layer streams from the fastest level that holds it. Arithmetic is measured on one core and
multiplied by the threads, dense and sparse layers in turns, so that what else runs does not tilt their ratio.
"""

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from enum import Enum
from functools import partial

import numpy as np
import torch
from torch import nn

from spokeshave.errors import InvalidArgument
from spokeshave.jit.executable_memory import aligned_zeros
from spokeshave.jit.generated_operation import Operation, generated
from spokeshave.jit.host_cpu import VectorSet, host_cpu
from spokeshave.jit.operation_loops import OperationLoops
from spokeshave.jit.operation_sequence import run_sequence
from spokeshave.jit.side_by_side import side_by_side
from spokeshave.structures.graph_tracing import trace
from spokeshave.structures.roofline_model import MachineRates
from spokeshave.targets.cpu_sparse.lowering import lower
from spokeshave.targets.cpu_sparse.plane_operations import splat
from spokeshave.targets.cpu_sparse.segment import Segment
from spokeshave.timing import using_threads
from spokeshave.user_cache import FactCache


class Level(Enum):
    """Levels of memory; the value is the size of the buffer by which it is measured, in bytes a thread."""

    L1 = 16 << 10
    L2 = 384 << 10
    LAST_LEVEL_CACHE = 4 << 20
    MEMORY = 64 << 20

    @property
    def shared(self) -> bool:
        """Whether it serves several cores."""
        return self in (Level.LAST_LEVEL_CACHE, Level.MEMORY)


BYTES_A_NONZERO = 1.5
"""beta: bytes of a nonzero (a float; shapes share a 32-bit offset) over the four of a dense weight."""
DENSITIES = (0.05, 0.2, 1.0)
"""Shares of nonzeros at which the sparse rate is measured: the denser, the more a load or a call is used for."""
_CHANNELS, _SIZE, _KERNEL = 128, 14, 3
_FEW, _MORE = 16, 4
"""Channels of a thin layer, and by how many such layers the longer of two networks is longer."""
_ROUNDS = 7
_METHOD = 3
"""Number of the way of measuring: what another way found is not taken from the user's cache."""
_THIN_METHOD = 1
_FACTS = FactCache("roofline")


@dataclass(frozen=True)
class Roofline:
    """What one machine does, on some of its threads.

    Attributes:
        threads: at work.
        images: at a time: 1 (pixel lanes) or as many as a vector has lanes (batch lanes).
        peak_flops_per_s: multiply-adds in registers, two FLOPs each; of one core times threads, as the next two.
        dense_flops_per_s: F, of torch's dense convolution, layout changes included where they happen.
        sparse_flops_per_s: share of nonzeros -> rate of direct sparse convolution, counted on nonzeros.
        bytes_per_s: level -> read bandwidth of all threads.
        layout_bytes_per_s: rate at which activations enter generated code from torch's layout, or leave it; infinite
            until `with_thin_layers` has measured it, as the next.
        near_flops_per_s: as `sparse_flops_per_s` without zeros, where the weights stay in the second-level cache.
    """

    threads: int
    images: int
    peak_flops_per_s: float
    dense_flops_per_s: float
    sparse_flops_per_s: dict[float, float]
    bytes_per_s: dict[Level, float]
    layout_bytes_per_s: float = math.inf
    near_flops_per_s: float = 0.0

    def alpha(self, x: float, nonzero_bytes: float = math.inf) -> float:
        """Time of a FLOP on a nonzero over that of a dense one.

        Args:
            x: share of nonzeros, 0 to 1; between those that were measured, the logarithm decides.
            nonzero_bytes: what they take; few of them are not read from afar.
        """
        near = (
            {1.0: max(self.near_flops_per_s, self.sparse_flops_per_s[1.0])} if nonzero_bytes <= Level.L2.value else {}
        )
        known = sorted((self.sparse_flops_per_s | near).items())
        places, rates = np.log([density for density, _ in known]), [rate for _, rate in known]
        return self.dense_flops_per_s / float(np.interp(np.log(max(x, 1e-9)), places, rates))

    def level_of(self, data_bytes: float) -> Level:
        """The fastest level that holds some data, spread over the threads.

        Args:
            data_bytes: how much it is.
        """
        return next((level for level in Level if data_bytes <= 2 * level.value * self.threads), Level.MEMORY)

    def rates(
        self, x: float = 0.1, level: Level = Level.LAST_LEVEL_CACHE, nonzero_bytes: float = math.inf
    ) -> MachineRates:
        """The numbers that the paper's model takes.

        Args:
            x: share of nonzeros that alpha is wanted for.
            level: that activations and weights stream from.
            nonzero_bytes: as in `alpha`.
        """
        alpha = self.alpha(x, nonzero_bytes)
        return MachineRates(self.dense_flops_per_s, alpha, self.bytes_per_s[level], BYTES_A_NONZERO)


def measure_roofline(threads: int | None = None, images: int = 1, fresh: bool = False) -> Roofline:
    """Measure this machine, once for each number of threads; it takes about a second.

    Args:
        threads: torch's number if none is given.
        images: at a time; 1, or any other number for a full vector of images.
        fresh: measure again, even where the numbers are known.

    Raises:
        InvalidArgument: fewer than one thread, or no code can be generated for this CPU.

    Example:
        >>> roofline = measure_roofline(threads=1)
        >>> roofline.peak_flops_per_s > roofline.sparse_flops_per_s[0.2] > 0
        True
    """
    vectors, threads = host_cpu().widest(), torch.get_num_threads() if threads is None else threads
    if vectors is None or threads < 1:
        raise InvalidArgument(
            f"expected a CPU that code is generated for and at least 1 thread, got {vectors, threads}"
        )
    images = 1 if images == 1 else vectors.lanes
    key = f"{_METHOD} {host_cpu().name} {vectors.name} {threads} {images}"
    known = None if fresh else _decoded(_FACTS.get(key))
    if known is not None:
        return known
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        dense, sparse = _layer_rates(vectors, images)
        peak = _peak(vectors)
        torch.set_num_threads(threads)
        measured = Roofline(
            threads,
            images,
            threads * peak,
            threads * dense,
            {density: threads * rate for density, rate in sparse.items()},
            {level: _bandwidth(vectors, threads, level) for level in Level},
        )
    finally:
        torch.set_num_threads(before)
    _FACTS.keep({key: _encoded(measured)})
    return measured


def with_thin_layers(roofline: Roofline) -> Roofline:
    """The roofline with the rates of thin layers and of changing layouts, which few networks need: measured apart.

    Args:
        roofline: from `measure_roofline`.
    """
    vectors = host_cpu().widest()
    assert vectors is not None  # or there would be no roofline
    key = f"thin {_THIN_METHOD} {host_cpu().name} {vectors.name} {roofline.images}"
    rates = _FACTS.get(key)
    if not (isinstance(rates, list) and len(rates) == 2 and all(isinstance(r, float) and r > 0 for r in rates)):
        with using_threads(1):
            rates = list(_thin_rates(vectors, roofline.images))
        _FACTS.keep({key: rates})
    layout, near = (roofline.threads * rate for rate in rates)
    return replace(roofline, layout_bytes_per_s=layout, near_flops_per_s=near)


def _encoded(roofline: Roofline) -> dict[str, object]:
    facts = asdict(roofline) | {
        "bytes_per_s": {level.name: rate for level, rate in roofline.bytes_per_s.items()},
        "sparse_flops_per_s": list(roofline.sparse_flops_per_s.values()),
    }
    return {name: value for name, value in facts.items() if name not in ("layout_bytes_per_s", "near_flops_per_s")}


def _decoded(facts: object) -> Roofline | None:
    if not isinstance(facts, dict):
        return None
    try:
        rates = {Level[name]: float(rate) for name, rate in facts["bytes_per_s"].items()}
        sparse = dict(zip(DENSITIES, map(float, facts["sparse_flops_per_s"]), strict=True))
        found = Roofline(**facts | {"bytes_per_s": rates, "sparse_flops_per_s": sparse})
        numbers = (*rates.values(), *sparse.values(), found.peak_flops_per_s, found.dense_flops_per_s)
        sound = len(rates) == len(Level) and min(numbers) > 0
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    return found if sound else None


def _fastest_s(runs: Sequence[Callable[[], object]]) -> list[float]:
    """Shortest time of each of some runs that take turns: whatever disturbs a turn only makes it longer."""
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(1 + _ROUNDS):
        for run, mine in zip(runs, times, strict=True):
            begin = time.perf_counter()
            run()
            mine.append(time.perf_counter() - begin)
    return [min(mine[1:]) for mine in times]


def _run(operation: Operation, threads: int, **fields: int) -> float:
    """Shortest time of an operation with one item for each thread."""
    table = operation.layout.table(threads, **fields)
    steps = np.array([(operation.address, table.ctypes.data)], np.int64)
    return _fastest_s([lambda: run_sequence(steps, threads)])[0]


_CHAINS = 12
"""Independent sums: as many as hide the latency of a multiply-add, and fit 16 registers."""
_TURNS = 200_000


@generated
def _multiply_adds(vectors: VectorSet) -> OperationLoops:
    """Operation whose items are `turns` multiply-adds of each of some chains in registers. Fields: turns, sink_at."""
    loops = OperationLoops("multiply_adds", vectors, ["turns", "sink_at"])
    build, given = loops.builder, loops.arguments
    with loops.items() as item:
        sums = [loops.variable() for _ in range(_CHAINS)]
        # Unknown at compile time, or the loop would be computed away; below 1, so that sums stay normal numbers.
        factor = splat(loops, build.fmul(build.sitofp(item, loops.vector.element), loops.vector.element(1e-3)))
        for total in sums:
            loops.store(splat(loops, 1.0), total, vectors.bytes)
        with loops.loop(0, given["turns"]):
            for total in sums:
                value = loops.load(total, align=vectors.bytes)
                loops.store(loops.multiply_add(value, factor, factor), total, vectors.bytes)
        values = [loops.load(total, align=vectors.bytes) for total in sums]
        while len(values) > 1:
            values = [build.fadd(one, other) for one, other in zip(values[::2], values[1::2], strict=False)] + (
                values[-1:] if len(values) % 2 else []
            )
        loops.store(values[0], loops.at(given["sink_at"], loops.times(item, vectors.bytes)))
    return loops


def _peak(vectors: VectorSet) -> float:
    sink = aligned_zeros((vectors.lanes,))
    seconds = _run(_multiply_adds(vectors), 1, turns=_TURNS, sink_at=sink.ctypes.data)
    return 2.0 * _TURNS * _CHAINS * vectors.lanes / seconds


@generated
def _reads(vectors: VectorSet) -> OperationLoops:
    """Operation whose items read `size` bytes each, `turns` times. Fields: source_at, size, turns, sink_at."""
    loops = OperationLoops("reads", vectors, ["source_at", "size", "turns", "sink_at"])
    build, given = loops.builder, loops.arguments
    with loops.items() as item:
        start = loops.at(given["source_at"], build.mul(item, given["size"]))
        sums = [loops.variable() for _ in range(8)]
        for total in sums:
            loops.store(splat(loops, 0.0), total, vectors.bytes)
        with loops.loop(0, given["turns"]), loops.loop(0, given["size"], 8 * vectors.bytes) as place:
            for number, total in enumerate(sums):
                value = loops.load(loops.at(start, place, number * vectors.bytes), align=vectors.bytes)
                loops.store(build.fadd(loops.load(total, align=vectors.bytes), value), total, vectors.bytes)
        whole = loops.load(sums[0], align=vectors.bytes)
        for total in sums[1:]:
            whole = build.fadd(whole, loops.load(total, align=vectors.bytes))
        loops.store(whole, loops.at(given["sink_at"], loops.times(item, vectors.bytes)))
    return loops


def _bandwidth(vectors: VectorSet, threads: int, level: Level) -> float:
    alone = _read_rate(vectors, 1, level)
    if threads == 1 or not level.shared:
        return threads * alone
    return max(alone, _read_rate(vectors, threads, level))  # a thread that comes late would make it less than one has


def _read_rate(vectors: VectorSet, threads: int, level: Level) -> float:
    size, turns = level.value, max(1, (64 << 20) // level.value)
    source, sink = aligned_zeros((threads * size // 4,)), aligned_zeros((threads * vectors.lanes,))
    source[:] = 1.0  # zeros that were never written may all be one page
    ends = {"source_at": source.ctypes.data, "sink_at": sink.ctypes.data}
    return threads * size * turns / _run(_reads(vectors), threads, size=size, turns=turns, **ends)


def _thin_rates(vectors: VectorSet, images: int) -> tuple[float, float]:
    """Bytes/s into and out of generated code; FLOP/s in it of layers with few channels and no zeros."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        x = torch.randn(images, _FEW, 2 * _SIZE, 2 * _SIZE)
        layers = [nn.Conv2d(_FEW, _FEW, _KERNEL, padding=_KERNEL // 2) for _ in range(1 + _MORE)]
        # The difference between one layer and several is without what entering and leaving take.
        networks = [nn.ReLU(), layers[0], nn.Sequential(*layers)]
        segments = [Segment(lower(trace(network.eval(), x[:1], inference=True)), vectors) for network in networks]
        runs = [partial(segment, [x.numpy()]) for segment in segments]
        side_by_side(runs)  # code is generated at the first run
        layout_s, one_s, all_s = _fastest_s(runs)
    more_flops = _MORE * 2.0 * x.numel() * layers[0].weight.numel() / _FEW
    # What the rectifier does itself is nothing beside the change of layouts; half of the time is layers at the least.
    return 2 * x.numel() * x.element_size() / layout_s, more_flops / max(all_s - one_s, all_s / 2)


def _layer_rates(vectors: VectorSet, images: int) -> tuple[float, dict[float, float]]:
    """FLOP/s of a typical layer: dense in torch, and on the nonzeros of random parts of its weights."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        layer = nn.Conv2d(_CHANNELS, _CHANNELS, _KERNEL, padding=_KERNEL // 2).eval()
        x = torch.randn(images, _CHANNELS, _SIZE, _SIZE)
        last = x.to(memory_format=torch.channels_last)  # then torch changes the weight's layout in every call
        order, arrays = torch.rand_like(layer.weight), [x.numpy()]
        runs: list[Callable[[], object]] = [lambda: layer(x), lambda: layer(last)]
        shares, segments = [], []
        for density in DENSITIES:
            part = copy.deepcopy(layer)
            part.weight.mul_(order <= density)
            shares.append(float((part.weight != 0).float().mean()))
            segments.append(Segment(lower(trace(part, x[:1], inference=True)), vectors))
        sparse_runs = [partial(segment, arrays) for segment in segments]
        side_by_side(sparse_runs)  # code is generated at the first run
        runs += sparse_runs
        first, second, *sparse = _fastest_s(runs)
    flops = 2.0 * images * layer.weight.numel() * _SIZE * _SIZE
    rates = [share * flops / seconds for share, seconds in zip(shares, sparse, strict=True)]
    return flops / min(first, second), dict(zip(DENSITIES, rates, strict=True))
