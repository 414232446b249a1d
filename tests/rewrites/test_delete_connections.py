"""Deleting connections: against loops over tiles, the price of what is left, and a fine-tune under a freeze."""

import json
import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from spokeshave.errors import InvalidArgument, NothingChanged, UnsupportedLayer
from spokeshave.models import LeNet
from spokeshave.regularizers import Freeze, Frozen
from spokeshave.rewrites.delete_connections import cut_for_share, delete_connections, without_weak_wires
from spokeshave.structures.tiles import TileGrid, Tiling
from spokeshave.targets.crossbar.wires_and_area import price


def wires_by_loops(matrix: list[list[float]], grid: TileGrid) -> dict[tuple[str, int, int], list[tuple[int, int]]]:
    """(kind, index along the wire's own axis, tile across it) -> the cells of the wire."""
    wires: dict[tuple[str, int, int], list[tuple[int, int]]] = {}
    for i in range(grid.inputs):
        for j in range(grid.outputs):
            wires.setdefault(("in", i, j // grid.tile_outputs), []).append((i, j))
            wires.setdefault(("out", j, i // grid.tile_inputs), []).append((i, j))
    return wires


def deleted_by_loops(matrix: list[list[float]], grid: TileGrid, cut: float) -> list[list[float]]:
    new = [list(row) for row in matrix]
    for cells in wires_by_loops(matrix, grid).values():
        if math.sqrt(sum(matrix[i][j] ** 2 for i, j in cells)) <= cut:
            for i, j in cells:
                new[i][j] = 0.0
    return new


def count_by_loops(matrix: list[list[float]], grid: TileGrid) -> int:
    return sum(any(matrix[i][j] != 0 for i, j in cells) for cells in wires_by_loops(matrix, grid).values())


CASES = {
    "shape": st.tuples(st.integers(1, 12), st.integers(1, 12)),
    "size": st.tuples(st.integers(1, 5), st.integers(1, 5)),
    "tiling": st.sampled_from(list(Tiling)),
    "seed": st.integers(0, 999),
}


def random_matrix(shape: tuple[int, int], seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator) * (torch.rand(shape, generator=generator) < 0.7)


@settings(max_examples=60, deadline=None)
@given(**CASES, cut=st.floats(0, 3))
def test_weak_wires_are_zeroed_as_by_loops(shape, size, tiling, seed, cut):
    matrix, grid = random_matrix(shape, seed), TileGrid.of(*shape, size, tiling)
    wanted = torch.tensor(deleted_by_loops(matrix.tolist(), grid, cut))
    assert torch.equal(without_weak_wires(matrix[None], grid, cut)[0], wanted)


@settings(max_examples=60, deadline=None)
@given(**CASES, keep=st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.8, 1.0]))
def test_the_cut_is_the_smallest_that_leaves_no_more_than_the_share(shape, size, tiling, seed, keep):
    matrix, grid = random_matrix(shape, seed), TileGrid.of(*shape, size, tiling)
    norms = {0.0}
    for cells in wires_by_loops(matrix.tolist(), grid).values():
        norms.add(math.sqrt(sum(float(matrix[i, j]) ** 2 for i, j in cells)))
    # A breath above each norm, since sums in another order may differ in the last bit.
    left = {norm: count_by_loops(deleted_by_loops(matrix.tolist(), grid, norm + 1e-9), grid) for norm in norms}
    wanted = min(norm for norm, wires in left.items() if wires <= keep * grid.wires + 1e-9)
    assert cut_for_share(matrix[None], grid, keep) == pytest.approx(wanted, abs=1e-8)


@settings(max_examples=25, deadline=None)
@given(
    channels=st.tuples(st.integers(1, 4), st.integers(1, 6)),
    groups=st.integers(1, 2),
    size=st.tuples(st.integers(1, 5), st.integers(1, 3)),
    keep=st.floats(0.05, 0.95),
)
@example(channels=(1, 5), groups=1, size=(1, 1), keep=0.9499999999999998)  # 38 of 40 wires, but for rounding
def test_the_report_prices_what_is_left_and_the_share_is_kept(channels, groups, size, keep):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(channels[0] * groups, channels[1] * groups, 2, groups=groups))
    example = torch.randn(2, channels[0] * groups, 4, 4)
    try:
        new, report = delete_connections(net, example, keep=keep, size=size, single_crossbars=True)
    except NothingChanged:
        assert int(keep * price(net, size).layers[0].wires_full + 1e-9) >= price(net, size).layers[0].wires
        return
    assert report.after == price(new, size) and report.before == price(net, size)
    before, after = report.layers[0]
    assert after.wires <= keep * before.wires_full + 1e-9 and after.wires < before.wires == before.wires_full
    with torch.no_grad():
        error = (new(example) - net(example)).abs().max() / net(example).abs().max()
    assert report.max_relative_error >= error.item() - 1e-6
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["layers"][0]["wires_after"] == after.wires


def test_threshold_is_relative_to_the_mean_norm_of_the_wires_that_are_not_zero():
    net = nn.Sequential(nn.Linear(4, 2, bias=False))
    with torch.no_grad():  # two tiles of 2 x 2: [[4, 0], [0, 1]] and zeros: norms of wires 4, 1, 4, 1, mean 2.5
        net[0].weight.copy_(torch.tensor([[4.0, 0.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0]]).T)
    with pytest.raises(NothingChanged, match="takes none of the 4 wires"):
        delete_connections(net, torch.ones(1, 4), threshold=0.39, size=(2, 2))
    new, report = delete_connections(net, torch.ones(1, 4), threshold=0.4, size=(2, 2))
    assert new[0].weight.T.tolist() == [[4.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]
    assert (report.after.wires, report.after.wires_full, report.after.crossbars) == (2, 8, 1)
    assert net[0].weight[1, 1] == 1


def test_layers_by_pattern_and_single_crossbars():
    torch.manual_seed(0)
    net, example = LeNet(), torch.randn(2, 1, 28, 28)
    new, report = delete_connections(net, example, keep={"conv*": 0.5, "ip2": 0.9}, tiling=Tiling.DIVISOR)
    shares = {after.name: after.wires_share for _, after in report.layers}
    assert set(shares) == {"conv2", "ip1", "ip2"}  # conv1 fits one crossbar
    assert shares["ip1"] == 1.0 and 0.45 < shares["conv2"] <= 0.5 and 0.85 < shares["ip2"] <= 0.9
    assert torch.equal(new.conv1.weight, net.conv1.weight) and torch.equal(new.ip1.weight, net.ip1.weight)
    assert report.table().row_count == 3
    with pytest.raises(InvalidArgument, match="named 'conv1'.*single_crossbars=True"):
        delete_connections(net, example, keep={"conv1": 0.5})
    new, _ = delete_connections(net, example, keep={"conv1": 0.5}, single_crossbars=True)
    assert not torch.equal(new.conv1.weight, net.conv1.weight)


def test_a_fine_tune_under_a_freeze_keeps_every_deleted_wire():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 10, 3), nn.Flatten(), nn.Linear(160, 12))
    new, report = delete_connections(net, torch.randn(2, 3, 6, 6), keep=0.4, size=(16, 8))
    optimizer = torch.optim.SGD(new.parameters(), lr=0.1, momentum=0.9)
    Freeze(new, Frozen.ELEMENTS).attach(optimizer)
    weights = [new[0].weight.detach().clone(), new[2].weight.detach().clone()]
    images, labels = torch.randn(8, 3, 6, 6), torch.arange(8)
    for _ in range(5):
        optimizer.zero_grad()
        functional.cross_entropy(new(images), labels).backward()
        optimizer.step()
    assert price(new, (16, 8)).layers == report.after.layers
    assert not torch.equal(new[0].weight, weights[0]) and not torch.equal(new[2].weight, weights[1])


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({}, InvalidArgument, "either keep or threshold"),
        ({"keep": 0.5, "threshold": 1}, InvalidArgument, "either keep"),
        ({"keep": 1.5}, InvalidArgument, r"expected a number of 0\.\.1"),
        ({"threshold": float("nan")}, InvalidArgument, "got nan"),
        ({"keep": 1.0}, NothingChanged, "takes none"),
        ({"keep": 0.5, "size": (100, 4)}, NothingChanged, "fits one crossbar"),
    ],
)
def test_bad_arguments_are_refused(arguments, error, says):
    with pytest.raises(error, match=says):
        delete_connections(nn.Sequential(nn.Linear(100, 4)), torch.zeros(1, 100), **arguments)


def test_layers_that_cannot_be_ranked_are_refused_by_name():
    net, example = nn.Sequential(nn.Linear(100, 4), nn.ReLU()), torch.zeros(1, 100)
    up = nn.Sequential(nn.ConvTranspose2d(1, 1, 1), nn.Conv2d(1, 1, 1))
    with pytest.raises(UnsupportedLayer, match=r"exclude=\('0',\)"):
        delete_connections(up, example, keep=0.5)
    net[0].weight.data[0, 0] = float("nan")
    with pytest.raises(InvalidArgument, match="0: a weight is not finite"):
        delete_connections(net, example, keep=0.5)
    torch.nn.utils.parametrizations.weight_norm(net[0])
    with pytest.raises(UnsupportedLayer, match="parametrization"):
        delete_connections(net, example, keep=0.5)
