"""The schedule against Zhu and Gupta's formula, counts of zeros, and weights that come back until the last bite."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from spokeshave.errors import CheckpointError, InvalidArgument
from spokeshave.regularizers import GuidedL1, MagnitudeSchedule
from spokeshave.structures.magnitude_mask import Scope


def network() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 5))
    with torch.no_grad():
        net[0].weight.mul_(0.1)
    return net


def train(net: nn.Module, steps: int, *pulls: GuidedL1 | MagnitudeSchedule, seed: int = 0) -> list[list[int]]:
    optimizer = torch.optim.SGD(net.parameters(), 0.05, momentum=0.9)
    handles = [pull.attach(optimizer) for pull in pulls]
    generator = torch.Generator().manual_seed(seed)
    zeros = []
    for _ in range(steps):
        optimizer.zero_grad()
        inputs = torch.randn(16, 10, generator=generator)
        net(inputs).sub(inputs[:, :5]).square().mean().backward()
        optimizer.step()
        zeros.append([int((net[i].weight == 0).sum()) for i in (0, 2)])
    for handle in handles:
        handle.remove()
    return zeros


def test_zeros_follow_the_cubic_ramp_in_every_layer():
    net = network()
    zeros = train(net, 40, MagnitudeSchedule(net, {"0": 0.9, "2": 0.5}, steps=20, begin=10, every=5))
    for step, got in enumerate(zeros, start=1):
        bite = min(step, 30) // 5 * 5
        reached = 0.0 if bite <= 10 else 0.9 - 0.9 * (1 - (bite - 10) / 20) ** 3  # their equation 1 with s_i = 0
        assert got == [round(200 * reached), round(100 * reached / 0.9 * 0.5)]
    assert zeros[-1] == [180, 50]


def test_global_scope_takes_more_from_the_layer_of_small_weights():
    net = network()
    zeros = train(net, 10, MagnitudeSchedule(net, 0.5, steps=10, every=10, scope=Scope.GLOBAL))
    assert sum(zeros[-1]) == 150 and zeros[-1][0] > 120


def test_weights_come_back_before_the_last_bite_and_not_after():
    net = network()
    schedule = MagnitudeSchedule(net, 0.6, steps=60, every=1)
    masks = []
    optimizer = torch.optim.SGD(net.parameters(), 0.2)
    schedule.attach(optimizer)
    for step in range(90):
        optimizer.zero_grad()
        inputs = torch.randn(16, 10, generator=torch.Generator().manual_seed(step))
        net(inputs).sub(inputs[:, :5]).square().mean().backward()
        optimizer.step()
        masks.append(net[0].weight != 0)
    assert any((now & ~before).any() for before, now in pairwise(masks[10:60]))
    assert all(torch.equal(mask, masks[59]) for mask in masks[60:])


def test_a_hidden_weight_comes_back_with_the_value_that_it_had():
    layer = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 0.5]]))
    optimizer = torch.optim.SGD(layer.parameters(), 1.0)
    MagnitudeSchedule(layer, 0.5, steps=4, every=1).attach(optimizer)
    for gradient, expected in ((0.0, [1.0, 0.0]), (0.75, [0.0, 0.5])):  # the first weight falls to a quarter
        layer.weight.grad = torch.tensor([[gradient, 0.0]])
        optimizer.step()
        assert layer.weight[0].tolist() == expected


def test_the_pull_beside_it_shrinks_hidden_weights_too():
    net = network()
    schedule = MagnitudeSchedule(net, 0.8, steps=5, every=1)
    zeros = train(net, 8, GuidedL1(net, strength=1e-4), schedule)
    assert zeros[-1][0] >= 160 and zeros[-1][1] >= 80


def test_a_resumed_run_is_the_same():
    whole, first = network(), network()
    options = {"steps": 12, "every": 3}
    train(whole, 5, one := MagnitudeSchedule(whole, 0.7, **options))
    train(whole, 10, one, seed=1)
    train(first, 5, half := MagnitudeSchedule(first, 0.7, **options))
    second = network()
    second.load_state_dict(first.state_dict())
    again = MagnitudeSchedule(second, 0.7, **options)
    again.load_state_dict({name: torch.as_tensor(value).clone() for name, value in half.state_dict().items()})
    train(second, 10, again, seed=1)
    assert torch.equal(second[0].weight, whole[0].weight)
    with pytest.raises(CheckpointError, match="another model"):
        MagnitudeSchedule(nn.Linear(2, 2), 0.5, steps=1).load_state_dict(half.state_dict())


def test_strength_0_lets_go():
    net = network()
    assert train(net, 5, MagnitudeSchedule(net, 0.9, steps=2, every=1, strength=0.0))[-1] == [0, 0]


@pytest.mark.parametrize("options", [{"steps": 0}, {"steps": 1, "every": 0}, {"steps": 1, "begin": -1}])
def test_bad_settings_are_refused(options):
    with pytest.raises(InvalidArgument, match="at least"):
        MagnitudeSchedule(nn.Linear(2, 2), 0.5, **options)
    with pytest.raises(InvalidArgument, match=r"0\.\.1"):
        MagnitudeSchedule(nn.Linear(2, 2), 1.5, steps=1)
    with pytest.raises(InvalidArgument, match="strength"):
        MagnitudeSchedule(nn.Linear(2, 2), 0.5, steps=1, strength=0.5)
