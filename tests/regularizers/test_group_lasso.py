"""Group lasso: energy and force by hand and by autograd; both solvers in a training loop."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from spokeshave.errors import InvalidArgument, UnsupportedLayer
from spokeshave.models import LeNet
from spokeshave.regularizers import Freeze, Frozen, GroupLasso, Solver
from spokeshave.structures.sparsity import sparsity
from spokeshave.structures.tiles import TileGrid, Tiling, crossbar_matrices
from spokeshave.structures.wires import layer_grid, live_wires


def small_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 2), nn.ReLU(), nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(4, 2))


def test_energy_by_hand_for_every_kind():
    net = small_net()
    w = net[0].weight.detach()
    expected = {
        "filters": sum(w[n].norm() for n in range(3)),
        "channels": sum(w[:, c].norm() for c in range(2)),
        "shapes": sum(w[:, c, m, k].norm() for c in range(2) for m in range(2) for k in range(2)),
        "kernels": sum(w[n, c].norm() for n in range(3) for c in range(2)),
        "depth": w.norm(),
    }
    for argument, energy in expected.items():
        pull = GroupLasso(net, **{argument: {"0": 0.5}}, weighting=False)
        assert pull.energy().item() == pytest.approx(0.5 * energy.item(), rel=1e-6), argument
    linear = net[4].weight.detach()
    rows = GroupLasso(net, rows=1.0, weighting=False).energy().item()
    columns = GroupLasso(net, columns=1.0, weighting=False).energy().item()
    assert rows == pytest.approx(linear.norm(dim=1).sum().item())
    assert columns == pytest.approx(linear.norm(dim=0).sum().item())


def test_weighting_is_the_root_of_the_group_size_over_the_smallest():
    # The authors' AlexNet multipliers for columns: sqrt(384/128), sqrt(192/128), 1 (their prototxt: 1.7321, 1.2247, 1).
    net = nn.Sequential(nn.Conv2d(1, 384, 1), nn.Conv2d(384, 384, 1, groups=2), nn.Conv2d(384, 256, 1, groups=2))
    expected = sum(
        math.sqrt(size / 128) * GroupLasso(net, shapes={name: 1.0}, weighting=False).energy().item()
        for name, size in (("0", 384), ("1", 192), ("2", 128))
    )
    assert GroupLasso(net, shapes=1.0).energy().item() == pytest.approx(expected)


def test_pull_is_the_gradient_of_energy_also_beside_zero_groups():
    net = small_net()
    with torch.no_grad():
        net[0].weight[1] = 0
    pull = GroupLasso(net, filters=0.3, shapes=0.2, channels=0.1, kernels=0.1, depth=0.05, rows=0.1, columns=0.2)
    pull.energy().backward()
    expected = [p.grad.clone() if p.grad is not None else None for p in net.parameters()]
    net.zero_grad(set_to_none=True)
    pull.pull()
    for parameter, wanted in zip(net.parameters(), expected, strict=True):
        if wanted is None:
            assert parameter.grad is None
        else:
            assert torch.allclose(parameter.grad, wanted, atol=1e-7)
            assert torch.isfinite(parameter.grad).all()


def wire_energy_by_loops(matrix: torch.Tensor, grid: TileGrid) -> tuple[float, float]:
    rows = columns = 0.0
    for top in range(0, grid.inputs, grid.tile_inputs):
        for left in range(0, grid.outputs, grid.tile_outputs):
            tile = matrix[top : top + grid.tile_inputs, left : left + grid.tile_outputs].tolist()
            rows += sum(math.sqrt(sum(w * w for w in row)) for row in tile)
            columns += sum(math.sqrt(sum(w * w for w in column)) for column in zip(*tile, strict=True))
    return rows, columns


@settings(max_examples=30, deadline=None)
@given(
    features=st.tuples(st.integers(2, 13), st.integers(2, 13)),
    size=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    tiling=st.sampled_from(list(Tiling)),
)
def test_energy_and_pull_of_wires_are_those_of_loops_and_autograd(features, size, tiling):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(*features), nn.Conv2d(4, 6, 2, groups=2))
    net[0].weight.data[0] = 0
    wanted = [0.0, 0.0]
    for name in ("0", "1"):
        grid = layer_grid(name, net[int(name)], size, tiling)
        for matrix in crossbar_matrices(name, net[int(name)].double()):
            found = wire_energy_by_loops(matrix.detach(), grid)
            wanted = [a + b for a, b in zip(wanted, found, strict=True)]
    wiring = {"crossbar": size, "tiling": tiling, "weighting": False, "single_crossbars": True}
    assert GroupLasso(net, tile_rows=1.0, **wiring).energy().item() == pytest.approx(wanted[0])
    pull = GroupLasso(net, tile_rows=0.5, tile_columns=2.0, **wiring)
    energy = pull.energy()
    assert energy.item() == pytest.approx(0.5 * wanted[0] + 2.0 * wanted[1])
    gradients = torch.autograd.grad(energy, [net[0].weight, net[1].weight])
    pull.pull()
    assert all(torch.allclose(net[i].weight.grad, gradients[i], atol=1e-12) for i in (0, 1))


def test_wires_of_a_matrix_that_fits_one_crossbar_are_left_alone_unless_asked_for():
    net = nn.Sequential(nn.Linear(100, 3), nn.Linear(3, 2), nn.ConvTranspose2d(70, 70, 2))
    assert set(GroupLasso(net, tile_rows=1.0).statistics()) == {"0"}
    assert set(GroupLasso(net, tile_rows=1.0, single_crossbars=True).statistics()) == {"0", "1"}
    with pytest.raises(InvalidArgument, match="no layer is named '1'.*single_crossbars=True"):
        GroupLasso(net, tile_columns={"1": 1.0})
    with pytest.raises(InvalidArgument, match="none of which has wires between crossbars"):
        GroupLasso(net[1:], tile_columns=1.0)


def test_proximal_steps_shrink_rows_of_tiles_then_columns():
    net = nn.Sequential(nn.Linear(4, 2, bias=False))
    with (
        torch.no_grad()
    ):  # crossbar matrix (inputs x outputs) in two tiles of 2 x 2: [[3, 4], [0, 0]], [[.01, 0], [0, 5]]
        net[0].weight.copy_(torch.tensor([[3.0, 4.0], [0.0, 0.0], [0.01, 0.0], [0.0, 5.0]]).T)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    pull = GroupLasso(net, tile_rows=1.0, tile_columns=2.0, crossbar=(2, 2), weighting=False)
    pull.attach(optimizer)
    net[0].weight.grad = torch.zeros(2, 4)
    optimizer.step()
    # Row (3, 4) loses .1 of its norm 5: (2.94, 3.92); then each column loses .2. Row (.01, 0) is under .1, so 0.
    wanted = torch.tensor([[2.74, 3.72], [0.0, 0.0], [0.0, 0.0], [0.0, 4.7]]).T
    assert torch.allclose(net[0].weight, wanted) and net[0].weight[0, 2] == 0


def test_wires_that_the_pull_empties_stay_empty_under_a_freeze_of_elements():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(40, 12, bias=False))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    handle = GroupLasso(net, tile_rows=0.05, tile_columns=0.05, crossbar=(8, 8)).attach(optimizer)
    inputs = torch.randn(64, 40)
    targets = inputs[:, :10].sum(1, keepdim=True).expand(-1, 12)

    def train(steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            functional.mse_loss(net(inputs), targets).backward()
            optimizer.step()

    train(60)
    handle.remove()
    grid = layer_grid("0", net[0], (8, 8))
    before = live_wires(crossbar_matrices("0", net[0])[0], grid)
    assert 0 < before.count < 0.9 * grid.wires
    Freeze(net, Frozen.ELEMENTS).attach(optimizer)
    weight = net[0].weight.detach().clone()
    train(20)
    after = live_wires(crossbar_matrices("0", net[0])[0], grid)
    assert torch.equal(before.rows, after.rows) and torch.equal(before.columns, after.columns)
    assert not torch.equal(weight, net[0].weight)


def test_pull_adds_to_an_existing_gradient():
    net = small_net()
    net[0].weight.grad = torch.ones_like(net[0].weight)
    GroupLasso(net, depth={"0": 1.0}).pull()
    assert torch.allclose(net[0].weight.grad, 1 + net[0].weight.detach() / net[0].weight.norm())


def train_steps(solver: Solver, strength: float, steps: int = 150) -> dict[str, float]:
    torch.manual_seed(0)
    net = LeNet()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    pull = GroupLasso(net, filters=0.02, shapes=0.02, columns=0.01, solver=solver, strength=strength)
    pull.attach(optimizer)
    images, labels = torch.randn(32, 1, 28, 28), torch.arange(32) % 10
    for _ in range(steps):
        optimizer.zero_grad()
        functional.cross_entropy(net(images), labels).backward()
        optimizer.step()
    return {name: layer.shapes for name, layer in sparsity(net).items()}


def test_proximal_solver_makes_groups_exactly_zero_and_strength_zero_none():
    assert train_steps(Solver.PROXIMAL, 5.0)["conv2"] > 0.5
    assert set(train_steps(Solver.PROXIMAL, 0.0, steps=3).values()) == {0.0}


def test_subgradient_solver_follows_the_authors_rule_step_by_step():
    net = nn.Sequential(nn.Linear(3, 2, bias=False))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.0, 0.00105]]))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    GroupLasso(net, rows=0.01, solver=Solver.SUBGRADIENT, weighting=False).attach(optimizer)
    net[0].weight.grad = torch.zeros(2, 3)
    optimizer.step()
    # Row 1: 3 - .1*.01*.6, 4 - .1*.01*.8; row 2: .00105 - .001 = 5e-5, under the threshold of 1e-4, so 0.
    assert torch.allclose(net[0].weight, torch.tensor([[2.9994, 3.9992, 0.0], [0.0, 0.0, 0.0]]))
    assert net[0].weight[1, 2] == 0


def test_a_tied_weight_is_pulled_once():
    first, second = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
    second.weight = first.weight
    single = GroupLasso(nn.Sequential(first), rows=1.0).energy()
    assert torch.equal(GroupLasso(nn.Sequential(first, second), rows=1.0).energy(), single)


def test_gradient_scaling_leaves_the_pull_unscaled():
    weight_of = {}
    for scale in (1.0, 1024.0):
        net = nn.Sequential(nn.Linear(2, 2, bias=False))
        nn.init.ones_(net[0].weight)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        GroupLasso(net, rows=0.5, solver=Solver.SUBGRADIENT).attach(optimizer)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        scaler.scale(net(torch.ones(1, 2)).sum()).backward()
        scaler.step(optimizer)
        weight_of[scale] = net[0].weight.detach().clone()
    assert torch.allclose(weight_of[1.0], weight_of[1024.0])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"filters": -1.0}, "at least 0"),
        ({"filters": float("nan")}, "finite"),
        ({"strength": float("inf"), "filters": 1.0}, "strength"),
        ({"filters": {"nosuch*": 1.0}}, "no layer is named 'nosuch"),
        ({"filters": 1.0, "exclude": ("zzz",)}, "no layer is named 'zzz'"),
        ({}, "nothing to pull"),
        ({"tiles": 1.0}, "tile="),
        ({"rows": 1.0, "exclude": ("4",)}, "nothing to pull"),
    ],
)
def test_bad_arguments_are_refused(arguments, says):
    with pytest.raises(InvalidArgument, match=says):
        GroupLasso(small_net(), **arguments)


def test_an_optimizer_of_another_model_is_refused():
    with pytest.raises(InvalidArgument, match="none of the watched"):
        GroupLasso(small_net(), filters=1.0).attach(torch.optim.SGD(small_net().parameters(), lr=0.1))


def test_state_holds_a_changed_strength():
    pull, other = GroupLasso(small_net(), filters=1.0), GroupLasso(small_net(), filters=1.0)
    pull.strength = 0.125
    other.load_state_dict(pull.state_dict())
    assert other.strength == 0.125


def test_a_parametrized_weight_is_refused_by_name_and_can_be_left_out():
    net = small_net()
    torch.nn.utils.parametrizations.weight_norm(net[2])
    with pytest.raises(UnsupportedLayer, match=r"2 \(ParametrizedConv2d\).*exclude=\('2',\)"):
        GroupLasso(net, filters=1.0)
    pull = GroupLasso(net, filters=1.0, exclude=("2",))
    pull.pull()
    assert net[0].weight.grad is not None and set(pull.statistics()) == {"0"}
    Freeze(net).attach(torch.optim.SGD(net.parameters(), lr=0.1))


@pytest.mark.parametrize("solver", Solver)
def test_frozen_weights_stay_where_they_are(solver):
    net = small_net()
    net[0].weight.requires_grad_(False)
    before = net[0].weight.clone()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    pull = GroupLasso(net, filters=0.5, solver=solver, threshold=0.1)
    pull.attach(optimizer)
    pull.pull()
    net(torch.ones(1, 2, 2, 2)).sum().backward()
    optimizer.step()
    assert torch.equal(net[0].weight, before) and net[0].weight.grad is None and net[2].weight.grad is not None
