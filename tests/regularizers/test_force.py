"""Force regularization against a loop over pairs, finite differences of its energy, and its effect on the spectrum."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from spokeshave.errors import CheckpointError, InvalidArgument, UnsupportedLayer
from spokeshave.regularizers.force import Components, Force, Pull, Scale, filter_energy, filter_forces
from spokeshave.structures.spectrum import principal_components, reconstruction_error


def by_pairs(filters: torch.Tensor, pull: Pull) -> torch.Tensor:
    """The definition, pair by pair."""
    forces = torch.zeros_like(filters)
    for i, own in enumerate(filters):
        if own.norm() == 0:
            continue
        unit = own / own.norm()
        for other in filters:
            if other.norm() == 0:
                continue
            pair = other / other.norm() - unit
            if pull is Pull.L1:
                if pair.norm() < 1e-7:
                    continue
                pair = pair / pair.norm()
            forces[i] += own.norm() * (pair - (pair @ unit) * unit)
    return forces


def awkward_filters(name: str) -> torch.Tensor:
    torch.manual_seed(3)
    filters = torch.randn(7, 12, dtype=torch.float64) * torch.rand(7, 1, dtype=torch.float64)
    if name == "zeros":
        filters[::3] = 0
    if name == "identical":
        filters[3] = filters[1]
    if name == "parallel":
        filters[3] = 5 * filters[1]
    if name == "opposite":
        filters[2] = -filters[1]
    return {"one": filters[:1], "all zero": 0 * filters}.get(name, filters)


NAMES = ["random", "zeros", "identical", "parallel", "opposite", "one", "all zero"]


@pytest.mark.parametrize("pull", Pull)
@pytest.mark.parametrize("name", NAMES)
def test_closed_form_is_the_sum_over_pairs(name: str, pull: Pull) -> None:
    filters = awkward_filters(name)
    assert torch.allclose(filter_forces(filters, pull), by_pairs(filters, pull), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("pull", Pull)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_forces_are_finite_and_at_right_angles_to_their_filters(name: str, pull: Pull, dtype: torch.dtype) -> None:
    filters = awkward_filters(name).to(dtype)
    forces = filter_forces(filters, pull)
    assert forces.dtype == dtype and torch.isfinite(forces).all()
    along = (filters.double() * forces.double()).sum(1).abs()
    length = filters.double().norm(dim=1) * forces.double().norm(dim=1)
    assert (along <= 40 * torch.finfo(dtype).eps * (length + len(filters) * filters.double().norm(dim=1) ** 2)).all()


@pytest.mark.parametrize("pull", Pull)
@pytest.mark.parametrize("name", ["random", "opposite", "zeros"])
def test_force_is_half_the_squared_norm_times_minus_the_gradient_of_the_energy(name: str, pull: Pull) -> None:
    filters = awkward_filters(name).requires_grad_()
    (gradient,) = torch.autograd.grad(filter_energy(filters, pull), filters)
    wanted = -filters.detach().square().sum(1, keepdim=True) / 2 * gradient
    assert torch.allclose(filter_forces(filters.detach(), pull), wanted, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("pull", Pull)
def test_energy_is_the_sum_over_pairs_and_scale_free(pull: Pull) -> None:
    filters = awkward_filters("random")
    units = filters / filters.norm(dim=1, keepdim=True)
    distances = torch.cdist(units, units)
    wanted = 0.5 * distances.square().sum() if pull is Pull.L2 else distances.sum()
    assert torch.allclose(filter_energy(3 * filters, pull), wanted)
    zeros = torch.zeros(3, 4, requires_grad=True)
    filter_energy(zeros, pull).backward()
    assert torch.isfinite(zeros.grad).all()


def test_forces_act_inside_each_convolution_group() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 6, 3, groups=2, bias=False).double()
    Force(nn.Sequential(layer), strength=0.5).pull()
    parts = [by_pairs(part.flatten(1), Pull.L2) for part in layer.weight.detach().chunk(2)]
    assert torch.allclose(-layer.weight.grad.flatten(1), 0.5 * torch.cat(parts))


@pytest.mark.parametrize("pull", Pull)
def test_force_lowers_the_error_of_few_directions_and_repulsion_drives_filters_apart(pull: Pull) -> None:
    errors, energies = {}, {}
    for strength in (0.0, 0.02, -0.02):
        torch.manual_seed(1)
        net = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False))
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        Force(net, strength=strength, kind=pull).attach(optimizer)
        for _ in range(30):
            net[0].weight.grad = torch.zeros_like(net[0].weight)
            optimizer.step()
        filters = net[0].weight.detach().flatten(1)
        errors[strength] = reconstruction_error(principal_components(filters)[0], 2)
        energies[strength] = float(filter_energy(filters, pull))
    assert errors[0.02] < 0.9 * errors[0.0]
    # Repulsion need not raise the rank: filters in opposite pairs are as far apart as can be.
    assert energies[0.02] < energies[0.0] < energies[-0.02]


def test_components_scale_and_steps() -> None:
    torch.manual_seed(2)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False))
    weight = net[0].weight
    loss = torch.randn_like(weight)

    def change(**options: object) -> torch.Tensor:
        weight.grad = loss.clone()
        Force(net, strength=0.1, **options).pull()
        return weight.grad - loss

    whole = change()
    same = change(components=Components.SAME)
    agree = whole * loss >= 0
    assert torch.allclose(same[agree], whole[agree]) and (same[~agree].abs() < 1e-7).all()
    assert agree.any() and not agree.all()
    assert torch.allclose(change(scale=Scale.ADAPTIVE).norm(), 0.1 * loss.norm(), rtol=1e-3)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    force = Force(net, strength=0.1, steps=2)
    force.attach(optimizer)
    places = [weight.detach().clone()]
    for _ in range(4):
        weight.grad = torch.zeros_like(weight)
        optimizer.step()
        places.append(weight.detach().clone())
    assert [torch.equal(a, b) for a, b in pairwise(places)] == [False, False, True, True]
    resumed = Force(net, strength=0.1, steps=2)
    resumed.load_state_dict(force.state_dict())
    assert resumed.step == 4


def test_layers_by_pattern_and_what_is_refused() -> None:
    net = nn.Sequential(nn.Conv1d(2, 3, 3), nn.Flatten(), nn.Linear(6, 4), nn.ConvTranspose1d(4, 3, 1))
    Force(net).pull()
    assert net[0].weight.grad is not None and net[2].weight.grad is None
    Force(net, layers={"2": 1.0}).pull()
    assert net[2].weight.grad is not None
    with pytest.raises(UnsupportedLayer, match=r"3 \(ConvTranspose1d\)"):
        Force(net, layers={"3": 1.0})
    for wrong, message in (
        ({"strength": float("nan")}, "finite"),
        ({"steps": -1}, "steps"),
        ({"layers": {"no": 1.0}}, "no"),
    ):
        with pytest.raises(InvalidArgument, match=message):
            Force(net, **wrong)
    with pytest.raises(InvalidArgument, match="no convolution"):
        Force(nn.Linear(2, 2))


def test_frozen_filters_stay_where_they_are() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.Conv2d(4, 4, 3, bias=False))
    net[0].weight.requires_grad_(False)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    Force(net, strength=1.0).attach(optimizer)
    before = net[0].weight.clone()
    net(torch.ones(1, 1, 6, 6)).sum().backward()
    optimizer.step()
    assert torch.equal(net[0].weight, before) and net[0].weight.grad is None


def test_a_state_of_something_else_is_refused() -> None:
    with pytest.raises(CheckpointError, match="steps of a force"):
        Force(nn.Sequential(nn.Conv2d(1, 2, 3))).load_state_dict({})
