"""Roofline model of sparse convolution: how much faster a layer runs at a density, and which densities are of use.

Park et al., Faster CNNs with Direct Sparse Convolutions and Guided Pruning, ICLR 2017, section 2.2:

    speedup(x) = (C / F) / max(alpha * x * C / F, (S_A + beta * x * S_W) / B)

C: FLOPs of the dense layer, F: dense FLOP/s, x: share of nonzero weights, alpha: cost of a sparse FLOP in dense ones,
S_A and S_W: bytes of activations and of dense weights, B: bytes/s, beta: bytes of a stored nonzero over a dense weight.
Departs from the paper: the batch is an argument; activations and FLOPs grow with it, weights are read once a batch.
"""

import math
from dataclasses import dataclass

from spokeshave.errors import InvalidArgument


@dataclass(frozen=True)
class MachineRates:
    """What one machine does.

    Attributes:
        dense_flops_per_s: F, of dense convolutions, positive.
        alpha: time of a FLOP on a nonzero over that of a dense FLOP, positive (the paper: 3 on a Xeon, 1.2 on an Atom).
        bytes_per_s: B, of the memory that activations and weights stream from, positive.
        beta: bytes of a nonzero, its index included, over those of a dense weight, positive.
    """

    dense_flops_per_s: float
    alpha: float
    bytes_per_s: float
    beta: float = 2.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 < value < math.inf:
                raise InvalidArgument(f"MachineRates: {name} must be finite and above 0, got {value}")


@dataclass(frozen=True)
class LayerWork:
    """What one layer asks for.

    Attributes:
        name: of the layer in its model.
        flops_per_image: C, two for each multiply-add of the dense layer.
        activation_bytes: S_A, input and output of one image.
        weight_bytes: S_W, of the dense weight.
    """

    name: str
    flops_per_image: float
    activation_bytes: float
    weight_bytes: float


def projected_speedup(work: LayerWork, rates: MachineRates, x: float, batch: int = 1) -> float:
    """Time of the dense layer over that of the sparse one.

    Args:
        work: of the layer.
        rates: of the machine.
        x: share of the weights that are not zero, 0..1; 0 gives the most that any sparsity could give.
        batch: images at a time, at least 1.

    Returns:
        The speedup; below 1 the sparse layer is slower.

    Raises:
        InvalidArgument: where x is outside 0..1 or the batch below 1.

    Example:
        >>> rates = MachineRates(dense_flops_per_s=100.0, alpha=2.0, bytes_per_s=10.0)
        >>> work = LayerWork("conv", flops_per_image=1000.0, activation_bytes=10.0, weight_bytes=20.0)
        >>> projected_speedup(work, rates, 0.25)  # 10 s dense; 5 s of work, 2 s of traffic
        2.0
    """
    if not 0 <= x <= 1 or batch < 1:
        raise InvalidArgument(f"{work.name}: expected a density of 0..1 and a batch of 1 or more, got {x} and {batch}")
    dense_s = batch * work.flops_per_image / rates.dense_flops_per_s
    traffic_s = (batch * work.activation_bytes + rates.beta * x * work.weight_bytes) / rates.bytes_per_s
    return dense_s / max(rates.alpha * x * dense_s, traffic_s)


def lower_bound(rates: MachineRates) -> float:
    """The density that a layer must get below before sparse code computes less than dense code: 1 / alpha.

    Example:
        >>> lower_bound(MachineRates(2150e9, alpha=4.0, bytes_per_s=122e9))
        0.25
    """
    return 1 / rates.alpha


def upper_bound(work: LayerWork, rates: MachineRates, batch: int = 1) -> float:
    """The density below which memory traffic, not arithmetic, takes the time, so that more zeros gain little.

    Returns:
        x_u = S_A / (alpha C B / F - beta S_W); 1 or more where traffic takes the time at every density.

    Example:
        >>> conv5 = LayerWork("conv5", 149.52e6, 432640, 1769472)
        >>> round(upper_bound(conv5, MachineRates(2150e9, alpha=3.0, bytes_per_s=122e9)), 4)  # the paper: about 0.02
        0.0197
    """
    arithmetic = rates.alpha * batch * work.flops_per_image * rates.bytes_per_s / rates.dense_flops_per_s
    left = arithmetic - rates.beta * work.weight_bytes
    return batch * work.activation_bytes / left if left > 0 else math.inf
