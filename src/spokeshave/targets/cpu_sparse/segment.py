"""Segment: a run of native steps, for any number of images, from any number of threads.

Whole vectors of images go through the batch-lanes engine, what is left goes through one engine or the other, whichever
was faster when both were timed. Each layout is compiled when it is first wanted. An engine serves one caller at a time;
a second caller gets an engine of its own, which shares the first one's code.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Lock

import numpy as np
import torch

from spokeshave.errors import InvalidArgument
from spokeshave.jit.host_cpu import VectorSet
from spokeshave.jit.operation_sequence import run_side_by_side
from spokeshave.targets.cpu_sparse.batch_lanes_engine import BatchLanesEngine
from spokeshave.targets.cpu_sparse.compiled_convolution import CompiledConvolution
from spokeshave.targets.cpu_sparse.native_engine import NativeEngine
from spokeshave.targets.cpu_sparse.network_steps import NetworkSteps
from spokeshave.targets.cpu_sparse.pixel_lanes_engine import PixelLanesEngine

_TRIALS, _TRIALS_S = 5, 0.02
"""Runs by which a layout is timed: so many, or fewer where they take longer than so many seconds."""
_LONG_S = 0.002
"""A run that takes longer is worth sharing among threads, without a look at how long one thread takes."""

Layout = type[BatchLanesEngine] | type[PixelLanesEngine]


class Segment:
    """Native part of a network.

    Args:
        network: steps, none of which is a fallback.
        vectors: set of instructions.
        tune_s: seconds that tuning may take for each layout and number of threads.
    """

    def __init__(self, network: NetworkSteps, vectors: VectorSet, tune_s: float = 0.0) -> None:
        self.network, self.vectors, self.tune_s = network, vectors, tune_s
        self._lock = Lock()
        self._code: dict[tuple[Layout, int], dict[str, object]] = {}
        self._free: dict[tuple[Layout, int], list[NativeEngine]] = {}
        self._time: dict[tuple[Layout, int], float] = {}
        self._together: dict[tuple[Layout, int], bool] = {}
        self._separate: dict[tuple[Layout, int], bool] = {}

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        """A copy, or what another process receives, compiles again: code and memory belong to this object."""
        return Segment, (self.network, self.vectors, self.tune_s)

    @contextmanager
    def engine(self, layout: Layout) -> Iterator[NativeEngine]:
        """An engine that nobody else uses meanwhile."""
        free, engine = self._take(layout)
        yield engine
        free.append(engine)  # an engine whose run failed is not given back

    def _take(self, layout: Layout, threads: int | None = None) -> tuple[list[NativeEngine], NativeEngine]:
        """A free engine, made where there is none, and the list that it is to be given back to."""
        threads = threads or torch.get_num_threads()
        if threads > 1 and not self._gains(layout, threads):
            threads = 1
        free = self._free.setdefault((layout, threads), [])
        try:
            return free, free.pop()
        except IndexError:
            with self._lock:  # so that callers who come at the same time share the code
                return free, self._made(layout, threads)

    def _made(self, layout: Layout, threads: int) -> NativeEngine:
        code = self._code.setdefault((layout, threads), self._rows(layout))
        return layout(self.network, self.vectors, threads, code, self.tune_s)

    def _gains(self, layout: Layout, threads: int) -> bool:
        """Whether an engine is faster on some threads than on one: where steps take microseconds, it is not."""
        key = (layout, threads)
        if key not in self._together:
            with self._lock:
                if key not in self._together:
                    self._together[key] = self._compared(layout, threads)
        return self._together[key]

    def _compared(self, layout: Layout, threads: int) -> bool:
        """Time an engine for some threads beside one for one thread, whose tiles were chosen for that; keep one."""
        inputs, results = self._ones(layout)
        known = set(self._code)
        engines = {threads: self._made(layout, threads)}
        times: dict[int, list[float]] = {}
        for turn in range(2 + _TRIALS):
            for count, engine in engines.items():
                begin = time.perf_counter()
                engine(inputs, results)
                if turn:  # the first brings code and weights into the caches
                    times.setdefault(count, []).append(time.perf_counter() - begin)
            if turn == 1 and times[threads][0] > _LONG_S:
                break
            if turn == 1:
                engines[1] = self._made(layout, 1)
        fastest = min(times, key=lambda count: min(times[count]))
        for count in engines.keys() - {fastest}:
            if (layout, count) not in known:
                del self._code[layout, count]
        self._free.setdefault((layout, fastest), []).append(engines[fastest])
        return fastest == threads

    def _rows(self, layout: Layout) -> dict[str, object]:
        """Matrices of linear layers that a layout has packed: they are the same for any number of threads."""
        packed = [code for (other, _), code in self._code.items() if other is layout]
        return {
            name: part for code in packed for name, part in code.items() if not isinstance(part, CompiledConvolution)
        }

    def engines(self) -> list[NativeEngine]:
        """Engines that were made and that nobody uses now."""
        with self._lock:
            return [engine for free in self._free.values() for engine in free]

    def time_s(self, layout: Layout) -> float:
        """Seconds of one run of a layout, measured once for each number of threads."""
        key = (layout, torch.get_num_threads())
        if key not in self._time:
            inputs, results = self._ones(layout)
            with self.engine(layout) as engine:
                engine(inputs, results)
                times: list[float] = []
                while len(times) < _TRIALS and (len(times) < 2 or sum(times) < _TRIALS_S):
                    begin = time.perf_counter()
                    engine(inputs, results)
                    times.append(time.perf_counter() - begin)
            self._time[key] = min(times)
        return self._time[key]

    def _ones(self, layout: Layout, runs: int = 1) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Inputs to time some runs of a layout with, and room for their results."""
        images = runs * (self.vectors.lanes if layout is BatchLanesEngine else 1)
        inputs = [np.ones((images, *self.network.shapes[name]), np.float32) for name in self.network.inputs]
        return inputs, self._results(images)

    def _results(self, images: int) -> list[np.ndarray]:
        return [np.empty((images, *self.network.shapes[name]), np.float32) for name in self.network.outputs]

    def __call__(
        self, inputs: Sequence[np.ndarray], layout: Layout | None = None, seconds: dict[str, float] | None = None
    ) -> list[np.ndarray]:
        """Compute.

        Args:
            inputs: float32, contiguous, [images, ...].
            layout: for all images; none for whatever is fastest.
            seconds: where the time of each step is added up, by its output; none for one run without looking.

        Returns:
            the outputs, [images, ...].

        Raises:
            InvalidArgument: an input has another shape or dtype.
        """
        images = len(inputs[0])
        for name, array in zip(self.network.inputs, inputs, strict=True):
            wanted = (images, *self.network.shapes[name])
            if array.shape != wanted or array.dtype != np.float32:  # machine code would read beyond its end
                raise InvalidArgument(
                    f"{name}: expected float32 of shape {wanted}, got {array.dtype} of shape {array.shape}; give every "
                    "input as many images as the first, and call .float() on what is not float32"
                )
        results = self._results(images)
        sources, targets = ([array.ctypes.data for array in arrays] for arrays in (inputs, results))
        self.run_at(sources, targets, images, layout, seconds)
        return results

    def run_at(
        self,
        inputs: list[int],
        results: list[int],
        images: int,
        layout: Layout | None = None,
        seconds: dict[str, float] | None = None,
    ) -> None:
        """Compute.

        Args:
            inputs: address of each input, float32, contiguous, [images, ...].
            results: likewise of the outputs, which are written.
            images: how many.
            layout: for all images; none for whatever is fastest.
            seconds: where the time of each step is added up, by its output; none for one run without looking.
        """
        lanes = self.vectors.lanes
        if images in (1, lanes) and layout is None and seconds is None:
            # One run, whatever the threads: what follows takes as long as a small network does.
            free, engine = self._take(BatchLanesEngine if images == lanes else PixelLanesEngine)
            engine.seconds = None
            engine.aim(inputs, results, images)
            engine.run()
            free.append(engine)
            return
        whole = images // lanes * lanes
        rest = images - whole
        if layout is not None:
            whole = images if layout is BatchLanesEngine else 0
        elif rest > 1 and rest * self.time_s(PixelLanesEngine) > self.time_s(BatchLanesEngine):
            whole = images
        if whole:
            self._run_part(BatchLanesEngine, inputs, results, range(0, whole, lanes), seconds)
        if whole < images:
            self._run_part(PixelLanesEngine, inputs, results, range(whole, images), seconds)

    def _run_part(
        self, layout: Layout, inputs: list[int], results: list[int], starts: range, seconds: dict[str, float] | None
    ) -> None:
        threads, apart = torch.get_num_threads(), 0
        if threads > 1 and seconds is None and len(starts) >= threads and self._apart(layout):
            apart = len(starts) // threads * threads
            self._run_apart(layout, inputs, results, starts, apart)
        if apart < len(starts):
            free, engine = self._take(layout)
            engine.seconds = seconds
            for start in starts[apart:]:
                _aim(engine, inputs, results, start, starts)
                engine.run()
            free.append(engine)

    def _run_apart(self, layout: Layout, inputs: list[int], results: list[int], starts: range, count: int) -> None:
        """Run the first `count` of the starts, each thread on images of its own: nothing is waited for."""
        threads = torch.get_num_threads()
        taken = [self._take(layout, 1) for _ in range(threads)]
        sequences = np.array([engine.sequence for _, engine in taken], np.int64)
        for first in range(0, count, threads):
            for (_, engine), start in zip(taken, starts[first : first + threads], strict=True):
                engine.seconds = None
                _aim(engine, inputs, results, start, starts)
            run_side_by_side(sequences, threads)
        for free, engine in taken:
            free.append(engine)

    def _apart(self, layout: Layout) -> bool:
        """Whether threads that take images of their own are done sooner than all of them with one after another.

        They are where steps are short; where values fill the caches, those of one vector of images fit better.
        """
        key = (layout, torch.get_num_threads())
        if key not in self._separate:
            inputs, results = self._ones(layout, key[1])
            sources, targets = ([array.ctypes.data for array in arrays] for arrays in (inputs, results))
            starts = range(0, len(inputs[0]), len(inputs[0]) // key[1])
            times: list[float] = []
            for _ in range(1 + _TRIALS):
                begin = time.perf_counter()
                self._run_apart(layout, sources, targets, starts, key[1])
                times.append(time.perf_counter() - begin)
            self._separate[key] = min(times[1:]) < key[1] * self.time_s(layout)
            if not self._separate[key] and self._gains(*key):
                self._free.pop((layout, 1), None)  # their memory is not wanted any more
        return self._separate[key]


def _aim(engine: NativeEngine, inputs: list[int], results: list[int], start: int, starts: range) -> None:
    """Let an engine work on the images from `start` on, as many as it takes and as there are."""
    engine.aim(
        [address + start * size for address, size in zip(inputs, engine.input_bytes, strict=True)],
        [address + start * size for address, size in zip(results, engine.output_bytes, strict=True)],
        min(starts.step, starts.stop - start),
    )
