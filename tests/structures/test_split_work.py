"""Work of split layers against torch's own count of FLOPs; speedups against the paper's Table 4."""

import pytest
import torch
from torch import nn

from spokeshave.errors import InvalidArgument
from spokeshave.structures.factorized_layer import FactorizedLayer
from spokeshave.structures.layer_calls import layer_calls
from spokeshave.structures.layer_spectrum import Split
from spokeshave.structures.roofline_model import MachineRates
from spokeshave.structures.separable_layer import SeparableLayer
from spokeshave.structures.split_work import (
    NOMINAL_RATES,
    FilterSizes,
    Launch,
    flops_of,
    seconds_of,
    split_launches,
    theoretical_speedup,
    whole_launches,
)
from spokeshave.timing import count_flops

CONV3, CONV4, CONV5 = FilterSizes(384, 256 * 9), FilterSizes(192, 192 * 9, 2), FilterSizes(128, 192 * 9, 2)


@pytest.mark.parametrize(
    ("layer", "rank", "published"),
    [
        (CONV3, 184, 1.79),
        (CONV4, 201, 1.72),
        (CONV5, 146, 1.63),
        (CONV3, 124, 2.65),
        (CONV4, 106, 3.26),
        (CONV5, 129, 1.85),
    ],
)
def test_theoretical_speedups_of_table_4(layer, rank, published):
    assert round(theoretical_speedup(layer, rank), 2) == published


def test_a_layer_and_its_sizes_give_the_same():
    conv4 = nn.Conv2d(384, 384, 3, groups=2)
    assert theoretical_speedup(conv4, 201) == theoretical_speedup(CONV4, 201)
    assert theoretical_speedup(nn.Linear(30, 20), 4) == pytest.approx(600 / 200)
    with pytest.raises(InvalidArgument):
        theoretical_speedup(conv4, 0)


CASES = {
    "linear": (nn.Linear(6, 8), (3, 5, 6)),
    "conv1d": (nn.Conv1d(4, 6, 3, stride=2), (2, 4, 9)),
    "conv2d": (nn.Conv2d(4, 6, (3, 5), stride=(1, 2), padding=1, groups=2), (2, 4, 9, 11)),
    "conv3d": (nn.Conv3d(2, 4, 2), (1, 2, 4, 5, 3)),
    "transposed": (nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), (2, 4, 5, 6)),
}


@pytest.mark.parametrize(("name", "split"), [*((name, Split.FILTERS) for name in CASES), ("conv2d", Split.SEPARABLE)])
def test_flops_are_those_that_torch_counts_and_bytes_those_of_the_tensors(name, split):
    layer, shape = CASES[name]
    x = torch.zeros(shape)
    calls = layer_calls(layer, (x,), {"": layer})[""].calls
    made = FactorizedLayer.of(name, layer, 2) if split is Split.FILTERS else SeparableLayer.of(name, layer, 2)
    assert flops_of(whole_launches(layer, calls)) == count_flops(layer, (x,))[1]
    assert flops_of(split_launches(layer, calls, 2, split)) == count_flops(made, (x,))[1]
    for launch, part, entering in zip(split_launches(layer, calls, 2, split), made, (x, made[0](x)), strict=True):
        assert launch.flops == count_flops(part, (entering,))[1]
        assert launch.moved_bytes == 4 * (entering.numel() + part(entering).numel() + part.weight.numel())
    (whole,) = whole_launches(layer, calls)
    assert whole.moved_bytes == 4 * (x.numel() + layer(x).numel() + layer.weight.numel())


def test_each_launch_is_bound_by_the_slower_of_work_and_memory():
    rates = MachineRates(100.0, 1.0, bytes_per_s=10.0)
    assert seconds_of([Launch(500.0, 20.0), Launch(100.0, 40.0)], rates) == 5.0 + 4.0
    assert NOMINAL_RATES.dense_flops_per_s / NOMINAL_RATES.bytes_per_s == 5
