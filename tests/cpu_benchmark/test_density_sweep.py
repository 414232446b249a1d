"""The curve on a machine whose answer can be worked out by hand; measured points on a real small layer."""

import pytest
import torch
from torch import nn

from cpu_benchmark_cases import needs_generated_code
from sparse_cases import steps_of
from spokeshave.cpu_benchmark import density_sweep
from spokeshave.cpu_benchmark.density_sweep import predicted_curve, sweep_densities
from spokeshave.jit.host_cpu import host_cpu
from spokeshave.structures.roofline_model import LayerWork
from spokeshave.targets.cpu_sparse.roofline import Level, Roofline, measure_roofline
from spokeshave.targets.cpu_sparse.segment import Segment

# Sparse code takes twice as long for a FLOP (alpha 2); a dense layer of 1000 FLOPs takes 10 s; 20 bytes/s.
MACHINE = Roofline(1, 1, 1000.0, 100.0, {0.05: 50.0, 0.2: 50.0, 1.0: 50.0}, dict.fromkeys(Level, 20.0))


def test_the_curve_is_that_of_the_paper():
    curve = predicted_curve(LayerWork("conv", 1000.0, 40.0, 0.0), MACHINE, 1)
    wanted = [10 / max(2 * x * 10, 2.0) for x in curve.xs]
    assert curve.predicted == pytest.approx(wanted)
    below = max(x for x in curve.xs if x <= 0.5)
    assert curve.lower_bound == below and curve.upper_bound == max(x for x in curve.xs if x <= 0.1)


@needs_generated_code
def test_the_largest_convolutions_are_measured_at_densities_below_their_own(monkeypatch):
    compiled: list[float] = []

    class Watched(Segment):
        def __init__(self, steps, vectors, tune_s) -> None:
            compiled.append(steps.steps[0].weight.density)
            super().__init__(steps, vectors, tune_s)

    monkeypatch.setattr(density_sweep, "Segment", Watched)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 1), nn.Conv2d(4, 16, 3), nn.Conv2d(16, 16, 3, padding=1))
    with torch.no_grad():
        model[2].weight.mul_(torch.rand_like(model[2].weight) < 0.15)
    network = steps_of(model, torch.zeros(1, 2, 9, 9))
    vectors = host_cpu().widest()
    assert vectors is not None
    curves = sweep_densities(network, measure_roofline(images=2), vectors, 2, layers=2, repeats=2, budget_s=0, tune_s=0)
    assert [curve.layer for curve in curves] == ["1", "2"]
    whole, thin = ([point.x for point in curve.points] for curve in curves)
    assert whole == pytest.approx([0.02, 0.05, 0.1, 0.2, 0.4, 1.0], abs=0.002)
    assert compiled == whole + thin
    own = float((model[2].weight != 0).float().mean())
    assert thin == pytest.approx([0.02, 0.05, 0.1, own], abs=0.002)
    assert all(point.speedup > 0 and point.direct.samples == 2 for curve in curves for point in curve.points)
    record = curves[0].to_dict()
    assert isinstance(record["points"], list) and record["points"][0]["speedup"] == curves[0].points[0].speedup
