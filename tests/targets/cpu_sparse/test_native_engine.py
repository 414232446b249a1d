"""What both layouts share: places in memory, operations in a row."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from network_zoo import build
from sparse_cases import LAYOUTS, SETS, error, in_double, steps_of, through
from spokeshave.targets.cpu_sparse.native_engine import NativeEngine


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.one(x))
        z = self.two(y)
        return torch.cat([z, torch.nn.functional.max_pool2d(y, 3, 1, 1), x * z], 1)


@pytest.mark.parametrize("vectors", SETS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_values_that_live_at_the_same_time_do_not_meet(layout, vectors):
    torch.manual_seed(0)
    network, x = Branches().eval(), torch.randn(2, 2, 11, 21)
    assert error(through(layout, network, x, vectors, threads=3), in_double(network, x)) < 1e-5


@pytest.mark.parametrize("layout", LAYOUTS)
def test_dead_values_give_their_memory_back(layout):
    deep = nn.Sequential(*(nn.Conv2d(8, 8, 3, padding=1) for _ in range(12)))
    shallow = nn.Sequential(*(nn.Conv2d(8, 8, 3, padding=1) for _ in range(3)))
    sizes = []
    for network in (deep, shallow):
        engine: NativeEngine = layout(steps_of(network, torch.zeros(1, 8, 20, 20)), SETS[0], 1)
        sizes.append(engine.arena_bytes)
    assert sizes[0] <= 1.01 * sizes[1]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_running_twice_gives_the_same_bits(layout):
    network, example = build("resnet", 0)
    x = torch.randn(2, *example.shape[1:])
    engine = layout(steps_of(network, x), SETS[0], 2)
    results = [np.zeros((1, *engine.network.shapes[engine.network.outputs[0]]), np.float32) for _ in range(2)]
    for result in results:
        engine([x.numpy()[:1]], [result])
    np.testing.assert_array_equal(*results)
