"""The stopwatch behind `measure`: models timed in turns, and time or FLOPs split over the layers of a model.

Every function leaves the model's modes, hooks and torch's thread count as it found them, on errors too.
"""

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

ROOT = "(model)"
"""Name given to what a model does outside every named layer."""

_SAMPLE_S = 1e-3
"""A timed sample repeats the model until it lasts at least this long, so that the clock's grain does not show."""
_FEWEST_SAMPLES = 5


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put every module into eval mode, and afterwards each one back into its own."""
    modes = [(module, module.training) for module in model.modules()]
    for module, _ in modes:  # not eval(): exported programs, whose mode is fixed, refuse it
        module.training = False
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def using_threads(count: int) -> Iterator[None]:
    """Let torch use `count` CPU threads, and afterwards as many as before."""
    earlier = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(earlier)


@contextmanager
def _watching(model: nn.Module, enter: Callable[[str], None], leave: Callable[[str], None]) -> Iterator[None]:
    """Call `enter` and `leave` with a module's name around each of its calls."""
    handles = []
    try:
        for name, module in model.named_modules():
            label = name or ROOT
            handles.append(module.register_forward_pre_hook(lambda *_, label=label: enter(label)))
            handles.append(module.register_forward_hook(lambda *_, label=label: leave(label)))
        yield
    finally:
        for handle in handles:
            handle.remove()


class _OwnShare:
    """Splits a growing total over nested calls: each name gets what grew in it, outside the calls inside it."""

    def __init__(self, total: Callable[[], float]) -> None:
        self.total = total
        self.shares: dict[str, float] = {}
        self._open: list[list[float]] = []

    def enter(self, _name: str) -> None:
        self._open.append([self.total(), 0.0])

    def leave(self, name: str) -> None:
        start, inside = self._open.pop()
        grown = self.total() - start
        self.shares[name] = self.shares.get(name, 0) + grown - inside
        if self._open:
            self._open[-1][1] += grown


def count_flops(model: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[dict[str, int], int]:
    """Count the FLOPs of each module's own operations, and of the whole model."""
    counter = FlopCounterMode(display=False)
    share = _OwnShare(counter.get_total_flops)
    fast_path = torch.backends.mha.get_fastpath_enabled()
    # The counter has no formula for torch's fused attention kernels: count the plain operations that they stand for.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), _watching(model, share.enter, share.leave), counter:
            model(*inputs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
    return {name: int(flops) for name, flops in share.shares.items()}, int(counter.get_total_flops())


def _synchronizer(inputs: tuple[Tensor, ...]) -> Callable[[], None]:
    """Give what waits for the device of the inputs (a CPU needs no waiting)."""
    if any(item.is_cuda for item in inputs):
        return torch.cuda.synchronize
    return lambda: None


def time_in_turns(
    models: Sequence[nn.Module], inputs: tuple[Tensor, ...], threads: int, repeats: int, budget_s: float
) -> list[list[float]]:
    """Time models in turns; a list of seconds a call for each model, paired by index."""
    synchronize = _synchronizer(inputs)

    def timed(model: nn.Module, calls: int) -> float:
        synchronize()
        start = time.perf_counter()
        for _ in range(calls):
            model(*inputs)
        synchronize()
        return (time.perf_counter() - start) / calls

    samples: list[list[float]] = [[] for _ in models]
    with torch.inference_mode(), using_threads(threads):
        for model in models:
            timed(model, 2)
        calls = [max(1, math.ceil(_SAMPLE_S / timed(model, 1))) for model in models]
        start = time.perf_counter()
        for repeat in range(repeats):
            order = range(len(models)) if repeat % 2 == 0 else reversed(range(len(models)))
            for index in order:
                samples[index].append(timed(models[index], calls[index]))
            if repeat + 1 >= _FEWEST_SAMPLES and time.perf_counter() - start > budget_s:
                break
    return samples


def time_layers(
    models: Sequence[nn.Module], inputs: tuple[Tensor, ...], repeats: int, budget_s: float
) -> list[dict[str, float]]:
    """Time every leaf module of each model on one thread, the models in turns; median seconds by name."""
    synchronize = _synchronizer(inputs)

    def clock() -> float:
        synchronize()
        return time.perf_counter()

    seen: list[dict[str, list[float]]] = [{} for _ in models]
    with torch.inference_mode(), using_threads(1):
        start = time.perf_counter()
        for repeat in range(repeats + 1):
            for model, times in zip(models, seen, strict=True):
                share = _OwnShare(clock)
                with _watching(model, share.enter, share.leave):
                    model(*inputs)
                if repeat > 0:  # the first pass warms up
                    for name, elapsed in share.shares.items():
                        times.setdefault(name, []).append(elapsed)
            if repeat >= _FEWEST_SAMPLES and time.perf_counter() - start > budget_s:
                break
    return [{name: statistics.median(values) for name, values in times.items()} for times in seen]


def median_and_spread(samples: Sequence[float]) -> tuple[float, float]:
    """Give the median and the distance between the quartiles (0 for a single sample)."""
    if len(samples) == 1:
        return samples[0], 0.0
    low, _, high = statistics.quantiles(samples, n=4, method="inclusive")
    return statistics.median(samples), high - low
