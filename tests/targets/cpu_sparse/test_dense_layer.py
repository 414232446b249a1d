"""A layer that torch runs inside a sparse network."""

import pytest
import torch
from torch import Tensor, nn

from sparse_cases import error, in_double, steps_of, thin
from spokeshave.jit.host_cpu import host_cpu
from spokeshave.targets.cpu_sparse.dense_layer import DenseLayer, dense_seconds
from spokeshave.targets.cpu_sparse.network_steps import Convolve
from spokeshave.targets.cpu_sparse.sparse_network import Slot, SparseNetwork, cut
from spokeshave.timing import using_threads


class Shortcut(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.one(x))
        return torch.relu(self.norm(self.two(y)) + y)


def test_shortcut_and_rectification_stay_part_of_it():
    torch.manual_seed(0)
    network, x = thin(Shortcut(), 0.5), torch.randn(3, 4, 9, 9)
    steps = steps_of(network, x)
    last = steps.steps[-1]
    assert isinstance(last, Convolve) and len(last.inputs) == 2 and last.rectify
    for dense in ([], [last.output], [step.output for step in steps.steps]):
        pieces = cut(steps, dense)
        assert sum(isinstance(piece, DenseLayer) for piece in pieces) == len(dense)
        sparse = SparseNetwork(steps, Slot(steps.outputs[0]), host_cpu().widest(), tune_s=0)
        sparse.pieces = pieces
        sparse._segments = [None if isinstance(piece, DenseLayer) else sparse.segment_of(piece) for piece in pieces]
        assert error(sparse(x), in_double(network, x)) < 1e-5


def test_it_reads_what_the_step_reads():
    layer = nn.Sequential(nn.Linear(6, 3), nn.ReLU()).eval()
    (step,) = steps_of(layer, torch.zeros(1, 6)).steps
    dense = DenseLayer(step)
    x = torch.randn(5, 6)
    assert dense.inputs == step.inputs and dense.output == step.output
    torch.testing.assert_close(dense([x]), layer(x).detach())


def test_its_time_is_measured_once_for_a_geometry_and_batch(tmp_path, monkeypatch):
    monkeypatch.setenv("SPOKESHAVE_CACHE", str(tmp_path))
    steps = steps_of(Shortcut().eval(), torch.zeros(1, 4, 9, 9))
    calls = []
    run = DenseLayer.__call__

    def watched(self, values):
        assert all(value.dtype is torch.float32 and value.device.type == "cpu" for value in values)
        calls.append((len(values[0]), torch.get_num_threads()))
        return run(self, values)

    monkeypatch.setattr(DenseLayer, "__call__", watched)
    one, two = (step for step in steps.steps if isinstance(step, Convolve))
    drawn = torch.get_rng_state()
    torch.set_default_dtype(torch.float64)
    try:
        first = dense_seconds(one, steps.shapes, 5) * torch.get_num_threads()
    finally:
        torch.set_default_dtype(torch.float32)
    assert first > 0 and set(calls) == {(5, 1)} and len(calls) >= 5 and torch.equal(torch.get_rng_state(), drawn)
    calls.clear()
    with using_threads(3):  # as the roofline counts
        assert dense_seconds(one, steps.shapes, 5) == pytest.approx(first / 3) and not calls
    assert dense_seconds(two, steps.shapes, 5) > 0 and calls  # a shortcut is added to it
    calls.clear()
    many = dense_seconds(one, steps.shapes, 64)
    assert set(calls) == {(16, 1)} and many == pytest.approx(4 * dense_seconds(one, steps.shapes, 16))
