"""The roofline model against the bounds that the paper's formula gives for AlexNet and GoogLeNet on its machines."""

import math

import pytest

from spokeshave.errors import InvalidArgument
from spokeshave.structures.roofline_model import LayerWork, MachineRates, lower_bound, projected_speedup, upper_bound

XEON, ATOM = MachineRates(2150e9, 3.0, 122e9), MachineRates(62e9, 1.2, 15e9)


def convolution(inputs: int, outputs: int, kernel: int, side_in: int, side_out: int, groups: int = 1) -> LayerWork:
    weights = outputs * inputs // groups * kernel**2
    activations = inputs * side_in**2 + outputs * side_out**2
    return LayerWork("conv", 2 * weights * side_out**2, 4 * activations, 4 * weights)


ALEXNET = {
    "conv1": convolution(3, 96, 11, 227, 55),
    "conv2": convolution(96, 256, 5, 27, 27, 2),
    "conv3": convolution(256, 384, 3, 13, 13),
    "conv4": convolution(384, 384, 3, 13, 13, 2),
    "conv5": convolution(384, 256, 3, 13, 13, 2),
}


@pytest.mark.parametrize(
    ("layer", "xeon", "atom"),
    [
        ("conv1", 0.050, 0.0292),
        ("conv2", 0.0139, 0.0080),
        ("conv3", 0.0099, 0.0054),
        ("conv4", 0.0158, 0.0087),
        ("conv5", 0.0197, 0.0109),
    ],
)
def test_upper_bounds_of_alexnet_at_batch_1(layer, xeon, atom):
    assert upper_bound(ALEXNET[layer], XEON) == pytest.approx(xeon, rel=0.01)
    assert upper_bound(ALEXNET[layer], ATOM) == pytest.approx(atom, rel=0.01)


def test_conv5_is_the_layer_of_the_paper():
    work = ALEXNET["conv5"]
    assert (work.activation_bytes, work.weight_bytes) == (432640, 1769472)
    assert work.flops_per_image == pytest.approx(149.52e6, rel=1e-4)
    speedups = [projected_speedup(work, XEON, x) for x in (0.15, 0.05)]
    assert speedups == pytest.approx([1 / (3 * 0.15), 1 / (3 * 0.05)])  # 2.2 and 6.7: arithmetic binds


def test_the_reduction_of_inception_4a_never_gains_on_the_xeon():
    assert projected_speedup(convolution(480, 16, 1, 14, 14), XEON, 0.0) == pytest.approx(0.44, abs=0.01)


def test_at_the_upper_bound_arithmetic_and_traffic_take_the_same_time():
    for batch in (1, 16):
        x = upper_bound(ALEXNET["conv3"], XEON, batch)
        assert projected_speedup(ALEXNET["conv3"], XEON, x, batch) == pytest.approx(1 / (3 * x))
        assert projected_speedup(ALEXNET["conv3"], XEON, x / 2, batch) < 1 / (3 * x / 2) / 1.3


def test_bounds_at_the_edges():
    assert lower_bound(XEON) == pytest.approx(1 / 3)
    assert upper_bound(LayerWork("linear", 2e6, 100.0, 4e6), XEON) == math.inf  # weights alone take longer
    dense = projected_speedup(ALEXNET["conv2"], MachineRates(1e9, 1.0, 1e15), 1.0)
    assert dense == pytest.approx(1.0)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_bad_numbers_are_refused(bad):
    with pytest.raises(InvalidArgument, match="alpha"):
        MachineRates(1e9, bad, 1e9)
    with pytest.raises(InvalidArgument, match="density"):
        projected_speedup(ALEXNET["conv1"], XEON, 1.5)
    with pytest.raises(InvalidArgument, match="batch"):
        projected_speedup(ALEXNET["conv1"], XEON, 0.5, 0)
