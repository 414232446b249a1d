"""Votes, wiring, and what does not fit."""

import pytest
import torch

from spokeshave.errors import DataError, InvalidArgument
from spokeshave.targets.truenorth.core_grid import NOWHERE
from spokeshave.targets.truenorth.tea_benches import mnist_bench_1, strided_votes, tea_layer
from spokeshave.targets.truenorth.tea_layer import Synapses
from spokeshave.targets.truenorth.tea_network import TeaNetwork


def two_layers(sources: torch.Tensor | None = None) -> TeaNetwork:
    first = torch.arange(12).view(2, 6)
    second = torch.tensor([[0, 1, 2, 5, 6, NOWHERE]]) if sources is None else sources
    layers = [tea_layer(2, 4, axons=6), tea_layer(1, 4, axons=6)]
    return TeaNetwork(12, [first, second], layers, strided_votes(1, 4, 2))


def test_scores_are_shares_of_votes() -> None:
    network = mnist_bench_1(23)  # the last three neurons have no vote
    image = torch.rand(2, 1, 28, 28)
    spikes = network.spike_probabilities(image)
    assert spikes.shape == (2, 4, 23)
    for label in range(10):
        share = spikes[:, :, [label, label + 10]].mean((1, 2))
        assert torch.allclose(network(image)[:, label], network.scale * share, atol=1e-5)


def test_layers_get_what_their_sources_say() -> None:
    network, images = two_layers(), torch.rand(3, 12)
    first = network.tea_layers[0](images.view(3, 2, 6)).flatten(1)
    arriving = torch.cat([first[:, [0, 1, 2, 5, 6]], torch.zeros(3, 1)], 1)
    assert torch.allclose(network.spike_probabilities(images), network.tea_layers[1](arriving[:, None]), atol=1e-6)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="layer 1: a neuron has one destination"):
        two_layers(torch.tensor([[0, 1, 2, 2, 6, NOWHERE]]))
    with pytest.raises(InvalidArgument, match=r"layer 1: sources must be -1\.\.7"):
        two_layers(torch.tensor([[0, 1, 2, 8, 6, NOWHERE]]))
    with pytest.raises(InvalidArgument, match=r"expected images of 12 pixels, got \(11,\)"):
        two_layers()(torch.rand(1, 11))


def test_use_sets_all_layers_and_what_training_is_fed() -> None:
    network, images = two_layers().use(Synapses.ROUNDED), torch.full((200, 12), 0.5)
    assert {layer.synapses for layer in network.tea_layers} == {Synapses.ROUNDED}
    assert (network.cores, network.classes) == (3, 2)
    drawn = network.train().spike_probabilities(images)
    assert set(drawn.unique().tolist()) <= {0, 1} and drawn.std(0).max() > 0  # images differ by their draws
    assert network.eval().spike_probabilities(images).std(0).max() == 0
    assert network.train().use(Synapses.ROUNDED, sampled_input=False)(images).std(0).max() == 0


def test_a_network_that_has_settled_leaves_nothing_to_its_connections() -> None:
    network = two_layers().use(Synapses.ROUNDED).settle()
    assert {layer.synapses for layer in network.tea_layers} == {Synapses.EXPECTED} and not network.sampled_input
    assert all(set(layer.probability.unique().tolist()) <= {0, 1} for layer in network.tea_layers)


def test_a_state_dict_tells_the_whole_network() -> None:
    network, images = mnist_bench_1(20, replicas=2), torch.rand(2, 784)
    network.scale = 7.0
    again = TeaNetwork.of(network.state_dict())
    assert torch.equal(again(images), network(images)) and again.streams == 2 and again.cores == 8
    assert again.scale == 7 and network.bfloat16().pixels == 784
    network.float()
    state = network.state_dict()
    for wrong in (
        {k: v for k, v in state.items() if k != "form"},
        {k: v for k, v in state.items() if k != "layers.0.scaled_leak"},
        state | {"sources_0": state["sources_0"] + 10**6}, torch.nn.Linear(2, 2).state_dict(),
    ):  # fmt: skip
        with pytest.raises(DataError, match="not the weights of a whole Tea network"):
            TeaNetwork.of(wrong)


def test_the_gradient_of_a_pixel_is_that_of_all_blocks_that_it_is_in() -> None:
    network, x = mnist_bench_1(10), torch.rand(1, 784, requires_grad=True)
    network(x)[0, 0].backward()
    assert x.grad is not None
    for pixel in (0, 13 * 28 + 13, 14 * 28 + 2):
        moved = torch.zeros(1, 784)
        moved[0, pixel] = 1e-2
        with torch.no_grad():
            change = (network((x + moved).clamp(0, 1)) - network((x - moved).clamp(0, 1)))[0, 0] / 2e-2
        if 0.01 < x[0, pixel] < 0.99:
            assert x.grad[0, pixel].item() == pytest.approx(change.item(), abs=0.02)


@pytest.mark.parametrize("value", [-0.5, 1.5, float("nan")])
def test_what_is_no_probability_is_refused(value: float) -> None:
    for network in (two_layers(), two_layers().use(Synapses.ROUNDED).train()):
        with pytest.raises(InvalidArgument, match=r"expected pixels of 0\.\.1, the probabilities of spikes"):
            network(torch.full((1, 12), value))
