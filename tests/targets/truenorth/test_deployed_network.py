"""Deployed networks: equal to the trained one without chance, close to it with many copies; votes; price."""

import copy
import pickle

import pytest
import torch

from spokeshave.errors import InvalidArgument, UnsupportedLayer
from spokeshave.targets.truenorth.deployed_network import TrueNorth
from spokeshave.targets.truenorth.spike_coding import SpikeCode
from spokeshave.targets.truenorth.spike_simulator import Engine
from spokeshave.targets.truenorth.tea_benches import mnist_bench_1, mnist_bench_3
from spokeshave.targets.truenorth.tea_layer import LEAK_UNIT
from spokeshave.targets.truenorth.tea_network import TeaNetwork


def settled(network: TeaNetwork) -> TeaNetwork:
    """With all probabilities at a pole, and whole leaks."""
    with torch.no_grad():
        for layer in network.tea_layers:
            layer.probability.copy_((layer.probability < 0.5).float())
            layer.scaled_leak.copy_(torch.randint(-3, 4, layer.leak.shape) / LEAK_UNIT)
    return network


@pytest.mark.parametrize("engine", [Engine.TORCH, Engine.BIT_PLANES])
@pytest.mark.parametrize("bench", [mnist_bench_1, mnist_bench_3])
def test_without_chance_it_is_the_network_itself(bench, engine: Engine) -> None:
    network = settled(bench(40))
    images = (torch.rand(6, 784) < 0.3).float()
    deployed = TrueNorth(copies=2, spikes_per_frame=3, engine=engine).map(network)
    votes = deployed.votes(images)
    wanted = (16 * network(images) / network.scale).round()  # four neurons a class in each of four cores
    assert votes.shape == (2, 3, 6, 10)
    assert all(torch.equal(one.float(), wanted) for copy in votes for one in copy)
    assert torch.allclose(deployed(images), network(images), atol=1e-5)


@pytest.mark.parametrize("shared", [False, True])
def test_many_copies_and_ticks_come_near_the_expected_shares(shared: bool) -> None:
    """One layer: what is left is chance, more where only 8 input draws are there, and the normal approximation."""
    network, images = mnist_bench_1(40), torch.rand(3, 784)
    deployed = TrueNorth(64, 8, shared_input=shared).map(network)
    assert (deployed(images) - network(images)).abs().max() / network.scale < (0.09 if shared else 0.05)


def test_draws_of_inputs_can_be_begun_anew() -> None:
    network, images = mnist_bench_1(40), torch.rand(5, 784)
    deployed = TrueNorth(2, 2, seed=3).map(network)
    first, second = deployed.votes(images), deployed.votes(images)
    deployed.restart()
    assert torch.equal(deployed.votes(images), first) and not torch.equal(first, second)


def test_replicas_get_spikes_of_their_own() -> None:
    """Replicas with the same connections answer differently; shared inputs are shared by copies, not by replicas."""
    network, images = settled(mnist_bench_1(40, replicas=2)), torch.rand(5, 784)
    layer = network.tea_layers[0]
    with torch.no_grad():
        layer.probability[4:], layer.scaled_leak[4:] = layer.probability[:4], layer.scaled_leak[:4]
    for engine in (Engine.TORCH, Engine.BIT_PLANES):
        deployed = TrueNorth(2, 3, shared_input=True, engine=engine).map(network)
        votes, most = deployed.votes(images), 32
        assert deployed.cost().cores == 16 and torch.equal(votes[0], votes[1])
        assert (votes % 2).any()  # an even number of votes each, were both replicas' spikes the same
        assert (votes.float().mean((0, 1)) / most - network(images) / network.scale).abs().max() < 0.25


def test_shared_inputs_leave_only_the_connections_to_chance() -> None:
    network = settled(mnist_bench_1(40))
    images = torch.rand(5, 784)
    shared, own = (TrueNorth(3, 2, shared_input=share).map(network).votes(images) for share in (True, False))
    assert torch.equal(shared[0], shared[1]) and not torch.equal(own[0], own[1])


def test_the_grid_of_accuracies_is_that_of_each_number_of_copies_and_ticks() -> None:
    network, images = mnist_bench_1(20), torch.rand(50, 784)
    labels = torch.randint(0, 10, (50,))
    deployed = TrueNorth(3, 4).map(network)
    found = deployed.accuracy_grid([(images[:20], labels[:20]), (images[20:], labels[20:])])
    deployed.restart()
    votes = torch.cat([deployed.votes(images[:20]), deployed.votes(images[20:])], 2)
    for copies, ticks in ((1, 1), (3, 4), (2, 3)):
        scores = votes[:copies, :ticks].sum((0, 1)).tolist()
        # Classes with equally many votes share an image.
        hits = [(s[y] == max(s)) / s.count(max(s)) for s, y in zip(scores, labels.tolist(), strict=True)]
        assert found[copies - 1, ticks - 1].item() == pytest.approx(sum(hits) / 50)


def test_prices() -> None:
    cost = TrueNorth(copies=3, spikes_per_frame=4).map(mnist_bench_3(30)).cost()
    assert (cost.cores, cost.copies, cost.frame_spikes) == (186, 3, 4)
    assert cost.latency_s == pytest.approx(6e-3) and cost.frame_s == pytest.approx(4e-3)
    assert cost.chip_share == 186 / 4096 and 0 < cost.connections_share < 0.5


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UnsupportedLayer, match="Linear: neurosynaptic cores hold networks of Tea layers only"):
        TrueNorth().map(torch.nn.Linear(2, 2))
    with pytest.raises(InvalidArgument, match="expected at least 1, got 0, 1 and 64"):
        TrueNorth(copies=0)
    with pytest.raises(InvalidArgument, match="seed: expected at least 0, got -1"):
        TrueNorth(seed=-1)
    with pytest.raises(InvalidArgument, match="device 'nonsense' cannot be used here"):
        TrueNorth(device="nonsense").map(mnist_bench_1(10))
    deployed = TrueNorth(code=SpikeCode.RATE).map(mnist_bench_1(10))
    with pytest.raises(InvalidArgument, match="expected at least one image, got none"):
        deployed.accuracy_grid([])
    with pytest.raises(InvalidArgument, match="values of 0..1"):
        deployed(2 * torch.ones(1, 784))
    with pytest.raises(InvalidArgument, match=r"784 pixels, got \(1, 1, 27, 28\)"):
        deployed(torch.ones(1, 1, 27, 28))


def test_a_rate_code_has_frames_of_its_own_for_every_number_of_ticks() -> None:
    network, images, labels = settled(mnist_bench_1(40)), torch.rand(60, 784), torch.randint(0, 10, (60,))
    grid = TrueNorth(2, 4, code=SpikeCode.RATE).map(network).accuracy_grid([(images, labels)])
    for ticks in (1, 3, 4):
        alone = TrueNorth(2, ticks, code=SpikeCode.RATE).map(network).accuracy_grid([(images, labels)])
        assert torch.equal(grid[:, ticks - 1], alone[:, ticks - 1])


def test_it_can_be_copied_pickled_and_moved() -> None:
    network, images = mnist_bench_1(20), torch.rand(3, 784)
    deployed = TrueNorth(2, 2).map(network)
    wanted = deployed.votes(images)
    deployed.restart()
    for again in (copy.deepcopy(deployed), pickle.loads(pickle.dumps(deployed)), deployed.half()):
        assert torch.equal(again.votes(images), wanted)


def test_mapping_and_running_leave_torch_s_random_numbers_alone() -> None:
    network, images = mnist_bench_1(20, seed=0), torch.rand(3, 784)
    state = torch.get_rng_state()
    TrueNorth(2, 2).map(network).accuracy_grid([(images, torch.zeros(3, dtype=torch.int64))])
    TeaNetwork.of(network.state_dict())
    assert torch.equal(torch.get_rng_state(), state)


def test_numbers_of_votes_do_not_depend_on_how_many_images_are_run_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    network, images = settled(mnist_bench_1(20)), (torch.rand(600, 784) < 0.3).float()
    wanted = TrueNorth(2, 3).map(network).votes(images)
    monkeypatch.setattr("spokeshave.targets.truenorth.deployed_network._BITS_AT_ONCE", 1)
    for engine in (Engine.TORCH, Engine.BIT_PLANES):
        assert torch.equal(TrueNorth(2, 3, engine=engine).map(network).votes(images), wanted)
