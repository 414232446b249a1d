"""Ternary codes: a gradient as a scaler and signs, -1, 0 or 1, drawn so that their mean is the gradient.

TernGrad, Wen et al., NIPS 2017, equations 1 to 4: g~ = s * sign(g) * b, s = max|g|, P(b = 1) = |g| / s; before it the
gradient is clipped at c * sigma, layer by layer.
Departs from the paper: sigma is about zero by default (`Deviation`): about the mean, a layer whose gradients are all
alike would be clipped to nothing; for gradients around zero, the paper's assumption, both are the same.
The functions are the definition, on any device; what runs on CPUs by default is generated: ternary_packing.
"""

import math
from dataclasses import dataclass
from enum import Enum

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from spokeshave.communication.counter_random import RANDOM_BITS, StreamKey, random_numbers

SMALLEST_SCALER = 2.0**-100
"""Gradients below it count as zero: the reciprocal of their scaler leaves float32."""


class Deviation(Enum):
    """Where a layer's standard deviation is taken from: zero, or the layer's mean as in the authors' code."""

    ABOUT_ZERO = "about-zero"
    ABOUT_MEAN = "about-mean"


@dataclass(frozen=True)
class Statistics:
    """What a scaler is made from.

    Attributes:
        elements: of the tensor.
        largest: max|g|; infinite or NaN where an element is.
        total: sum of g.
        squares: sum of g**2.
    """

    elements: int
    largest: float
    total: float
    squares: float


def statistics_of(gradient: Float32[Tensor, " elements"]) -> Statistics:
    """Sums and the largest absolute value, in float64.

    Args:
        gradient: of a layer.

    Example:
        >>> statistics_of(torch.tensor([3.0, -4.0]))
        Statistics(elements=2, largest=4.0, total=-1.0, squares=25.0)
    """
    if not gradient.numel():
        return Statistics(0, 0.0, 0.0, 0.0)
    wide = gradient.double()
    return Statistics(gradient.numel(), float(wide.abs().max()), float(wide.sum()), float(wide.square().sum()))


def local_scaler(
    statistics: Statistics, clip_factor: float | None, deviation: Deviation = Deviation.ABOUT_ZERO
) -> float:
    """A worker's own scaler: min(max|g|, c * sigma), a float32.

    Args:
        statistics: of the layer.
        clip_factor: c, positive; None for no clipping.
        deviation: sigma of what.

    Returns:
        infinity where the gradient is not finite: it survives a maximum over workers, as NaN does not. 0 where all
        elements are (nearly) zero.

    Example:
        >>> local_scaler(Statistics(4, 3.0, 0.0, 4.0), 2.5), local_scaler(Statistics(4, 3.0, 0.0, 4.0), None)
        (2.5, 3.0)
    """
    if not math.isfinite(statistics.largest):
        return math.inf
    scaler = statistics.largest
    if clip_factor is not None and statistics.elements:
        mean = statistics.total / statistics.elements if deviation is Deviation.ABOUT_MEAN else 0.0
        variance = max(0.0, statistics.squares / statistics.elements - mean * mean)
        scaler = min(scaler, clip_factor * math.sqrt(variance))
    return as_float32(scaler) if scaler >= SMALLEST_SCALER else 0.0


def as_float32(value: float) -> float:
    """The float32 nearest to a number."""
    return float(torch.tensor(value, dtype=torch.float32))


def draw_factor(scaler: float) -> float:
    """What an absolute value is multiplied by, as a float32, to be compared with a random number; 0 for no draw.

    Args:
        scaler: s; 0 or infinite ones draw nothing: all codes are zero.

    Example:
        >>> draw_factor(2.0) == 2.0**23, draw_factor(float("inf"))
        (True, 0.0)
    """
    return as_float32(2.0**RANDOM_BITS / scaler) if math.isfinite(scaler) and scaler > 0 else 0.0


def ternarize(
    gradient: Float32[Tensor, " elements"], scaler: float, key: StreamKey, clip_at: float = math.inf
) -> Int64[Tensor, " elements"]:
    """Draw the codes of a layer.

    Args:
        gradient: of the layer.
        scaler: s, shared by the workers or this one's own, a float32.
        key: of the random numbers.
        clip_at: this worker's own clipping threshold; absolute values above it count as it.

    Returns:
        -1, 0 or 1; all 0 where the scaler is 0 or infinite.

    Example:
        >>> ternarize(torch.tensor([1.0, -1.0, 0.0]), 1.0, StreamKey(0, 0)).tolist()
        [1, -1, 0]
    """
    # An infinity of the gradient times a factor of 0 is NaN, which no number is below.
    chance = gradient.abs().clamp(max=clip_at) * draw_factor(scaler)
    drawn = random_numbers(key, gradient.numel(), gradient.device).float() < chance
    return torch.where(drawn, torch.where(gradient < 0, -1, 1), 0)


def decode_factor(scaler: float, workers: int) -> float:
    """What a sum of codes is multiplied by to be the mean gradient: s / N as a float32.

    Example:
        >>> decode_factor(3.0, 2)
        1.5
    """
    return as_float32(scaler / workers)


def mean_gradient(sums: Int64[Tensor, " elements"], scaler: float, workers: int) -> Float32[Tensor, " elements"]:
    """The workers' mean gradient from the sum of their codes.

    Args:
        sums: of codes, -N..N.
        scaler: shared by the workers; an infinite one makes elements NaN or infinite, so that loss scaling sees it.
        workers: N.

    Example:
        >>> mean_gradient(torch.tensor([2, -1, 0]), 3.0, 2).tolist()
        [3.0, -1.5, 0.0]
    """
    return sums.float() * decode_factor(scaler, workers)
