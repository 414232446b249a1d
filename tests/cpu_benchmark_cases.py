"""A small network with a shortcut, measured once for all tests that look at a benchmark; what it took is not tested."""

import dataclasses
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from spokeshave.cpu_benchmark.benchmark import BenchmarkSettings, CpuBenchmark, benchmark
from spokeshave.jit.host_cpu import host_cpu
from spokeshave.targets.cpu_sparse import sparse_network
from spokeshave.targets.cpu_sparse.planner import Path

needs_generated_code = pytest.mark.skipif(host_cpu().widest() is None, reason="no code is generated for this CPU")
SHAPE = (3, 12, 12)
QUICK = BenchmarkSettings(batch=3, prune=0.3, repeats=2, sweep=2, budget_s=0.0, tune_s=0.0)


class Shortcut(nn.Module):
    """Two convolutions, the second beside a shortcut; its zero column is what squeezing leaves out."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.pool, self.last = nn.MaxPool2d(2), nn.Linear(8 * 36, 5)
        with torch.no_grad():
            self.second.weight[:, 2] = 0

    def forward(self, images: Tensor) -> Tensor:
        value = torch.relu(self.first(images))
        value = torch.relu(self.second(value) + value)
        return self.last(torch.flatten(self.pool(value), 1))


@cache
def small_benchmark() -> CpuBenchmark:
    torch.manual_seed(0)
    return benchmark(Shortcut(), SHAPE, QUICK, "Shortcut", "spokeshave bench-cpu shortcut.py:Shortcut --input 3,12,12")


def plan_dense(monkeypatch: pytest.MonkeyPatch, layer: str) -> None:
    """Let the planner say of one layer that it runs dense."""
    plan = sparse_network.plan_network

    def changed(*arguments):
        return [
            dataclasses.replace(item, path=Path.DENSE) if item.layer == layer else item for item in plan(*arguments)
        ]

    monkeypatch.setattr(sparse_network, "plan_network", changed)
