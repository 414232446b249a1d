"""Rates follow from times and counts; every layer has every path that it can have."""

import dataclasses

import pytest
import torch

import spokeshave as ss
from cpu_benchmark_cases import SHAPE, Shortcut, needs_generated_code, plan_dense
from sparse_cases import thin
from spokeshave.cpu_benchmark.layer_paths import LayerPaths, time_layer_paths
from spokeshave.structures.roofline_model import LayerWork
from spokeshave.targets.cpu_sparse.layer_profile import Timing
from spokeshave.targets.cpu_sparse.planner import LayerPlan, Path

PLAN = LayerPlan(
    "conv", "conv", Path.DIRECT, LayerWork("conv", 1000.0, 40.0, 80.0), 0.25, 0.5,
    {Path.DIRECT: 1.0, Path.SQUEEZED: 2.0, Path.DENSE: 4.0}, 0.5, 0.1, "because",
)  # fmt: skip
LAYER = LayerPaths("conv", "convolution", PLAN, 2, Timing(3.0, 0.1, 5), True, Timing(0.4, 0.1, 5), Timing(0.5, 0.1, 5))


def test_rates_are_those_of_arithmetic():
    assert LAYER.speedup == 6.0 and LAYER.flops == 2000.0
    assert LAYER.sparse_flops_per_s == 0.25 * 2000 / 0.5 and LAYER.effective_flops_per_s == 2000 / 0.5
    assert LAYER.flops_per_byte == pytest.approx(500 / (2 * 40 + 1.5 * 0.25 * 80))
    assert LAYER.fastest is Path.SQUEEZED
    alone = dataclasses.replace(LAYER, squeezed=None)
    assert alone.fastest is Path.DIRECT and list(alone.measured) == [Path.DENSE, Path.DIRECT]


def test_the_record_has_times_predictions_and_the_reason():
    record = LAYER.to_dict()
    assert record["planned"] == "direct sparse" and record["why"] == "because"
    assert record["predicted_s"] == {"direct sparse": 1.0, "squeezed dense": 2.0, "dense": 4.0}
    measured = record["measured"]
    assert isinstance(measured, dict) and measured["dense"] == {"median_s": 3.0, "spread_s": 0.1, "samples": 5}


@needs_generated_code
def test_layers_that_run_dense_are_timed_direct_sparse_too(monkeypatch):
    plan_dense(monkeypatch, "second")
    torch.manual_seed(0)
    x = torch.randn(3, *SHAPE)
    network, _ = ss.to_sparse(thin(Shortcut().eval(), 0.3), x[:1], tune_s=0)
    (second,) = [plan for plan in network.plans if plan.layer == "second"]
    layers, steps = time_layer_paths(network, (x,), 3, repeats=2, budget_s=0)
    assert [layer.layer for layer in layers] == ["first", "second", "last"]
    (in_torch,) = [step for step in steps if step.output == second.output]
    assert in_torch.kind == "torch" and in_torch.time != layers[1].direct
    assert all(min(timing.median_s for timing in layer.measured.values()) > 0 for layer in layers)
    assert all(timing.samples == 2 for layer in layers for timing in layer.measured.values())
    assert [layer.squeezed is not None for layer in layers][1]
