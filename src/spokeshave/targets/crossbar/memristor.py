"""Memristor: the device at each crosspoint, what conductances it can be set to, and how it misses them.

Wang et al., Group Scissor, DAC 2017, section 2; Wang et al., one-level synapses, ASP-DAC 2017: a weight is the
difference of two memristors, w = scale (g+ - g-), each between g_min (high resistance) and g_max (low resistance).
Departs from the papers: variation, stuck cells, read noise and wire resistance are the usual first-order models of the
field; neither paper's own numbers for them could be read.
"""

import dataclasses
import hashlib
import math
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from spokeshave.errors import InvalidArgument

_STARTS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)
"""Largest magnitudes, as shares of the largest weight, that the search for the best levels starts from."""
_REFINEMENTS = 8
_EXACT = 1e-6


class Spread(Enum):
    """How programmed conductances scatter around what was asked for."""

    LOGNORMAL = "lognormal"
    """g exp(sigma n), n standard normal: the median is kept, and no conductance is negative."""
    GAUSSIAN = "gaussian"
    """g (1 + sigma n), cut off at 0."""


@dataclass(frozen=True)
class Memristor:
    """A kind of memristor, with its imperfections; the default has none.

    Attributes:
        levels: conductances above `g_min_s` that it can be set to, evenly spaced up to `g_max_s`: 1 for a device with
            two states; None for any conductance between both.
        g_max_s: conductance of the low-resistance state, siemens, above 0.
        g_min_s: of the high-resistance state, siemens, 0 or more and below `g_max_s`.
        variation: relative sigma of programming, 0 or more: drawn once for each device when a network is mapped.
        spread: how it is distributed.
        stuck_on: share of devices that stay at `g_max_s`, 0..1.
        stuck_off: share of devices that stay at `g_min_s`, 0..1.
        read_noise: relative sigma of reading, 0 or more: drawn for each device at each call of the network.

    Raises:
        InvalidArgument: for a value out of its range.

    Example:
        >>> device = Memristor.one_level(on_off_ratio=20.0, variation=0.1)
        >>> device.levels, device.g_max_s, device.g_min_s
        (1, 0.0001, 5e-06)
    """

    levels: int | None = None
    g_max_s: float = 1e-4
    g_min_s: float = 0.0
    variation: float = 0.0
    spread: Spread = Spread.LOGNORMAL
    stuck_on: float = 0.0
    stuck_off: float = 0.0
    read_noise: float = 0.0

    def __post_init__(self) -> None:
        if self.levels is not None and self.levels < 1:
            raise InvalidArgument(f"levels: expected at least 1 nonzero level, or None for any, got {self.levels}")
        if not (math.isfinite(self.g_max_s) and 0 <= self.g_min_s < self.g_max_s):
            raise InvalidArgument(f"expected 0 <= g_min_s < g_max_s, got {self.g_min_s} and {self.g_max_s} siemens")
        for name in ("variation", "read_noise"):
            if not (math.isfinite(value := getattr(self, name)) and value >= 0):
                raise InvalidArgument(f"{name}: expected a relative sigma of 0 or more, got {value}")
        if not (min(self.stuck_on, self.stuck_off) >= 0 and self.stuck_on + self.stuck_off <= 1):
            raise InvalidArgument(
                f"expected shares stuck_on + stuck_off of 0..1, got {self.stuck_on} and {self.stuck_off}"
            )

    @staticmethod
    def ideal() -> "Memristor":
        """Any conductance from 0 to g_max, exactly."""
        return Memristor()

    @staticmethod
    def one_level(on_off_ratio: float = 100.0, **changes: Any) -> "Memristor":
        """Two states, as in the ASP-DAC paper; `changes` are further attributes.

        Args:
            on_off_ratio: g_max / g_min, above 1.
            **changes: such as `variation=0.1`.
        """
        return Memristor.n_level(1, on_off_ratio, **changes)

    @staticmethod
    def n_level(levels: int, on_off_ratio: float = 100.0, **changes: Any) -> "Memristor":
        """That many evenly spaced conductances above g_min; `changes` are further attributes.

        Args:
            levels: at least 1.
            on_off_ratio: g_max / g_min, above 1.
            **changes: such as `variation=0.1`.
        """
        if not on_off_ratio > 1:
            raise InvalidArgument(f"on_off_ratio: expected more than 1, got {on_off_ratio}")
        device = dataclasses.replace(Memristor(levels), **changes)
        return dataclasses.replace(device, g_min_s=device.g_max_s / on_off_ratio)

    @property
    def on_off_ratio(self) -> float:
        """g_max / g_min; infinite where g_min is 0."""
        return self.g_max_s / self.g_min_s if self.g_min_s else math.inf

    @property
    def off(self) -> float:
        """g_min in units of g_max, 0..1."""
        return self.g_min_s / self.g_max_s


def fit_levels(weight: Float[Tensor, "..."], levels: int | None) -> tuple[float, Float[Tensor, "..."]]:
    """Nearest weights that a device with so many levels can hold, for the largest magnitude that fits them best.

    Minimizes |q - w|^2 over the largest magnitude m, where q are multiples of m / levels in -m..m: by Lloyd's
    iterations from several starts. Weights that fit exactly are kept.

    Args:
        weight: finite.
        levels: as in `Memristor`; with None every weight fits.

    Returns:
        m, which is 0 for a weight of zeros, and the shares of it that the weights become, in -1..1.

    Example:
        >>> largest, shares = fit_levels(torch.tensor([0.1, -1.1, 0.9, 1.0]), 1)
        >>> round(largest, 3), shares.tolist()
        (1.0, [0.0, -1.0, 1.0, 1.0])
    """
    signed = weight.double()
    magnitude = signed.abs()
    largest = float(magnitude.max()) if weight.numel() else 0.0
    if not largest:
        return 0.0, torch.zeros_like(signed)
    if levels is None:
        return largest, signed / largest
    if float(((magnitude / largest * levels).round() / levels - magnitude / largest).abs().max()) <= _EXACT:
        return largest, (signed / largest * levels).round() / levels
    best, found = math.inf, largest
    for start in _STARTS:
        top = start * largest
        for _ in range(_REFINEMENTS):
            steps = (magnitude * (levels / top)).round_().clamp_(max=levels)
            squares = float(steps.square().sum())
            if not squares:
                break
            refined = float((magnitude * steps).sum()) / squares * levels
            if abs(refined - top) <= _EXACT * top:
                break
            top = refined
        steps = (magnitude * (levels / top)).round_().clamp_(max=levels)
        error = float((steps * (top / levels) - magnitude).square().sum())
        if error < best:
            best, found = error, top
    return found, (signed * (levels / found)).round_().clamp_(-levels, levels) / levels


def program(
    target: Float[Tensor, "..."], device: Memristor, generator: torch.Generator | None = None
) -> Float[Tensor, "..."]:
    """Conductances that devices end up with: variation first, then those that are stuck.

    Args:
        target: conductances asked for, in units of g_max.
        device: the kind.
        generator: of the random numbers; none is drawn for a perfect device.

    Returns:
        conductances in units of g_max, of the same shape and type.

    Example:
        >>> program(torch.ones(2), Memristor(g_min_s=2e-5, stuck_off=1.0))
        tensor([0.2000, 0.2000])
    """
    made = target.clone()
    if device.variation:
        noise = device.variation * torch.randn(target.shape, generator=generator, dtype=target.dtype)
        made *= noise.exp() if device.spread is Spread.LOGNORMAL else (1 + noise).clamp(min=0)
    if device.stuck_on or device.stuck_off:
        drawn = torch.rand(target.shape, generator=generator, dtype=torch.float64)
        made[drawn < device.stuck_on] = 1.0
        made[drawn >= 1 - device.stuck_off] = device.off
    return made


def seeded(*facts: object) -> torch.Generator:
    """A generator of its own for what the facts name, unrelated to that of any others.

    Args:
        *facts: such as a seed, a purpose, the name of a layer.
    """
    digest = hashlib.blake2b("/".join(map(str, facts)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
