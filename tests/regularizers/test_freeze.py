"""Frozen zeros survive momentum, Adam, weight decay and a trip through a checkpoint."""

import pytest
import torch
from torch import nn

from spokeshave.errors import CheckpointError, InvalidArgument
from spokeshave.regularizers import Freeze, Frozen


def net_with_zeros() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 1), nn.Flatten(), nn.LazyLinear(2))
    net(torch.zeros(1, 2, 5, 5))
    with torch.no_grad():
        net[0].weight[1] = 0  # a row
        net[2].weight[:, 2] = 0  # a column
        net[2].weight[0, 0] = 0  # a single weight
    return net


@pytest.mark.parametrize(
    "make", [lambda p: torch.optim.SGD(p, 0.1, 0.9, weight_decay=0.1), lambda p: torch.optim.AdamW(p)]
)
def test_zero_groups_stay_and_the_rest_moves(make):
    net = net_with_zeros()
    optimizer = make(net.parameters())
    images = torch.randn(8, 2, 5, 5)
    net(images).square().mean().backward()
    optimizer.step()  # fills the momentum buffers, moves the zeros
    with torch.no_grad():
        net[0].weight[1] = 0
        net[2].weight[:, 2] = 0
    before = net[0].weight.detach().clone()
    handle = Freeze(net).attach(optimizer)
    for _ in range(5):
        optimizer.zero_grad()
        net(images).sub(1).square().mean().backward()
        optimizer.step()
    assert not net[0].weight[1].any() and not net[2].weight[:, 2].any()
    assert (net[0].weight[[0, 2, 3]] != before[[0, 2, 3]]).any()
    assert net[2].weight[0, 0].any()  # a single zero is not a zero group
    handle.remove()
    optimizer.step()
    assert net[0].weight[1].any()


def test_elements_holds_single_zeros_too():
    net = net_with_zeros()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    freeze = Freeze(net, Frozen.ELEMENTS)
    freeze.attach(optimizer)
    net(torch.randn(8, 2, 5, 5)).square().mean().backward()
    optimizer.step()
    assert not net[2].weight[0, 0].any() and freeze.energy() == 0


def test_energy_is_infinite_outside_the_set_and_pull_stops_the_gradient():
    net = net_with_zeros()
    freeze = Freeze(net)
    net(torch.randn(8, 2, 5, 5)).square().mean().backward()
    assert net[2].weight.grad[:, 2].abs().sum() >= 0
    freeze.pull()
    assert not net[0].weight.grad[1].any() and net[0].weight.grad[0].any()
    with torch.no_grad():
        net[0].weight[1, 0, 0, 0] = 1
    assert freeze.energy() == float("inf")


def test_masks_travel_and_are_refused_by_another_model():
    net = net_with_zeros()
    masks = Freeze(net).state_dict()
    other = net_with_zeros()
    with torch.no_grad():
        other[0].weight.fill_(1)
    resumed = Freeze(other)
    resumed.load_state_dict(masks)
    assert not resumed.masks["0"][1].any() and resumed.masks["0"][0].all()
    with pytest.raises(CheckpointError, match="another model"):
        Freeze(nn.Sequential(nn.Linear(2, 2))).load_state_dict(masks)


def test_bad_use_is_refused():
    with pytest.raises(InvalidArgument, match="nothing to freeze"):
        Freeze(nn.ReLU())
    with pytest.raises(InvalidArgument, match="strength=0.5"):
        Freeze(net_with_zeros(), strength=0.5)
    with pytest.raises(InvalidArgument, match="holds none"):
        Freeze(net_with_zeros()).attach(torch.optim.SGD(net_with_zeros().parameters(), 0.1))
