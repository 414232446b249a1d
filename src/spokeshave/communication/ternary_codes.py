"""Ternary codes: a gradient as a scaler and signs, -1, 0 or 1, drawn so that their mean is the gradient.

TernGrad, Wen et al., NIPS 2017, equations 1 to 4: g~ = s * sign(g) * b, s = max|g|, P(b = 1) = |g| / s; before it the
gradient is clipped at c * sigma, layer by layer.
Departs from the paper: sigma is about zero by default (`Deviation`): about the mean, a layer whose gradients are all
alike would be clipped to nothing; for gradients around zero, the paper's assumption, both are the same.
The functions are the definition, on any device; what runs on CPUs by default is generated: ternary_packing.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64
from torch import Tensor

from spokeshave.communication.counter_random import RANDOM_BITS, StreamKey, random_numbers

SMALLEST_SCALER = 2.0**-100
"""Gradients below it count as zero: the reciprocal of their scaler leaves float32."""


class Deviation(Enum):
    """Where a layer's standard deviation is taken from: zero, or the layer's mean as in the authors' code."""

    ABOUT_ZERO = "about-zero"
    ABOUT_MEAN = "about-mean"


ELEMENTS, LARGEST, TOTAL, SQUARES = range(4)
"""Columns of a layer's statistics: number of elements, max|g|, sum of g, sum of g**2."""


def statistics_of(gradient: Float32[Tensor, " elements"]) -> Float64[Tensor, "4"]:
    """What a layer's scaler is made from, in the order of the columns above; not finite where an element is not.

    Args:
        gradient: of a layer, on any device.

    Example:
        >>> statistics_of(torch.tensor([3.0, -4.0])).tolist()
        [2.0, 4.0, -1.0, 25.0]
    """
    wide = gradient.double()
    count = torch.full((), gradient.numel(), dtype=torch.float64, device=gradient.device)
    largest = wide.abs().max() if gradient.numel() else count
    return torch.stack([count, largest, wide.sum(), wide.square().sum()])


def joint_statistics(statistics: Float64[Tensor, "layers 4"]) -> Float64[Tensor, "layers 4"]:
    """The statistics of some layers as if they were one, for each of them.

    Example:
        >>> joint_statistics(torch.tensor([[1.0, 2.0, 2.0, 4.0], [1.0, 3.0, -3.0, 9.0]]).double())[0].tolist()
        [2.0, 3.0, -1.0, 13.0]
    """
    if not len(statistics):
        return statistics
    whole = statistics.sum(0)
    whole[LARGEST] = statistics[:, LARGEST].amax()
    return whole.expand(len(statistics), -1)


def local_scalers(
    statistics: Float64[Tensor, "layers 4"], clip_factor: float | None, deviation: Deviation = Deviation.ABOUT_ZERO
) -> Float32[Tensor, " layers"]:
    """A worker's own scalers, where it clips as well: min(max|g|, c * sigma).

    Args:
        statistics: of the layers.
        clip_factor: c, positive; None for no clipping.
        deviation: sigma of what.

    Returns:
        infinity where a gradient is not finite: it survives a maximum over workers, as NaN does not. 0 where all
        elements are (nearly) zero.

    Example:
        >>> four = torch.tensor([[4.0, 3.0, 0.0, 4.0]], dtype=torch.float64)
        >>> local_scalers(four, 2.5), local_scalers(four, None)
        (tensor([2.5000]), tensor([3.]))
    """
    with _small_arrays(statistics) as (small, table):
        count, largest, total, squares = table.T
        count = small.clip(count, 1, None)
        scalers = largest
        if clip_factor is not None:
            variance = squares / count
            if deviation is Deviation.ABOUT_MEAN:
                variance = small.clip(variance - (total / count) ** 2, 0, None)
            scalers = small.minimum(scalers, clip_factor * small.sqrt(variance))
        scalers = small.where(scalers >= SMALLEST_SCALER, scalers, 0.0)
        # The squares tell what is not finite: the largest value may have passed over NaN.
        scalers = small.where(small.isfinite(squares), scalers, math.inf)
        return torch.as_tensor(small.asarray(scalers, dtype=small.float32))


def draw_factors(scalers: Float32[Tensor, " layers"]) -> Float32[Tensor, " layers"]:
    """What absolute values are multiplied by to be compared with random numbers; 0 for no draw.

    Args:
        scalers: s; where it is 0 or infinite nothing is drawn: all codes are zero.

    Example:
        >>> draw_factors(torch.tensor([2.0, float("inf"), 0.0])).tolist() == [2.0**23, 0.0, 0.0]
        True
    """
    with _small_arrays(scalers) as (small, values):
        draws = (values > 0) & small.isfinite(values)
        return torch.as_tensor(small.where(draws, 2.0**RANDOM_BITS / values, 0.0))


@contextmanager
def _small_arrays(values: Tensor) -> Iterator[tuple[Any, Any]]:
    """What computes with a few numbers, and the numbers in its own kind: NumPy on the CPU, ten times as fast as torch.

    Both have the functions of the array API, and the same bits. Neither warns where a result is not finite.
    """
    if values.device.type == "cpu":
        with np.errstate(all="ignore"):
            yield np, values.numpy()
    else:
        yield torch, values


def ternarize(
    gradient: Float32[Tensor, " elements"],
    scaler: Float32[Tensor, ""],
    key: StreamKey,
    clip_at: Float32[Tensor, ""] | None = None,
    first: int = 0,
) -> Int64[Tensor, " elements"]:
    """Draw the codes of a layer.

    Args:
        gradient: of the layer.
        scaler: s, shared by the workers or this one's own.
        key: of the random numbers.
        clip_at: this worker's own scaler, at which it clips: larger absolute values count as it.
        first: number of the first element in its layer, where this is a part of one.

    Returns:
        -1, 0 or 1; all 0 where the scaler is 0 or infinite.

    Example:
        >>> ternarize(torch.tensor([1.0, -1.0, 0.0]), torch.tensor(1.0), StreamKey(0, 0)).tolist()
        [1, -1, 0]
    """
    sizes = gradient.abs() if clip_at is None else torch.minimum(gradient.abs(), clip_at)
    # An infinity of the gradient times a factor of 0 is NaN, which no number is below.
    drawn = random_numbers(key, gradient.numel(), gradient.device, first).float() < sizes * draw_factors(scaler[None])
    return torch.where(drawn, torch.where(gradient < 0, -1, 1), 0)


def decode_factors(scalers: Float32[Tensor, " layers"], workers: int) -> Float32[Tensor, " layers"]:
    """What sums of codes are multiplied by to be the workers' mean gradient: s / N.

    An infinite scaler makes every element of its layer NaN or infinite, so that loss scaling sees it.

    Args:
        scalers: shared by the workers.
        workers: N.

    Example:
        >>> decode_factors(torch.tensor([3.0]), 2) * torch.tensor([2, -1, 0])
        tensor([ 3.0000, -1.5000,  0.0000])
    """
    return scalers / workers
