"""Batch lanes: inputs and outputs of every form go in and come out as they are."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sparse_cases import SETS, error, in_double, steps_of, through
from spokeshave.structures.graph_tracing import trace
from spokeshave.targets.cpu_sparse.batch_lanes_engine import BatchLanesEngine
from spokeshave.targets.cpu_sparse.lowering import lower
from spokeshave.targets.cpu_sparse.step_fusion import fuse


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        z = self.one(x) + y
        return z, torch.relu(z)


@pytest.mark.parametrize("vectors", SETS)
def test_several_inputs_and_outputs(vectors):
    torch.manual_seed(0)
    network, x, y = TwoInputs().eval(), torch.randn(1, 3, 7, 18), torch.randn(1, 4, 7, 18)
    engine = BatchLanesEngine(fuse(lower(trace(network, (x, y)))), vectors, 2)
    engine.arena[:] = np.nan
    results = [np.full((1, 4, 7, 18), np.nan, np.float32) for _ in range(2)]
    engine([x.numpy(), y.numpy()], results)
    for got, wanted in zip(results, network(x, y), strict=True):
        assert error(torch.from_numpy(got), wanted.detach()) < 1e-5


@pytest.mark.parametrize("vectors", SETS)
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 5), (16, 16), (7, 33)])
def test_planes_of_any_size_are_flattened_in_order(vectors, size):
    network = nn.Sequential(nn.ReLU(), nn.Flatten())
    x = torch.randn(3, 5, *size)
    assert torch.equal(through(BatchLanesEngine, network, x, vectors), x.relu().flatten(1))


@pytest.mark.parametrize("vectors", SETS)
def test_a_border_is_left_out_by_flattening(vectors):
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 3, padding=1)
            self.a, self.b = nn.Linear(98, 3), nn.Linear(98, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = self.first(x)
            return self.a(y.flatten(1)) + self.b(self.second(y).flatten(1))

    torch.manual_seed(0)
    network, x = Flat().eval(), torch.randn(2, 2, 7, 7)
    assert steps_of(network, x).steps
    assert error(through(BatchLanesEngine, network, x, vectors), in_double(network, x)) < 1e-5


AFTER_FLATTENING = {
    "relu": lambda: [nn.ReLU()],
    "norm": lambda: [nn.BatchNorm1d(96)],
    "softmax": lambda: [nn.Softmax(1)],
    "linear": lambda: [nn.ReLU(), nn.Linear(96, 4)],
}


@pytest.mark.parametrize("vectors", SETS)
@pytest.mark.parametrize("after", AFTER_FLATTENING)
@pytest.mark.parametrize("before", ["pool", "convolution"])
def test_what_follows_a_flattening_reads_every_feature(vectors, after, before):
    """The features share the memory of the planes, but not the distance from one plane to the next."""
    torch.manual_seed(0)
    first = nn.MaxPool2d(2) if before == "pool" else nn.Conv2d(6, 6, 2, 2)
    network = nn.Sequential(first, nn.Flatten(), *AFTER_FLATTENING[after]()).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    x = torch.randn(3, 6, 8, 8)
    assert error(through(BatchLanesEngine, network, x, vectors), in_double(network, x)) < 1e-5
