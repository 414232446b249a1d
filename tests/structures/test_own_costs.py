"""Generated code is charged for its nonzeros, alone and inside other networks."""

import torch
from torch import nn

from spokeshave.measure import measure
from spokeshave.rewrites import prune, to_sparse
from spokeshave.structures.own_costs import HasOwnCosts
from spokeshave.targets.cpu_sparse.dense_layer import DenseLayer

IMAGE = torch.rand(1, 3, 12, 12)


def pruned() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 8, 3, stride=2, groups=2), nn.ReLU(), nn.Flatten(),
        nn.Linear(8 * 25, 5),
    )  # fmt: skip
    made = prune(net.eval(), 0.9)[0]
    assert isinstance(made, nn.Sequential)
    return made


def test_generated_code_is_charged_for_nonzeros() -> None:
    net = pruned()
    network = to_sparse(net, IMAGE)[0].direct()
    assert isinstance(network, HasOwnCosts) and not isinstance(net, HasOwnCosts)
    cost = measure(network, IMAGE, latency=False)
    nonzeros = sum(int(one.count_nonzero()) for one in net.parameters())
    assert (
        cost.parameters == cost.nonzero_parameters == nonzeros == measure(net, IMAGE, latency=False).nonzero_parameters
    )
    weights = {name: int(net.get_parameter(f"{name}.weight").count_nonzero()) for name in ("0", "2", "5")}
    positions = {"0": 144, "2": 25, "5": 1}
    assert cost.bytes == sum(8 * count for count in weights.values()) + 4 * (16 + 8 + 5)
    if network.vectors is None:  # torch runs everything, zeros included
        assert cost.flops == measure(net, IMAGE, latency=False).flops
        return
    by_name = {layer.name: layer for layer in cost.layers}
    assert {name: by_name[name].flops for name in weights} == {
        name: 2 * weights[name] * positions[name] for name in weights
    }
    assert cost.flops == sum(layer.flops for layer in cost.layers)


def test_what_torch_runs_of_it_is_counted_once() -> None:
    net = pruned()
    dense = measure(net, IMAGE, latency=False).flops
    network = to_sparse(net, IMAGE)[0].direct()
    assert measure(network.definition(), IMAGE, latency=False).flops == dense
    network.plain = True
    assert measure(network, IMAGE, latency=False).flops == dense


def test_it_is_found_inside_another_network() -> None:
    network = to_sparse(pruned(), IMAGE)[0]
    alone, inside = (measure(one, IMAGE, latency=False) for one in (network, nn.Sequential(network, nn.Linear(5, 2))))
    assert inside.parameters == alone.parameters + 12 and inside.flops == alone.flops + 20
    names = {layer.name for layer in inside.layers}
    assert {"0.0", "0.2", "0.5", "1"} <= names


def test_layers_that_the_planner_leaves_dense() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(32, 64, 3), nn.ReLU()).eval()  # no zeros at all
    images = torch.rand(1, 32, 16, 16)
    network = to_sparse(net, images)[0]
    cost = measure(network, images, latency=False)
    if network.plain or any(isinstance(piece, DenseLayer) for piece in network.pieces):
        assert cost.layers[-1].flops == 0  # the counter has seen it
    assert cost.flops == measure(net, images, latency=False).flops
    assert cost.parameters == sum(one.numel() for one in net.parameters())
