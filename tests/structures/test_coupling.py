import pytest
import torch
from torch import nn

from network_zoo import build
from spokeshave.errors import NothingChanged
from spokeshave.rewrites import shrink
from spokeshave.structures.coupling import couple
from spokeshave.structures.graph_tracing import trace

torch_pruning = pytest.importorskip("torch_pruning")


def classes_of(network: nn.Module, example: torch.Tensor) -> dict[tuple[str, int], tuple[int, bool]]:
    """(layer, filter) -> (class, pinned)."""
    coupling = couple(trace(network, example).graph)
    classes = coupling.classes()
    pinned = coupling.pinned(classes)
    found = {}
    for call in coupling.mixing:
        for place, variable in enumerate(classes[call.outputs.ids].tolist()):
            found[call.name, place] = (variable, bool(pinned[variable]))
    return found


@pytest.mark.parametrize("name", ["lenet", "resnet", "densenet", "mlp", "inception", "preactivation"])
def test_classes_agree_with_the_dependency_graph_of_torch_pruning(name):
    network, example = build(name, 0)
    mine = classes_of(network, example)
    graph = torch_pruning.DependencyGraph().build_dependency(network, example_inputs=example)
    names = {module: name for name, module in network.named_modules()}
    checked = 0
    for layer, place in mine:
        module = network.get_submodule(layer)
        linear = isinstance(module, nn.Linear)
        prune = torch_pruning.prune_linear_out_channels if linear else torch_pruning.prune_conv_out_channels
        others = {torch_pruning.prune_conv_out_channels, torch_pruning.prune_linear_out_channels}
        group = graph.get_pruning_group(module, prune, idxs=[place])
        theirs = {
            (names[step.target.module], index)
            for step, indices in group
            if step.handler in others or getattr(step.handler, "__name__", "") in ("prune_out_channels",)
            for index in indices
            if isinstance(step.target.module, nn.Conv2d | nn.Linear)
        }
        theirs = {pair for pair in theirs if pair in mine}
        number = mine[layer, place][0]
        assert theirs | {(layer, place)} == {pair for pair, (other, _) in mine.items() if other == number}
        checked += 1
    assert checked > 20


def test_residual_additions_join_and_outputs_pin():
    network, example = build("resnet", 0)
    found = classes_of(network, example)
    assert found["conv1", 2][0] == found["layers.0.conv2", 2][0] == found["layers.1.conv2", 2][0]
    assert found["layers.0.conv1", 2][0] != found["conv1", 2][0]
    assert not found["conv1", 2][1] and all(found["fc", place][1] for place in range(5))


def test_unknown_operations_pin_and_name_themselves():
    network = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 2))
    coupling = couple(trace(network, torch.zeros(2, 4)).graph)
    classes = coupling.classes()
    first = coupling.mixing[0].outputs.ids
    assert coupling.pinned(classes)[classes[first]].all()
    assert coupling.pin_reasons(classes)[int(classes[first][0])] == "1 (LayerNorm) needs all channels"


def test_layers_called_twice_and_tied_parameters_stay_whole():
    network, example = build("shared", 0)
    found = classes_of(network, example)
    for layer in ("stem", "twice", "left", "right"):
        assert all(found[layer, place][1] for place in range(6))
    assert not any(found["middle", place][1] for place in range(8))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(20, 12), nn.Linear(12, 6), nn.Linear(6, 12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.third(self.second(self.first(x).relu()).relu()).relu()
        return nn.functional.linear(x, self.first.weight.t())


class BiasRead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 3)
        self.norm, self.third = nn.BatchNorm1d(3), nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.second((self.first(x) - self.first.bias).relu()))
        return self.third(x * self.norm.running_var)


@pytest.mark.parametrize(
    ("make", "width", "stay", "go"),
    [(Tied, 20, ("first", "third"), ("second",)), (BiasRead, 6, ("first", "second"), ())],
)
def test_layers_whose_parameters_forward_reads_stay_whole(make, width, stay, go):
    torch.manual_seed(0)
    network = make().eval()
    found = classes_of(network, torch.zeros(2, width))
    assert all(pinned for (layer, _), (_, pinned) in found.items() if layer in stay)
    assert not any(pinned for (layer, _), (_, pinned) in found.items() if layer in go)
    with torch.no_grad():
        for layer in (network.first, network.second):
            layer.weight[[1, 2]] = 0
    x = torch.randn(4, width)
    try:
        smaller, _ = shrink(network, x)
    except NothingChanged:
        assert not go
    else:
        assert tuple(smaller.get_submodule("first").weight.shape) == (12, 20)  # type: ignore[union-attr, arg-type]
        assert tuple(smaller.get_submodule("second").weight.shape) == (4, 12)  # type: ignore[union-attr, arg-type]
        torch.testing.assert_close(smaller(x), network(x))


class Branching(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) if x.sum() > 0 else 2 * self.layer(x)


class Borrowed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 2)
        self.whole = Branching(self.first)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x).relu()) + self.whole(x).sum(1, keepdim=True)


def test_a_layer_that_an_untraceable_part_calls_too_stays_whole():
    found = classes_of(Borrowed(), torch.randn(2, 4))
    assert all(found["first", place][1] for place in range(6))
