"""Generated code for Arm, whole: layers and networks in an emulator, in both layouts, against torch in float64.

All of it runs there: convolutions, pooling, changes of layout, the loop over tiles, the sequence of operations. What an
emulator cannot show is speed, and how threads see each other's memory on real processors.
"""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from arm_cases import pretend_arm
from network_zoo import build
from sparse_cases import LAYOUTS, error, in_double, steps_of, thin, through
from spokeshave.jit.host_cpu import VectorSet

NEON = VectorSet.NEON

GEOMETRIES = [
    (nn.Conv2d(6, 7, 3, padding=1), (13, 13), 0.4),
    (nn.Conv2d(5, 8, 5, padding=2), (12, 27), 0.3),
    (nn.Conv2d(4, 6, 3, 2, 1), (9, 33), 0.5),
    (nn.Conv2d(3, 5, 11, 4), (35, 35), 0.2),
    (nn.Conv2d(6, 9, 3, padding=1, groups=3), (10, 11), 0.6),
    (nn.Conv2d(6, 6, 3, padding=1, groups=6), (17, 19), 0.7),
    (nn.Conv2d(4, 4, 3, padding=2, dilation=2), (11, 14), 0.5),
    (nn.Conv2d(3, 4, (2, 5), (3, 1), (1, 2), (1, 2)), (14, 18), 1.0),
    (nn.Conv2d(12, 33, 1), (7, 7), 0.3),
    (nn.Conv2d(4, 40, 3), (5, 5), 0.02),  # most filters have no weight: their outputs are the bias
    (nn.Conv2d(3, 5, 3, padding=1), (6, 6), 0.0),
    (nn.Conv2d(2, 3, 3, padding=1), (5, 1100), 0.6),  # rows further apart than an instruction's offset reaches
    (nn.Conv2d(2, 4, 3, padding=1), (40, 420), 0.3),  # and filters
    (nn.Conv2d(2, 3, 1), (1, 1), 1.0),
]


@pytest.fixture(autouse=True)
def on_arm(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_arm(monkeypatch)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("rectify", [False, True])
@pytest.mark.parametrize(("convolution", "size", "density"), GEOMETRIES, ids=str)
def test_convolutions_match_torch(convolution, size, density, rectify, layout):
    network = thin(nn.Sequential(convolution, *([nn.ReLU()] if rectify else [])), density)
    x = torch.randn(2, convolution.in_channels, *size)
    assert error(through(layout, network, x, NEON), in_double(network, x)) < 1e-5


class Shortcut(nn.Module):
    def __init__(self, rectify: bool) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.rectify = rectify

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        z = self.second(y) + y
        return z.relu() if self.rectify else z


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("rectify", [False, True])
@pytest.mark.parametrize("size", [(11, 13), (40, 420)])
def test_shortcuts_are_added(layout, rectify, size):
    network, x = thin(Shortcut(rectify), 0.5), torch.randn(2, 3, *size)
    assert any(len(step.inputs) == 2 for step in steps_of(network, x).steps)
    assert error(through(layout, network, x, NEON), in_double(network, x)) < 1e-5


@pytest.mark.parametrize("layout", LAYOUTS)
def test_nan_stays_with_the_outputs_that_read_it(layout):
    network = thin(nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU()), 1.0)
    x = torch.randn(2, 2, 9, 9)
    x[0, 1, 4, 4] = torch.nan
    got, wanted = through(layout, network, x, NEON, poison=0.0), network(x).detach()
    assert torch.equal(got.isnan(), wanted.isnan()) and wanted.isnan().sum() == 27


class Parts(nn.Module):
    """Whatever there is beside convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.linear = nn.BatchNorm2d(4), nn.Linear(8 * 4 * 6, 11)
        self.near = nn.LocalResponseNorm(3, 0.1, 0.75, 2.0)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm(x) + x) * x * 2
        z = self.near(y) + (x * x + 0.5) ** 0.3
        large, mean = F.max_pool2d(z, 3, 2, 1, ceil_mode=True), F.avg_pool2d(y, 3, 2, 1, count_include_pad=False)
        return F.relu(self.linear(torch.cat([large, mean], 1).flatten(1)))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_other_operation_matches_torch(layout):
    network, x = thin(Parts(), 0.3), torch.randn(5, 4, 7, 11)
    network.norm.running_mean.normal_()
    kinds = {type(step).__name__ for step in steps_of(network, x).steps}
    assert kinds == {"Chain", "Normalize", "Pool", "Concatenate", "Flatten", "Multiply"}
    assert error(through(layout, network, x, NEON), in_double(network, x)) < 1e-5


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(1,), (7,), (10,), (16,), (1000,), (5, 3, 7)])
def test_softmax_matches_torch(layout, shape):
    network, x = nn.Sequential(nn.Softmax(1)), 5 * torch.randn(5, *shape)
    x[1], x[2, -1], x[3, 0], x[4] = 1e4 * x[1].sign(), -torch.inf, torch.nan, -torch.inf
    got, wanted = through(layout, network, x, NEON), in_double(network, x)
    torch.testing.assert_close(got.double(), wanted, rtol=0, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_columns_beyond_sixteen_bits_are_found(layout):
    network, x = thin(nn.Sequential(nn.Linear(70_000, 9)), 0.01), torch.randn(2, 70_000)
    assert error(through(layout, network, x, NEON), in_double(network, x)) < 1e-5


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["lenet", "convnet", "resnet", "caffenet"])
def test_whole_networks_match_torch(layout, name):
    network, example = build(name, 0)
    thin(network, 0.4)
    x = torch.randn(5, *example.shape[1:])
    assert error(through(layout, network, x, NEON), in_double(network, x)) < 1e-5
