"""Converters: what turns digital inputs into voltages (DAC) and currents into digital sums (ADC), with few bits.

Both are uniform and symmetric: with b bits, 2^(b-1) - 1 steps on each side of 0 up to the range r, so that 0 stays 0:
q(x) = r / n * round(n * clamp(x / r, -1, 1)), n = 2^(b-1) - 1. An ADC reads every tile before tiles are added.
Departs from the paper: Group Scissor has no converters.
"""

from dataclasses import dataclass
from enum import Enum

import torch
from jaxtyping import Float
from torch import Tensor

from spokeshave.errors import InvalidArgument

FEWEST_BITS, MOST_BITS = 2, 24


class Range(Enum):
    """Where the range of a converter comes from."""

    CALIBRATED = "calibrated"
    """The largest magnitude seen when the network ran on the example; larger values are cut off."""
    PER_CALL = "per call"
    """The largest magnitude of the batch at hand, so that nothing is cut off."""


class Readout(Enum):
    """What an ADC converts."""

    PAIR = "pair"
    """The difference of both crossbars of a pair, which are subtracted as currents."""
    EACH = "each"
    """Either crossbar by itself; the difference is taken of the numbers."""


@dataclass(frozen=True)
class Converters:
    """The converters of every crossbar; by default inputs and outputs are exact.

    Attributes:
        dac_bits: bits of an input, 2..24; None for exact inputs.
        adc_bits: bits of what comes out of a tile, 2..24; None for exact sums.
        range: where both ranges come from, one a layer.
        readout: what an ADC converts.
    """

    dac_bits: int | None = None
    adc_bits: int | None = None
    range: Range = Range.CALIBRATED
    readout: Readout = Readout.PAIR

    def __post_init__(self) -> None:
        for name in ("dac_bits", "adc_bits"):
            bits = getattr(self, name)
            if bits is not None and not FEWEST_BITS <= bits <= MOST_BITS:
                raise InvalidArgument(f"{name}: expected {FEWEST_BITS}..{MOST_BITS} bits or None, got {bits}")

    @property
    def needs_example(self) -> bool:
        """True where a range has to be calibrated."""
        return self.range is Range.CALIBRATED and (self.dac_bits, self.adc_bits) != (None, None)


def steps_of(bits: int) -> int:
    """Steps of a converter on each side of 0."""
    return 2 ** (bits - 1) - 1


def largest(values: Float[Tensor, "..."]) -> Float[Tensor, ""]:
    """Largest magnitude; 0 of nothing."""
    if not values.numel():
        return values.new_zeros(())
    low, high = torch.aminmax(values.detach())
    return torch.maximum(-low, high)


def convert(values: Float[Tensor, "..."], bits: int, limit: Float[Tensor, ""]) -> Float[Tensor, "..."]:
    """What a converter makes of values; straight-through: the gradient is that of the clamp alone.

    Args:
        values: any.
        bits: 2..24.
        limit: the range, 0 or more; with 0 everything becomes 0.

    Returns:
        the values on the converter's grid.

    Example:
        >>> convert(torch.tensor([0.2, -0.4, 3.0]), 2, torch.tensor(1.0))
        tensor([0., -0., 1.])
    """
    steps = steps_of(bits)
    size = (limit / steps).clamp(min=torch.finfo(values.dtype).tiny)
    scaled = values.div(size)
    if not (torch.is_grad_enabled() and values.requires_grad):
        return scaled.round_().clamp_(-steps, steps).mul_(size * (limit > 0))
    clamped = scaled.clamp(-steps, steps)
    return (clamped + (clamped.round() - clamped).detach()) * (size * (limit > 0))
