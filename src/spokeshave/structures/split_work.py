"""Split work: FLOPs, bytes and time that a layer costs whole and split, and the speedup that the paper counts.

Wen et al., Coordinating Filters, ICCV 2017, section 4, with N filters of C k k weights and a basis of M of them:

    theoretical speedup = N C k k / (M (C k k + N))

It counts multiply-adds only. The time that is compared before a layer is split also counts memory: the roofline
(Williams et al., CACM 2009) of each launched layer, max(FLOPs / F, bytes / B), where a split layer is two launches.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from torch import nn

from spokeshave.errors import InvalidArgument
from spokeshave.structures.groups import TRANSPOSED
from spokeshave.structures.layer_calls import LayerCall
from spokeshave.structures.layer_spectrum import Split, filters_of, kernel_area
from spokeshave.structures.roofline_model import MachineRates

NOMINAL_RATES = MachineRates(dense_flops_per_s=50e9, alpha=3.0, bytes_per_s=10e9)
"""A core of a recent CPU; only the 5 FLOPs to the byte matter here. The same everywhere, so that all workers of a job
and all machines split the same layers; `measure_roofline().rates()` has those of the machine at hand."""


@dataclass(frozen=True)
class Launch:
    """One layer as a machine runs it.

    Attributes:
        flops: two for each multiply-add.
        moved_bytes: input, output and weight.
    """

    flops: float
    moved_bytes: float

    def seconds(self, rates: MachineRates) -> float:
        """Time by the roofline.

        Example:
            >>> Launch(100.0, 30.0).seconds(MachineRates(100.0, 1.0, bytes_per_s=10.0))
            3.0
        """
        return max(self.flops / rates.dense_flops_per_s, self.moved_bytes / rates.bytes_per_s)


@dataclass(frozen=True)
class FilterSizes:
    """Sizes of a layer that is not at hand.

    Attributes:
        filters: N of each group.
        taps: C k k, weights of each filter.
        groups: of the convolution.
    """

    filters: int
    taps: int
    groups: int = 1


def theoretical_speedup(layer: nn.Module | FilterSizes, rank: int) -> float:
    """Multiply-adds of a layer over those of its basis filters and combinations.

    Args:
        layer: a convolution or linear layer, or its sizes.
        rank: basis filters of all groups together, as the paper's Table 4 counts them, at least 1.

    Returns:
        The speedup; below 1 the split layer computes more.

    Raises:
        InvalidArgument: for a rank below 1.
        UnsupportedLayer: for another layer.

    Example:
        >>> round(theoretical_speedup(FilterSizes(384, 256 * 9), 184), 2)  # AlexNet conv3: 1.79 in Table 4
        1.79
    """
    if rank < 1:
        raise InvalidArgument(f"rank: expected at least 1, got {rank}")
    if isinstance(layer, FilterSizes):
        filters, taps, groups = layer.filters, layer.taps, layer.groups
    else:
        (filters, taps), groups = filters_of(layer), getattr(layer, "groups", 1)
    return filters * taps / (rank / groups * (taps + filters))


def whole_launches(module: nn.Module, calls: Sequence[LayerCall]) -> list[Launch]:
    """What a layer costs as it is.

    Args:
        module: a convolution or linear layer.
        calls: that the model makes.
    """
    weight = module.get_parameter("weight")
    made = []
    for call in calls:
        entering, leaving = prod(call.entering), prod(call.leaving)
        # Every output is a row of the weight times a patch; of a transposed convolution, every input is.
        ends = entering if isinstance(module, TRANSPOSED) else leaving
        moved = weight.element_size() * (entering + leaving + weight.numel())
        made.append(Launch(2.0 * ends * prod(weight.shape[1:]), moved))
    return made


def split_launches(module: nn.Module, calls: Sequence[LayerCall], rank: int, split: Split) -> list[Launch]:
    """What a layer costs in two.

    Args:
        module: a convolution or linear layer.
        calls: that the model makes.
        rank: of each group.
        split: what into.
    """
    weight, groups = module.get_parameter("weight"), getattr(module, "groups", 1)
    filters, taps = filters_of(module)
    made = []
    for call in calls:
        entering, leaving = prod(call.entering), prod(call.leaving)
        if split is Split.SEPARABLE:
            height, width = weight.shape[2:]
            channels = weight.shape[1]
            planes = entering // (channels * groups * prod(call.entering[-2:]))
            middle = planes * rank * groups * call.leaving[-2] * call.entering[-1]
            flops = 2.0 * middle * channels * height, 2.0 * leaving * rank * width
            weights = rank * groups * channels * height, filters * groups * rank * width
        else:
            middle = leaving // filters * rank
            first = entering * kernel_area(module) * rank if isinstance(module, TRANSPOSED) else middle * taps
            flops = 2.0 * first, 2.0 * leaving * rank
            weights = rank * groups * taps, filters * groups * rank
        ends = entering + middle, middle + leaving
        size = weight.element_size()
        made += [Launch(f, size * (e + w)) for f, e, w in zip(flops, ends, weights, strict=True)]
    return made


def seconds_of(launches: Sequence[Launch], rates: MachineRates) -> float:
    """Time of launches that follow each other."""
    return sum(launch.seconds(rates) for launch in launches)


def flops_of(launches: Sequence[Launch]) -> float:
    """FLOPs of launches together."""
    return sum(launch.flops for launch in launches)
