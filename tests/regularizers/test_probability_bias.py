"""Probability biasing: its formula, where it takes probabilities, schedule, what it refuses."""

import math

import pytest
import torch
from torch import nn

from spokeshave.errors import InvalidArgument
from spokeshave.regularizers.probability_bias import Penalty, ProbabilityBias, bias_energy, bias_gradient


class Chances(nn.Module):
    def __init__(self, values: torch.Tensor) -> None:
        super().__init__()
        self.probability = nn.Parameter(values.clone())
        self.other = nn.Parameter(torch.zeros(2))


def test_the_energy_is_a_triangle_with_its_top_at_the_centroid() -> None:
    p = torch.linspace(0, 1, 101, dtype=torch.float64)
    one_by_one = torch.stack([bias_energy(value[None]) for value in p])
    assert torch.allclose(one_by_one, torch.minimum(p, 1 - p))
    lop = torch.stack([bias_energy(value[None], 0.3, 0.2) for value in p])
    assert torch.allclose(lop, torch.tensor([abs(abs(v - 0.3) - 0.2) for v in p.tolist()], dtype=torch.float64))


@pytest.mark.parametrize("penalty", Penalty)
def test_the_pull_is_the_gradient_of_the_energy(penalty: Penalty) -> None:
    model = Chances(torch.rand(50).clamp(0.01, 0.99))
    bias = ProbabilityBias(model, strength=0.3, penalty=penalty)
    (wanted,) = torch.autograd.grad(bias.energy(), [model.probability])
    bias.pull()
    assert model.probability.grad is not None and torch.allclose(model.probability.grad, wanted)
    assert model.other.grad is None


def test_outside_of_the_poles_the_gradient_leads_back() -> None:
    assert bias_gradient(torch.tensor([-0.5, 0.0, 0.5, 1.0, 1.5])).tolist() == [-1, 0, 0, 0, 1]


@pytest.mark.parametrize(("penalty", "wanted"), [(Penalty.BIAS, [0, 0, 1, 1]), (Penalty.L1, [0, 0, 0, 0])])
def test_probabilities_end_at_the_poles(penalty: Penalty, wanted: list[float]) -> None:
    model = Chances(torch.tensor([0.1, 0.49, 0.51, 0.9]))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.03)
    bias = ProbabilityBias(model, strength=1.0, penalty=penalty)
    bias.attach(optimizer)
    before = bias.variance()
    for _ in range(40):
        optimizer.zero_grad()
        optimizer.step()  # gradients come from the pull alone
        assert bool(((model.probability >= 0) & (model.probability <= 1)).all())
    assert (model.probability - torch.tensor(wanted)).abs().max() <= 0.03 and bias.variance() < 0.03 < before


def test_the_strength_begins_late_and_rises() -> None:
    model = Chances(torch.tensor([0.25]))
    bias = ProbabilityBias(model, strength=4.0, start=2, ramp=3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    bias.attach(optimizer)
    strengths = []
    for _ in range(7):
        strengths.append(bias.strength_now)
        optimizer.zero_grad()
        optimizer.step()
    rise = [(math.exp(5 * done) - 1) / (math.exp(5) - 1) for done in (0, 0, 0.25, 0.5, 0.75, 1, 1)]
    assert strengths == pytest.approx([4 * part for part in rise])
    other = ProbabilityBias(model, strength=1.0, start=2, ramp=3)
    other.load_state_dict(bias.state_dict())
    assert (other.strength, other.step, other.strength_now) == (4.0, 7, 4.0)


def test_any_module_with_probabilities_by_name() -> None:
    model = nn.Sequential(nn.Linear(3, 2))
    with torch.no_grad():
        model[0].weight.uniform_(0, 1)
    assert ProbabilityBias(model, 1.0, names=["0.w*"]).energy() == bias_energy(model[0].weight)
    with pytest.raises(InvalidArgument, match=r"no parameter matches '\*probability'; the model has 0.weight, 0.bias"):
        ProbabilityBias(model)
    with torch.no_grad():
        model[0].weight[0, 0] = 1.5
    with pytest.raises(InvalidArgument, match=r"expected probabilities of 0\.\.1, got values of .*\.\.1.5"):
        ProbabilityBias(model, names=["*weight"])


def test_what_is_out_of_range_is_refused() -> None:
    model = Chances(torch.rand(3))
    for wrong in ({"strength": -1.0}, {"strength": float("nan")}, {"ramp": -1}, {"centroid": 0.0}, {"distance": 2.0}):
        with pytest.raises(InvalidArgument, match="strength must be finite"):
            ProbabilityBias(model, **wrong)
    with pytest.raises(InvalidArgument, match="holds none of the probabilities"):
        ProbabilityBias(model).attach(torch.optim.SGD([torch.zeros(1)], lr=1.0))
