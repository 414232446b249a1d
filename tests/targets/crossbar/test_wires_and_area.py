"""Wires and area: the numbers that Group Scissor publishes, and loops over random matrices."""

import io
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from torch import nn

from spokeshave.errors import InvalidArgument, UnsupportedLayer
from spokeshave.models import ConvNet, LeNet
from spokeshave.structures.factorized_layer import FactorizedLayer
from spokeshave.structures.tiles import Tiling
from spokeshave.targets.crossbar.wires_and_area import CrossbarCost, area_share, price

PUBLISHED = {
    LeNet: {
        "ranks": {"conv1": 5, "conv2": 12, "ip1": 36},
        "area": (58_625, 430_500, 0.1362),
        "routed": {
            "conv2.basis": (50, 12, 620),
            "ip1.basis": (50, 36, 1376),
            "ip1.combination": (36, 50, 860),
            "ip2": (50, 10, 600),
        },
    },
    ConvNet: {
        "ranks": {"conv1": 12, "conv2": 19, "conv3": 22},
        "area": (46_340, 89_440, 0.5181),
        "routed": {
            "conv1.basis": (25, 12, 111),
            "conv2.basis": (50, 19, 1104),
            "conv3.basis": (50, 22, 1152),
            "ip1": (64, 10, 1184),
        },
    },
}


def factorized(network: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    net = network()
    for name, rank in PUBLISHED[network]["ranks"].items():
        setattr(net, name, FactorizedLayer.of(name, getattr(net, name), rank))
    return net


@pytest.mark.parametrize("network", [LeNet, ConvNet])
def test_area_of_the_published_ranks_is_the_published_area(network):
    cells, dense, share = PUBLISHED[network]["area"]
    clipped = factorized(network)
    assert (price(clipped).area_cells, price(network()).area_cells) == (cells, dense)
    assert round(area_share(clipped, network()), 4) == share


@pytest.mark.parametrize("network", [LeNet, ConvNet])
def test_tiles_and_wires_are_those_of_the_paper(network):
    cost = price(factorized(network), tiling=Tiling.DIVISOR)
    found = {layer.name: (layer.tile_inputs, layer.tile_outputs, layer.wires) for layer in cost.routed}
    assert found == PUBLISHED[network]["routed"]
    assert {layer.name for layer in cost.layers if layer.single} == {
        f"{name}.{part}" for name in PUBLISHED[network]["ranks"] for part in ("basis", "combination")
    } - set(found)
    assert cost.wires == cost.wires_full == sum(wires for _, _, wires in found.values())
    assert cost.wires_share == cost.mean_routing_share == cost.total_routing_share == 1.0


def test_shares_by_hand():
    net = nn.Sequential(nn.Linear(4, 2, bias=False), nn.Linear(2, 8, bias=False), nn.Linear(2, 2))
    with torch.no_grad():  # 0: tiles of 2 x 2 with wires 2 (one weight) and 0 of 8; 1: all 16
        net[0].weight.zero_()
        net[0].weight[1, 0] = 3.0
        net[1].weight.fill_(1.0)
    cost = price(net, (2, 2))
    first, second, third = cost.layers
    assert (first.wires, first.wires_full, first.crossbars, first.crossbars_full, first.crossbar_cells) == (
        2,
        8,
        1,
        2,
        4,
    )
    assert (second.wires, second.wires_full, second.routing_area) == (16, 16, 256)
    assert third.single and not first.single and (third.wires, third.crossbars) == (4, 1)
    assert (cost.wires, cost.wires_full, cost.routing_area) == (18, 24, 260)
    assert cost.area_cells == 8 + 16 + 4 and cost.crossbar_cells == 4 + 16 + 4 and cost.crossbars == 6
    assert cost.mean_routing_share == pytest.approx((1 / 16 + 1) / 2)
    assert cost.total_routing_share == pytest.approx(260 / (64 + 256))


@settings(max_examples=40, deadline=None)
@given(
    channels=st.tuples(st.integers(1, 4), st.integers(1, 6)),
    groups=st.integers(1, 3),
    size=st.tuples(st.integers(1, 7), st.integers(1, 4)),
    tiling=st.sampled_from(list(Tiling)),
    seed=st.integers(0, 99),
)
def test_a_convolution_is_priced_as_loops_over_its_taps_price_it(channels, groups, size, tiling, seed):
    generator = torch.Generator().manual_seed(seed)
    net = nn.Conv2d(channels[0] * groups, channels[1] * groups, (2, 1), groups=groups)
    with torch.no_grad():
        net.weight.mul_(torch.rand(net.weight.shape, generator=generator) < 0.25)
    layer = price(net, size, tiling).layers[0]
    wires: set[tuple] = set()
    for output in range(net.out_channels):
        group, column = divmod(output, channels[1])
        for channel in range(channels[0]):
            for position in range(2):
                row = channel * 2 + position
                if net.weight[output, channel, position, 0] != 0:
                    tile = group, row // layer.tile_inputs, column // layer.tile_outputs
                    wires |= {(*tile, "in", row), (*tile, "out", column)}
    assert (layer.wires, layer.crossbars) == (len(wires), len({wire[:3] for wire in wires}))
    assert layer.area_cells == net.weight.numel() and layer.matrices == groups
    assert layer.tile_inputs <= size[0] and layer.tile_outputs <= size[1]


def test_physical_area_takes_its_numbers_from_the_caller():
    cost = price(nn.Linear(10, 10))
    assert cost.area_um2(100) == pytest.approx(100 * 4 * 0.1**2)
    assert cost.area_um2(100, cell_area_f2=12, devices_per_weight=2) == pytest.approx(100 * 24 * 0.1**2)
    for bad in (
        {"feature_size_nm": 0},
        {"feature_size_nm": 1, "devices_per_weight": 0},
        {"feature_size_nm": float("nan")},
    ):
        with pytest.raises(InvalidArgument, match="expected sizes above 0"):
            cost.area_um2(**bad)


def test_what_is_not_priced_is_named_or_refused():
    net = nn.Sequential(nn.Linear(2, 2), nn.Embedding(3, 2), nn.LSTM(2, 2), nn.BatchNorm1d(2))
    assert price(net).not_counted == ("1", "2")
    with pytest.raises(UnsupportedLayer, match="ConvTranspose2d"):
        price(nn.ConvTranspose2d(1, 1, 1))
    with pytest.raises(InvalidArgument, match="at least 1"):
        price(net, (0, 64))
    assert [layer.name for layer in price(factorized(LeNet), exclude=("ip*",)).layers] == [
        "conv1.basis", "conv1.combination", "conv2.basis", "conv2.combination",
    ]  # fmt: skip


def test_table_and_dict_hold_the_numbers():
    cost = price(factorized(LeNet), tiling=Tiling.DIVISOR)
    assert isinstance(cost, CrossbarCost)
    plain = json.loads(json.dumps(cost.to_dict()))
    assert plain["area_cells"] == 58_625 and plain["layers"][2]["wires"] == 620
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(cost.table())
    text = console.export_text()
    assert all(word in text for word in ("58,625", "1,376", "16 of 50x36", "(30)", "wires in brackets"))
