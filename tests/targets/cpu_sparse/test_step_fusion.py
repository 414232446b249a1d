"""Steps merged into the one before."""

import torch
from torch import Tensor, nn

from sparse_cases import LAYOUTS, SETS, error, in_double, steps_of, through
from spokeshave.targets.cpu_sparse.network_steps import Chain, Convolve, Multiply


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.two(torch.relu(self.one(x)))) + x)


def test_normalization_shortcut_and_rectification_become_one_convolution():
    network, x = Residual().eval(), torch.randn(2, 3, 9, 9)
    network.norm.running_mean.normal_()
    network.norm.running_var.uniform_(0.5, 2)
    steps = steps_of(network, x).steps
    assert [type(step) for step in steps] == [Convolve, Convolve]
    assert len(steps[1].inputs) == 2 and all(step.rectify for step in steps if isinstance(step, Convolve))
    for layout in LAYOUTS:
        assert error(through(layout, network, x, SETS[0]), in_double(network, x)) < 1e-5


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.one(x)
        return torch.relu(y) * y


def test_a_value_that_others_read_stays_as_it_is():
    network, x = Shared().eval(), torch.randn(2, 3, 5, 5)
    steps = steps_of(network, x).steps
    assert isinstance(steps[0], Convolve) and not steps[0].rectify
    for layout in LAYOUTS:
        assert error(through(layout, network, x, SETS[0]), in_double(network, x)) < 1e-5


def test_elementwise_steps_become_one_chain():
    class Chained(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(x * 2 + 1) ** 2

    (step,) = steps_of(Chained(), torch.zeros(1, 2, 4, 4)).steps
    assert isinstance(step, Chain) and len(step.steps) == 4


def test_normalization_becomes_part_of_a_linear_layer_but_not_behind_its_rectification():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.BatchNorm1d(3)).eval()
    for norm in (network[1], network[3]):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    x = torch.randn(2, 5)
    assert [type(step) for step in steps_of(network, x).steps] == [Multiply, Chain]
    for layout in LAYOUTS:
        assert error(through(layout, network, x, SETS[0]), in_double(network, x)) < 1e-5
