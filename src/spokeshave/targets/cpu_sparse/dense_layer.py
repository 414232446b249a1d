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
from spokeshave.user_cache import FactCache

_FACTS = FactCache("dense-layers")
_ENOUGH_S = 0.01
"""Calls are repeated until so much time is spent: long ones are steady, and networks have many of them."""


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
    """Time torch on one step, on torch's number of threads; what was found is kept in the user's cache.

    Args:
        step: of the network.
        shapes: value name -> shape without the batch axis.
        images: in a batch.

    Returns:
        seconds of the fastest call.
    """
    windows = (step.stride, step.padding, step.dilation, step.groups) if isinstance(step, Convolve) else ()
    read = [shapes[name] for name in step.inputs]
    key = " ".join(
        str(part)
        for part in (
            torch.__version__, host_cpu().name, torch.get_num_threads(), images, step.weight.shape, windows,
            step.rectify, read,
        )
    )  # fmt: skip
    known = _FACTS.get(key)
    if isinstance(known, float) and known > 0:
        return known
    layer, values = DenseLayer(step), [torch.rand(images, *shape) for shape in read]
    layer(values)  # the first call makes oneDNN's plans
    times: list[float] = []
    while sum(times) < _ENOUGH_S:
        begin = time.perf_counter()
        layer(values)
        times.append(time.perf_counter() - begin)
    _FACTS.keep({key: min(times)})
    return min(times)
