"""The definition of every step against the network that it was lowered from."""

import pytest
import torch
from torch import Tensor, nn

from network_zoo import build
from sparse_cases import error, steps_of
from spokeshave.errors import UnsupportedLayer
from spokeshave.targets.cpu_sparse.network_steps import NetworkStep
from spokeshave.targets.cpu_sparse.reference_steps import run_plainly


class Everything(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3, 2, 1, groups=2), nn.ReLU(), nn.LocalResponseNorm(3, 0.1, 0.6, 2.0)
        )
        self.last = nn.Linear(2 * 6 * 16, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers(x)
        y = nn.functional.max_pool2d(y, 3, 2, 1, ceil_mode=True)
        y = torch.cat([y, (y * y + 1) ** -0.75 * 0.5], 1)
        y = nn.functional.avg_pool2d(y, 3, 1, 1, count_include_pad=False).softmax(1)
        return self.last(y.flatten(1)).softmax(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_steps_mean_what_the_network_computes(dtype):
    torch.manual_seed(0)
    network, x = Everything().eval(), torch.randn(3, 4, 13, 13)
    (got,) = run_plainly(steps_of(network, x), [x.to(dtype)])
    assert got.dtype == dtype and error(got, network(x).detach()) < 1e-5


@pytest.mark.parametrize("name", ["lenet", "resnet"])
def test_networks_of_the_zoo_mean_the_same(name):
    network, example = build(name, 1)
    (got,) = run_plainly(steps_of(network, example), [example])
    assert error(got, network(example).detach()) < 1e-5


def test_an_unknown_step_is_refused():
    network, example = build("lenet", 1)
    steps = steps_of(network, example)
    steps.steps = [NetworkStep("odd", tuple(steps.inputs), "odd")]
    with pytest.raises(UnsupportedLayer, match="odd"):
        run_plainly(steps, [example])
