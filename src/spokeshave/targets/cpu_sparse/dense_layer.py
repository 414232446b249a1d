"""Dense layer: a convolution or linear layer of a sparse network that torch runs, since that is faster.

The same step as the generated code would run (batch normalization folded, shortcut and ReLU included), on a weight that
is made dense once.
"""

import time
from collections.abc import Mapping

import torch
from torch import Tensor

from spokeshave.jit.host_cpu import host_cpu
from spokeshave.targets.cpu_sparse.network_steps import Convolve, Multiply
from spokeshave.targets.cpu_sparse.reference_steps import run_step
from spokeshave.timing import using_threads
from spokeshave.user_cache import FactCache

_FACTS = FactCache("dense-layers")
_METHOD = 1
"""Number of the way of measuring: what another way found is not taken from the user's cache."""
_MOST_IMAGES = 16
"""Larger batches are not run for the measurement: their time grows with the images."""
_ENOUGH_S, _CALLS, _MOST_S = 0.01, 4, 0.2
"""Calls are repeated until so much time is spent on so many of them, or a lot of it."""


class DenseLayer:
    """One step, run by torch.

    Args:
        step: of the network.

    Attributes:
        layer: its name.
        inputs: names of the values it reads.
        output: name of the value it makes.
    """

    def __init__(self, step: Convolve | Multiply) -> None:
        self.step = step
        self.layer, self.inputs, self.output = step.layer, step.inputs, step.output
        self._weight = torch.from_numpy(step.weight.dense())

    def __call__(self, values: list[Tensor]) -> Tensor:
        """Compute.

        Args:
            values: float32, [images, ...], in the order of `inputs`.
        """
        return run_step(self.step, values, self._weight)


def dense_seconds(step: Convolve | Multiply, shapes: Mapping[str, tuple[int, ...]], images: int) -> float:
    """Time torch on one step, on one thread; what was found is kept in the user's cache.

    Args:
        step: of the network.
        shapes: value name -> shape without the batch axis.
        images: in a batch.

    Returns:
        seconds of the fastest call, divided by torch's number of threads, as the roofline counts generated code.
    """
    windows = (step.stride, step.padding, step.dilation, step.groups) if isinstance(step, Convolve) else ()
    read = [shapes[name] for name in step.inputs]
    timed = min(images, _MOST_IMAGES)
    facts = (torch.__version__, host_cpu().name, timed, step.weight.shape, windows, step.rectify, read)
    key = " ".join(map(str, (_METHOD, *facts)))
    seconds = _FACTS.get(key)
    if not (isinstance(seconds, float) and seconds > 0):
        values = [torch.full((timed, *shape), 0.5, dtype=torch.float32, device="cpu") for shape in read]
        with torch.no_grad(), using_threads(1):
            seconds = _fastest_call(DenseLayer(step), values)
        _FACTS.keep({key: seconds})
    return seconds * images / timed / torch.get_num_threads()


def _fastest_call(layer: DenseLayer, values: list[Tensor]) -> float:
    layer(values)  # the first call makes oneDNN's plans
    times: list[float] = []
    while sum(times) < _MOST_S and (len(times) < _CALLS or sum(times) < _ENOUGH_S):
        begin = time.perf_counter()
        layer(values)
        times.append(time.perf_counter() - begin)
    return min(times)
