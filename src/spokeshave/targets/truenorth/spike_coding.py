"""Spike coding: pixels to spikes in the ticks of a frame.

Wen et al., DAC 2016: a pixel of value x spikes in each tick with probability x (rate code); `spikes per frame`
(spf) ticks show one image. Deterministic codes of TrueNorth beside it.
"""

from enum import Enum

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from spokeshave.errors import InvalidArgument

_LEVELS = 256
"""Values of the chip's random number: probabilities are rounded to multiples of 1/256."""


class SpikeCode(Enum):
    """How a value in 0..1 becomes spikes in the ticks of a frame."""

    STOCHASTIC = "stochastic"
    """In each tick by chance, with the value as probability."""
    RATE = "rate"
    """As many spikes as the value times the ticks, rounded, evenly spread."""
    THRESHOLD = "threshold"
    """In all ticks where the value is at least 0.5, else in none."""


def encode(
    values: Float[Tensor, "images lines"], spikes_per_frame: int, code: SpikeCode, random: np.random.Generator
) -> Bool[Tensor, "images ticks lines"]:
    """Spikes of a frame.

    Args:
        values: 0..1.
        spikes_per_frame: ticks, at least 1.
        code: see `SpikeCode`.
        random: for the stochastic code.

    Raises:
        InvalidArgument: for values outside 0..1, with the range found.

    Example:
        >>> value = torch.tensor([[0.5]])
        >>> encode(value, 4, SpikeCode.RATE, np.random.default_rng(0)).flatten().tolist()
        [False, True, False, True]
    """
    _require_shares(values)
    if code is SpikeCode.THRESHOLD:
        return (values >= 0.5)[:, None].expand(-1, spikes_per_frame, -1)
    if code is SpikeCode.RATE:
        due = (values * spikes_per_frame).round()[:, None]
        ticks = torch.arange(spikes_per_frame + 1, device=values.device)[:, None]
        return ((due * ticks / spikes_per_frame).floor()).diff(dim=1) > 0
    drawn = random.integers(0, _LEVELS, (len(values), spikes_per_frame, values.shape[1]), np.uint8)
    return torch.from_numpy(drawn < chances(values)[:, None])


def chances(values: Float[Tensor, "images lines"]) -> np.ndarray:
    """Probabilities of spikes in 256ths, int16.

    Raises:
        InvalidArgument: for values outside 0..1, with the range found.

    Example:
        >>> chances(torch.tensor([[0.0, 0.25, 1.0]])).tolist()
        [[0, 64, 256]]
    """
    _require_shares(values)
    return (values.cpu() * _LEVELS).round().to(torch.int16).numpy()


def _require_shares(values: Tensor) -> None:
    low, high = float(values.min()), float(values.max())
    if not 0 <= low <= high <= 1:
        raise InvalidArgument(f"pixels: expected values of 0..1, the probabilities of spikes, got {low}..{high}")
