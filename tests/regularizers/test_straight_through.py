"""Straight-through training: against a loop by hand, in the forward pass and at the end, resuming."""

import pytest
import torch
from torch import nn

from spokeshave.errors import CheckpointError, InvalidArgument
from spokeshave.regularizers import StraightThrough
from spokeshave.structures.levels import best_scale, nearest_level


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    return torch.randn(16, 6, generator=generator), torch.randint(3, (16,), generator=generator)


def run(net, optimizer, steps: range):
    for step in steps:
        inputs, labels = batch(step)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(inputs), labels).backward()
        optimizer.step()


@pytest.mark.parametrize("levels", [1, 3])
def test_it_is_the_loop_by_hand(levels):
    """Written out: the gradient at Q(w) moves w, by the optimizer's own momentum and weight decay."""
    net, by_hand = network(), network()
    options = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}
    optimizer = torch.optim.SGD(net.parameters(), **options)
    StraightThrough(net, levels=levels, refresh=2).attach(optimizer)
    run(net, optimizer, range(7))

    multiples = tuple(float(k) for k in range(1, levels + 1))
    hidden = [p.detach().clone() for p in by_hand.parameters()]
    other = torch.optim.SGD(by_hand.parameters(), **options)
    scales: dict[int, float] = {}
    for step in range(7):
        inputs, labels = batch(step)
        other.zero_grad()
        nn.functional.cross_entropy(by_hand(inputs), labels).backward()
        for p, w in zip(by_hand.parameters(), hidden, strict=True):
            p.data = w.clone()
        other.step()
        hidden = [p.detach().clone() for p in by_hand.parameters()]
        for index, p in enumerate(by_hand.parameters()):
            if p.dim() > 1:
                if step % 2 == 0:
                    scales[index] = best_scale(hidden[index], multiples)
                p.data = nearest_level(hidden[index], scales[index], multiples)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), by_hand.parameters(), strict=True))


def test_weights_are_at_their_levels_in_every_pass_and_at_the_end():
    net = network()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    training = StraightThrough(net)
    handle = training.attach(optimizer)
    for step in range(5):
        run(net, optimizer, range(step, step + 1))
        for name in ("0", "2"):
            values = set(net.get_parameter(f"{name}.weight").detach().unique().tolist())
            g = torch.tensor(training.scales[name]).item()
            assert values <= {-g, 0.0, g} and len(values) > 1
    handle.remove()
    shown = [p.detach().clone() for p in net.parameters()]
    assert training.finish() == training.scales
    run(net, optimizer, range(9, 9))
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), shown, strict=True))
    assert not [name for name in training.state_dict() if name.startswith("hidden.")]


def test_small_steps_add_up_out_of_sight():
    """A gradient far too small to reach the next level in one step gets there: the hidden weight remembers."""
    net = nn.Sequential(nn.Linear(2, 1, bias=False))
    net[0].weight.data = torch.tensor([[1.0, 0.2]])
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    StraightThrough(net, refresh=1000).attach(optimizer)
    seen = []
    for _ in range(5):
        net[0].weight.grad = torch.tensor([[0.0, -1.0]])
        optimizer.step()
        seen.append(net[0].weight[0, 1].item())
    assert seen[0] == 0.0 and seen[-1] > 0.5 and sorted(seen) == seen


def test_half_strength_goes_half_the_way():
    net = nn.Sequential(nn.Linear(2, 1, bias=False))
    net[0].weight.data = torch.tensor([[1.0, 0.2]])
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0)
    StraightThrough(net, strength=0.5).attach(optimizer)
    net[0].weight.grad = torch.zeros(1, 2)
    optimizer.step()
    assert net[0].weight.tolist() == [[1.0, pytest.approx(0.1)]]


def test_a_resumed_training_ends_with_the_same_bits():
    def make():
        net = network()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        training = StraightThrough(net, refresh=4)
        training.attach(optimizer)
        return net, training, optimizer

    whole, half, rest = make(), make(), make()
    run(whole[0], whole[2], range(10))
    run(half[0], half[2], range(5))
    rest[1].load_state_dict(half[1].state_dict())
    rest[0].load_state_dict(half[0].state_dict())
    run(rest[0], rest[2], range(5, 10))
    assert all(torch.equal(a, b) for a, b in zip(whole[0].parameters(), rest[0].parameters(), strict=True))


def test_what_is_wrong_is_refused():
    net = network()
    for options in ({"strength": 1.5}, {"strength": -0.1}, {"refresh": 0}, {"levels": ()}, {"exclude": ("fc",)}):
        with pytest.raises(InvalidArgument):
            StraightThrough(net, **options)
    with pytest.raises(CheckpointError):
        StraightThrough(net).load_state_dict(StraightThrough(net, exclude=("2",)).state_dict())


def test_finishing_below_full_strength_leaves_weights_at_their_levels():
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    training = StraightThrough(net, strength=0.5)
    training.attach(optimizer)
    run(net, optimizer, range(3))
    assert len(net[0].weight.unique()) > 3
    scales = training.finish()
    for name in ("0", "2"):
        g = torch.tensor(scales[name]).item()
        assert set(net.get_parameter(f"{name}.weight").unique().tolist()) <= {-g, 0.0, g}


def test_weights_that_were_loaded_between_two_steps_are_trained_on():
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0)
    training = StraightThrough(net)
    training.attach(optimizer)
    run(net, optimizer, range(1))
    torch.manual_seed(5)
    better = nn.Linear(6, 8).weight.detach()
    with torch.no_grad():
        net[0].weight.copy_(better)
    last = training.state_dict()["hidden.2"].clone()
    run(net, optimizer, range(1))
    assert torch.equal(training.state_dict()["hidden.0"], better)
    assert torch.equal(training.state_dict()["hidden.2"], last)
    net[0].weight.data.copy_(better)
    training.finish()
    assert torch.equal(net[0].weight, better)


def test_two_optimizers_are_one_step_and_have_all_layers_searched():
    net, alone = network(), network()
    optimizers = [torch.optim.SGD(net[place].parameters(), lr=0.1) for place in (2, 0)]
    training, other = StraightThrough(net, refresh=2), StraightThrough(alone, refresh=2)
    for optimizer in optimizers:
        training.attach(optimizer)
    one = torch.optim.SGD(alone.parameters(), lr=0.1)
    other.attach(one)
    run(alone, one, range(6))
    for step in range(6):
        inputs, labels = batch(step)
        net.zero_grad()
        nn.functional.cross_entropy(net(inputs), labels).backward()
        for optimizer in optimizers:
            optimizer.step()
    assert training.step == other.step == 6 and training.scales == other.scales
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), alone.parameters(), strict=True))


def test_hidden_weights_of_another_shape_are_refused():
    wide = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 3))
    trained = StraightThrough(wide)
    optimizer = torch.optim.SGD(wide.parameters(), lr=0.1)
    trained.attach(optimizer)
    run(wide, optimizer, range(1))
    with pytest.raises(CheckpointError, match=r"hidden\.0 belongs to another model: it has shape \(9, 6\)"):
        StraightThrough(network()).load_state_dict(trained.state_dict())


def test_a_training_that_diverged_is_not_hidden():
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    StraightThrough(net, refresh=100).attach(optimizer)
    run(net, optimizer, range(2))
    net[0].weight.grad.fill_(torch.nan)
    optimizer.step()
    assert net[0].weight.isnan().all()
    with pytest.raises(InvalidArgument, match="0: its weights must be finite"):
        StraightThrough(net)
