"""Tea's formulas against sampling, and straight-through variants."""

import copy
import math

import pytest
import torch

from spokeshave.errors import InvalidArgument
from spokeshave.targets.truenorth.core_grid import NOWHERE
from spokeshave.targets.truenorth.tea_layer import Synapses, TeaLayer, gathered, rounded, spike_probability


def layer(seed: int = 0, cores: int = 2, axons: int = 64, neurons: int = 5) -> TeaLayer:
    types = (torch.arange(axons) % 4).expand(cores, -1)
    weights = torch.tensor([[-2, -1, 1, 2], [1, -1, 1, -1], [2, 1, -1, -2], [1, 1, -1, -1], [1, 2, -2, -1]])
    return TeaLayer(types, weights[:neurons].expand(cores, -1, -1), torch.Generator().manual_seed(seed))


def test_the_probability_is_that_of_the_normal_distribution_with_the_papers_moments() -> None:
    made, x = layer(), torch.rand(3, 2, 64)
    got = made(x).detach()
    for image, core, neuron in ((0, 0, 0), (2, 1, 4)):
        p, c = made.probability[core, neuron].tolist(), made.synapse_weights[core, neuron].tolist()
        arriving = x[image, core].tolist()
        mean = sum(a * b * d for a, b, d in zip(p, c, arriving, strict=True))
        variance = sum(b * b * a * d * (1 - a * d) for a, b, d in zip(p, c, arriving, strict=True))
        wanted = 0.5 * (1 + math.erf((mean + 0.5) / math.sqrt(2 * variance)))
        assert got[image, core, neuron].item() == pytest.approx(wanted, abs=1e-5)


def test_it_is_close_to_how_often_sampled_neurons_fire() -> None:
    """Connections and spikes drawn 4,000 times; what is left is the normal approximation of a sum of 64."""
    made, x = layer(), torch.rand(1, 2, 64)
    on = torch.rand(4000, 2, 5, 64) < made.probability.detach()
    spikes = torch.rand(4000, 2, 1, 64) < x[0][:, None]
    fired = ((on & spikes) * made.synapse_weights).sum(3) >= 0
    assert (fired.float().mean(0) - made(x)[0]).abs().max() < 0.03


def test_without_chance_it_is_a_step() -> None:
    """Exactly 0 or 1 where all probabilities are: the sum is a whole number, and fires at 0."""
    probability = (torch.rand(1, 6, 64) < 0.5).float()
    x, c = (torch.rand(20, 1, 64) < 0.5).float(), torch.randint(-2, 3, (1, 6, 64)).float()
    sums = (x @ (probability * c).mT[0]).squeeze(1)
    got = spike_probability(x, probability, c, torch.zeros(1, 6))[:, 0]
    assert torch.equal(got, (sums >= 0).float()) and 0 < got.mean() < 1


@pytest.mark.parametrize("synapses", Synapses)
def test_gradients_reach_every_probability(synapses: Synapses) -> None:
    made = layer()
    made.synapses = synapses
    made(torch.rand(8, 2, 64)).square().sum().backward()
    for parameter in (made.probability, made.scaled_leak):
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all()
        assert (parameter.grad != 0).float().mean() > 0.9


def test_gradients_are_those_of_the_formula() -> None:
    x = torch.rand(2, 1, 4, dtype=torch.float64)
    p = (0.1 + 0.8 * torch.rand(1, 3, 4, dtype=torch.float64)).requires_grad_()
    c = torch.tensor([1.0, -1.0, 2.0, -2.0], dtype=torch.float64).expand(1, 3, 4)
    leak = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda p, leak: spike_probability(x, p, c, leak), (p, leak))


def test_rounded_connections_have_the_gradient_of_the_identity() -> None:
    p = torch.tensor([0.1, 0.5, 0.9], requires_grad=True)
    rounded(p).mul(torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert p.grad is not None and p.grad.tolist() == [1, 2, 3]


def test_a_rounded_layer_is_the_one_that_settles() -> None:
    """Its values, for probabilities of spikes and for spikes, are those of the layer that is left when it settles."""
    made = layer()
    with torch.no_grad():
        made.scaled_leak.uniform_(-0.4, 0.4)
    settled = copy.deepcopy(made)
    settled.settle()
    assert set(settled.probability.unique().tolist()) == {0, 1} and (settled.leak % 1 == 0).all()
    made.synapses = Synapses.ROUNDED
    for x in (torch.rand(5, 2, 64), (torch.rand(5, 2, 64) < 0.5).float()):
        assert torch.allclose(made(x), settled(x), atol=1e-6)
    assert set(made(x).unique().tolist()) == {0, 1}


def test_training_takes_probabilities_back_into_their_range() -> None:
    made, x = layer(), torch.rand(1, 2, 64)
    with torch.no_grad():
        made.probability[0, 0, :2] = torch.tensor([-0.5, 1.5])
    clamped = made.eval()(x)
    assert made.probability[0, 0, :2].tolist() == [-0.5, 1.5]  # evaluation changes nothing, and counts them as 0 and 1
    assert torch.equal(made.train()(x), clamped)
    assert made.probability[0, 0, :2].tolist() == [0, 1]
    first, second = made(x), made(x)  # no write between forward passes: both can go backward
    (first + second).sum().backward()


def test_types_without_a_weight_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="expected types below 4 .* got types up to 4"):
        TeaLayer(torch.full((1, 3), 4), torch.ones(1, 2, 4, dtype=torch.int64))


def test_gathering_goes_back_the_way_it_came() -> None:
    sources = torch.tensor([[0, 3, NOWHERE], [5, NOWHERE, 1]])
    x = torch.rand(4, 7, dtype=torch.float64, requires_grad=True)
    got = gathered(x, sources, once=True)
    wanted = torch.cat([x.detach(), torch.zeros(4, 1, dtype=torch.float64)], 1)[:, sources.flatten()].view(4, 2, 3)
    assert torch.equal(got, wanted) and torch.equal(gathered(x.detach(), sources), wanted)
    assert torch.autograd.gradcheck(lambda x: gathered(x, sources, once=True), x)
    twice = torch.tensor([[0, 3, NOWHERE], [3, 0, 0]])  # as pixels in several blocks
    assert torch.autograd.gradcheck(lambda x: gathered(x, twice), x)
