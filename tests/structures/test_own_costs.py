"""Generated code is charged for its nonzeros, as often as it runs, alone and inside other networks."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from spokeshave.measure import LayerCost, measure
from spokeshave.rewrites import prune, to_sparse
from spokeshave.rewrites.sparse_layers import sparse_layers
from spokeshave.structures.own_costs import OwnCost
from spokeshave.targets.cpu_sparse import sparse_network
from spokeshave.targets.cpu_sparse.dense_layer import DenseLayer
from spokeshave.targets.cpu_sparse.roofline import Level, Roofline
from spokeshave.targets.cpu_sparse.sparse_network import SparseNetwork

IMAGE = torch.rand(1, 3, 12, 12)
POSITIONS = {"0": 144, "2": 25, "5": 1}


def pruned(bias: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=bias), nn.ReLU(), nn.Conv2d(16, 8, 3, stride=2, groups=2, bias=bias),
        nn.ReLU(), nn.Flatten(), nn.Linear(8 * 25, 5, bias=bias),
    )  # fmt: skip
    made = prune(net.eval(), 0.9)[0]
    assert isinstance(made, nn.Sequential)
    return made


def compiled(net: nn.Module, example: Tensor = IMAGE) -> SparseNetwork:
    return to_sparse(net, example)[0].direct()


def cost_by_name(network: nn.Module, example: Tensor = IMAGE) -> dict[str, LayerCost]:
    return {layer.name: layer for layer in measure(network, example, latency=False).layers}


def flops(network: nn.Module, example: Tensor = IMAGE) -> int:
    return measure(network, example, latency=False).flops


def of_nonzeros(net: nn.Module) -> dict[str, int]:
    weights = {name: int(net.get_parameter(f"{name}.weight").count_nonzero()) for name in POSITIONS}
    return {name: 2 * weights[name] * positions for name, positions in POSITIONS.items()}


@pytest.mark.parametrize("bias", [True, False])
def test_generated_code_is_charged_for_nonzeros(bias: bool) -> None:
    net = pruned(bias)
    network = compiled(net)
    cost = measure(network, IMAGE, latency=False)
    nonzeros = sum(int(one.count_nonzero()) for one in net.parameters())
    assert cost.parameters == cost.nonzero_parameters == nonzeros
    assert measure(net, IMAGE, latency=False).nonzero_parameters == nonzeros
    count = sum(int(one.count_nonzero()) for name, one in net.named_parameters() if name.endswith("weight"))
    assert cost.bytes == 8 * count + 4 * (16 + 8 + 5)
    wanted = flops(net) if network.vectors is None else sum(of_nonzeros(net).values())
    assert cost.flops == sum(layer.flops for layer in cost.layers) == wanted
    if network.vectors is not None:
        assert {layer.name: layer.flops for layer in cost.layers} == of_nonzeros(net)


@pytest.mark.parametrize("way", ["definition", "plain", "no vectors"])
def test_what_torch_runs_of_it_is_counted_once(way: str) -> None:
    net, network = pruned(), compiled(pruned())
    if way == "plain":
        network.plain = True
    else:
        network = network.definition()
        network.plain = way == "definition"
    cost = measure(network, IMAGE, latency=False)
    assert cost.flops == flops(net)
    assert {layer.name: layer.flops for layer in cost.layers} == {
        layer.name: layer.flops for layer in measure(net, IMAGE, latency=False).layers if layer.parameters
    }


class Twice(nn.Module):
    """Calls a network with an image and with two more."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.idle = network, compiled(pruned())

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x) + self.network(torch.cat([x, x.flip(-1)])).sum(0)


def test_it_is_charged_for_every_image_of_every_call() -> None:
    network = compiled(pruned())
    alone, inside = cost_by_name(network), cost_by_name(Twice(network))
    for name in POSITIONS:
        assert inside[f"network.{name}"].flops == 3 * alone[name].flops
        assert inside[f"idle.{name}"].flops == 0 < inside[f"idle.{name}"].parameters
        assert inside[f"network.{name}"].parameters == alone[name].parameters


def test_it_is_found_inside_another_network() -> None:
    network = to_sparse(pruned(), IMAGE)[0]
    alone, inside = (measure(one, IMAGE, latency=False) for one in (network, nn.Sequential(network, nn.Linear(5, 2))))
    assert inside.parameters == alone.parameters + 12 and inside.flops == alone.flops + 20
    assert [layer.name for layer in inside.layers] == ["0.0", "0.2", "0.5", "1"]


class Again(nn.Module):
    """One layer, called twice, and a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.place = nn.Parameter(torch.rand(1, 3, 12, 12))
        self.register_buffer("shift", torch.rand(1, 3, 12, 12))

    def forward(self, x: Tensor) -> Tensor:
        return torch.atan2(self.conv(self.conv(x)), self.place) + torch.atan2(x, self.get_buffer("shift"))


def test_what_is_shared_or_read_by_torch_counts_once() -> None:
    net = prune(Again().eval(), 0.8)[0]
    network = compiled(net)
    cost, plain = measure(network, IMAGE, latency=False), measure(net, IMAGE, latency=False)
    assert cost.nonzero_parameters == plain.nonzero_parameters
    assert [layer.name for layer in cost.layers].count("conv") == 1
    weight = int(net.get_parameter("conv.weight").count_nonzero())
    assert network.vectors is None or cost_by_name(network)["conv"].flops == 2 * 2 * weight * 144
    assert cost.bytes == 8 * weight + 4 * 3 + 2 * 4 * 3 * 144


def test_layers_that_the_planner_leaves_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    # A machine that computes dense layers ten times as fast as generated code: what a real one does is measured.
    machine = Roofline(1, 1, 2e11, 1e11, {0.05: 5e10, 0.2: 5e10, 1.0: 1e10}, dict.fromkeys(Level, 1e12))
    monkeypatch.setattr(sparse_network, "measure_roofline", lambda images: machine)
    monkeypatch.setattr(sparse_network, "with_thin_layers", lambda roofline: roofline)
    monkeypatch.setattr(sparse_network, "dense_seconds", lambda *_, **__: 1e-3)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3)).eval()
    net = prune(net, {"2": 0.9})[0]
    images = torch.rand(1, 64, 56, 56)
    network = to_sparse(net, images)[0]
    found, dense = cost_by_name(network, images), cost_by_name(net, images)
    assert found["0"].flops == dense["0"].flops
    if network.vectors is None:
        assert found["2"].flops == dense["2"].flops
    else:
        assert [isinstance(piece, DenseLayer) for piece in network.pieces] == [True, False]
        assert found["2"].flops == 2 * int(net.get_parameter("2.weight").count_nonzero()) * 52 * 52
    assert flops(network, images) == found["0"].flops + found["2"].flops


def test_sparse_layers_among_those_of_torch() -> None:
    net = pruned()
    sparse, _ = sparse_layers(net, IMAGE)
    cost = measure(sparse, IMAGE, latency=False)
    assert cost.parameters == measure(net, IMAGE, latency=False).nonzero_parameters
    assert {layer.name: layer.flops for layer in cost.layers} == of_nonzeros(net)
    assert cost.flops == sum(of_nonzeros(net).values())
    assert cost.bytes == sum(one.numel() * one.element_size() for one in sparse.buffers())


class Own(nn.Module):
    """Says what it costs."""

    def forward(self, x: Tensor) -> Tensor:
        return x

    def own_costs(self) -> Sequence[OwnCost]:
        return [OwnCost("part", "Part", 7, 6, 28, 5), OwnCost("", "Whole", 3, 3, 12, 8)]


class Forwarding(nn.Module):
    """Passes on attributes that it lacks, as `torch.compile`'s modules do."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def __getattr__(self, name: str) -> object:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inner"), name)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


def test_a_module_of_your_own_behind_one_that_passes_on_attributes() -> None:
    cost = measure(Forwarding(Own()), IMAGE, latency=False)
    assert (cost.parameters, cost.nonzero_parameters, cost.bytes, cost.flops) == (10, 9, 40, 13)
    rows = [(layer.name, layer.kind, layer.parameters, layer.flops) for layer in cost.layers]
    assert rows == [("inner", "Own", 3, 8), ("inner.part", "Part", 7, 5)]
