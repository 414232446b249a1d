"""Traced networks as steps."""

import pytest
import torch
from torch import Tensor, nn

from spokeshave.structures.graph_tracing import trace
from spokeshave.targets.cpu_sparse.lowering import lower
from spokeshave.targets.cpu_sparse.network_steps import Convolve, Fallback, Flatten, Multiply, Pool


def kinds(network: nn.Module, x: Tensor) -> list[str]:
    return [type(step).__name__ for step in lower(trace(network.eval(), x)).steps]


class Views(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 2, 3), nn.Linear(72, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(nn.functional.dropout(self.first(x), 0.5, self.training).view(x.size(0), -1))


def test_a_view_by_the_batch_size_is_a_flattening():
    assert kinds(Views(), torch.zeros(2, 1, 8, 8))[-2:] == ["Flatten", "Multiply"]
    steps = lower(trace(Views().eval(), torch.zeros(2, 1, 8, 8))).steps
    assert not any(isinstance(step, Fallback) and step.layer == "size" for step in steps)


def test_layers_that_do_nothing_leave_no_step():
    network = nn.Sequential(nn.Identity(), nn.Conv2d(1, 1, 1), nn.Dropout(0.5), nn.Flatten(), nn.Flatten())
    steps = lower(trace(network.eval(), torch.zeros(1, 1, 4, 4))).steps
    assert [type(step) for step in steps] == [Convolve, Flatten]


def test_what_is_unknown_says_why():
    network = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular"), nn.Softplus())
    steps = lower(trace(network.eval(), torch.zeros(1, 1, 6, 6))).steps
    assert all(isinstance(step, Fallback) for step in steps)
    assert "circular" in steps[0].why and "Softplus" in steps[1].why


@pytest.mark.filterwarnings("ignore:Using padding")
def test_same_padding_is_resolved():
    network = nn.Sequential(nn.Conv2d(1, 1, 5, padding="same", dilation=2), nn.Conv2d(1, 1, 2, padding="same"))
    first, second = lower(trace(network.eval(), torch.zeros(1, 1, 9, 9))).steps
    assert isinstance(first, Convolve) and first.padding == (4, 4)
    assert isinstance(second, Fallback) and "same" in second.why


def test_hooks_are_respected():
    network = nn.Sequential(nn.Linear(3, 2))
    network[0].register_forward_hook(lambda module, inputs, output: output * 2)
    x = torch.randn(1, 3)
    step = lower(trace(network.eval(), x)).steps[0]
    assert isinstance(step, Fallback | Multiply)
    assert "hooks" in step.why if isinstance(step, Fallback) else torch.is_tensor(x)


def test_pooling_keeps_its_conventions():
    network = nn.Sequential(nn.MaxPool2d(3, 2, 1, ceil_mode=True), nn.AvgPool2d(2, count_include_pad=False))
    first, second = lower(trace(network.eval(), torch.zeros(1, 1, 13, 13))).steps
    assert isinstance(first, Pool) and not first.mean and first.rows.ceil and first.rows.padding == 1
    assert isinstance(second, Pool) and second.mean and not second.include_padding


class Broadcast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.place, self.layer = nn.Parameter(torch.randn(1, 2, 8, 8)), nn.Conv2d(1, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.place + self.layer(x)


class Folded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(2, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.reshape(-1, 2, 8, 8))


def test_tensors_without_one_entry_for_each_image_are_left_to_torch():
    for network, x in ((Broadcast(), torch.zeros(1, 1, 8, 8)), (Folded(), torch.zeros(1, 4, 8, 8))):
        last = lower(trace(network.eval(), x)).steps[-1]
        assert isinstance(last, Fallback) and "for each image" in last.why


@pytest.mark.parametrize("axes", [(4,), (4, 4, 4)])
def test_tensors_that_are_neither_planes_nor_features_are_left_to_torch(axes):
    layers = {1: (nn.Conv1d(2, 2, 3), nn.BatchNorm1d(2)), 3: (nn.Conv3d(2, 2, 3), nn.BatchNorm3d(2))}[len(axes)]
    found = kinds(nn.Sequential(*layers, nn.ReLU(), nn.Flatten(), nn.LazyLinear(3)), torch.zeros(2, 2, *axes))
    assert found == ["Fallback"] * 4 + ["Multiply"]
    assert kinds(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), torch.zeros(2, 7, 4)) == ["Fallback"] * 2
