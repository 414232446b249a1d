"""The planner on machines whose answer can be worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from sparse_cases import steps_of, thin
from spokeshave.structures.roofline_model import LayerWork
from spokeshave.targets.cpu_sparse.planner import SWITCH_S, CloserLook, Path, left_over, plan_layer, plan_network
from spokeshave.targets.cpu_sparse.roofline import BYTES_A_NONZERO, Level, Roofline
from spokeshave.targets.cpu_sparse.stored_weight import StoredWeight

# 100 FLOP/s dense, alpha 2 at every density; memory so fast, then so slow, that only one of the two matters.
QUICK = Roofline(1, 1, 200.0, 100.0, {0.05: 50.0, 0.2: 50.0, 1.0: 50.0}, dict.fromkeys(Level, 1e12))
SLOW = Roofline(1, 1, 200.0, 100.0, {0.05: 50.0, 0.2: 50.0, 1.0: 50.0}, dict.fromkeys(Level, 1.0))
WORK = LayerWork("conv", 1000.0, 40.0, 80.0)


@pytest.mark.parametrize(
    ("x", "path"), [(0.1, Path.DIRECT), (0.5, Path.DIRECT), (0.54, Path.DIRECT), (0.57, Path.DENSE), (1.0, Path.DENSE)]
)
def test_sparse_code_stops_paying_at_one_over_alpha(x, path):
    plan = plan_layer(WORK, "conv", x, x, QUICK, 1)
    assert plan.path is path and plan.lower_bound == pytest.approx(0.5)
    assert plan.predicted_s[Path.DIRECT] == pytest.approx(2 * x * 10) and plan.predicted_s[Path.DENSE] == pytest.approx(
        10
    )
    assert plan.predicted_speedup == pytest.approx(0.5 / x) and f"{x:.1%}" in plan.why


def test_a_layer_bound_by_memory_is_predicted_by_its_bytes():
    plan = plan_layer(WORK, "conv", 0.1, 0.2, SLOW, 3)
    assert plan.predicted_s[Path.DIRECT] == pytest.approx(3 * 40 + BYTES_A_NONZERO * 0.1 * 80)
    assert plan.predicted_s[Path.DENSE] == pytest.approx(3 * 40 + 80)
    assert plan.predicted_s[Path.SQUEEZED] == pytest.approx(3 * 40 + 0.2 * 80 + 3 * 40)
    assert "bound by memory" in plan.why


def test_small_layers_do_not_leave_the_generated_code():
    quick = LayerWork("conv", 100 * SWITCH_S, 40.0, 80.0)
    assert plan_layer(quick, "conv", 1.0, 1.0, QUICK, 1).path is Path.DIRECT


def test_what_is_left_counts_rows_and_columns_of_each_group():
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((6, 2, 3, 1)).astype(np.float32)
    weight[1] = 0  # a row of the first group
    weight[3:, 1] = 0  # half of the second group's columns
    weight[:, :, 0] *= rng.random((6, 2, 1)) < 0.5
    expected = 0
    for group in (weight[:3].reshape(3, 6), weight[3:].reshape(3, 6)):
        used = group != 0
        expected += used.any(1).sum() * used.any(0).sum()
    assert left_over(StoredWeight.of(weight), 2) == pytest.approx(expected / 36)
    assert left_over(StoredWeight.of(np.zeros((2, 2), np.float32))) == 0


def test_every_layer_with_weights_is_planned_with_its_own_work():
    network = thin(nn.Sequential(nn.Conv2d(3, 8, 3, groups=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5)), 0.2)
    steps = steps_of(network, torch.zeros(1, 3, 8, 8))
    convolution, linear = plan_network(steps, QUICK, 2)
    assert convolution.work.flops_per_image == 2 * 27 * 8 * 36 and linear.work.flops_per_image == 2 * 5 * 288
    assert convolution.work.activation_bytes == 4 * (3 * 64 + 8 * 36) and linear.work.weight_bytes == 4 * 5 * 288
    assert convolution.x == pytest.approx(float((network[0].weight != 0).float().mean()))


def test_torch_is_timed_only_where_the_prediction_is_for_dense():
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), thin(nn.Conv2d(8, 8, 3), 0.1), nn.Flatten(), nn.Linear(128, 5)
    )
    steps = steps_of(network, torch.zeros(1, 3, 8, 8))
    first, _, last = predicted = plan_network(steps, QUICK, 2)
    assert [plan.path for plan in predicted] == [Path.DENSE, Path.DIRECT, Path.DENSE]
    slow, asked = {first.layer: 3 * first.predicted_s[Path.DIRECT], last.layer: last.predicted_s[Path.DENSE]}, []

    def dense_s(step):
        asked.append(step.layer)
        return slow[step.layer]

    measured = plan_network(steps, QUICK, 2, CloserLook(lambda roofline: roofline, dense_s))
    assert asked == [first.layer, last.layer]
    assert [plan.path for plan in measured] == [Path.DIRECT, Path.DIRECT, Path.DENSE]
    assert measured[0].predicted_s == predicted[0].predicted_s and measured[0].measured_s == slow[first.layer]
    assert "3.0x faster than dense (which was timed" in measured[0].why and "timed" in measured[2].why
    assert measured[1] == predicted[1] and measured[1].measured_s is None


def test_a_dense_layer_pays_for_leaving_and_entering_generated_code():
    assert plan_layer(WORK, "conv", 0.7, 0.7, QUICK, 1).path is Path.DENSE  # 10 s, or 14 direct
    slow = replace(QUICK, layout_bytes_per_s=10.0)  # 40 bytes in and out: 4 s
    assert plan_layer(WORK, "conv", 0.7, 0.7, slow, 1).path is Path.DIRECT
    assert plan_layer(WORK, "conv", 0.9, 0.9, slow, 1).path is Path.DENSE
