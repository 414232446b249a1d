import torch
from torch import Tensor, nn

from network_zoo import build
from spokeshave.rewrites.constant_branches import replace_constant_branches
from spokeshave.structures.constant_channels import find_constants
from spokeshave.structures.coupling import couple
from spokeshave.structures.graph_tracing import trace


def test_a_dead_branch_becomes_a_number_a_channel_and_its_layers_go():
    network, example = build("resnet", 0)
    with torch.no_grad():
        network.get_submodule("layers.0.conv2").weight.zero_()  # type: ignore[union-attr, operator]
    traced = trace(network, example)
    coupling = couple(traced.graph)
    states, _ = find_constants(traced.graph, coupling, traced.probe)
    assert replace_constant_branches(traced.graph, coupling, states) == ["layers_0_bn2"]
    bn = network.get_submodule("layers.0.bn2")
    expected = bn(torch.zeros(1, 4, 1, 1))
    torch.testing.assert_close(traced.graph.constant_layers_0_bn2, expected)
    assert not any("layers_0_conv" in node.name for node in traced.graph.graph.nodes)
    torch.testing.assert_close(traced.graph(example), network(example))


class Doubled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        branch = self.b(x)
        return torch.sub(self.a(x), branch, alpha=2) * branch


def test_scaled_subtractions_and_products_keep_their_constant():
    network = Doubled()
    with torch.no_grad():
        network.b.weight.zero_()
    traced = trace(network, torch.randn(2, 3))
    coupling = couple(traced.graph)
    states, _ = find_constants(traced.graph, coupling, traced.probe)
    assert len(replace_constant_branches(traced.graph, coupling, states)) == 2
    x = torch.randn(4, 3)
    torch.testing.assert_close(traced.graph(x), network(x))


class NameTaken(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.branch = nn.Linear(3, 4), nn.Linear(4, 4)
        self.register_buffer("constant_branch", torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x) * self.constant_branch
        constant = self.branch(x)
        return (x + constant) * constant


def test_a_buffer_of_the_model_is_not_mistaken_for_the_constant():
    network = NameTaken()
    with torch.no_grad():
        network.branch.weight.zero_()
    traced = trace(network, torch.randn(2, 3))
    coupling = couple(traced.graph)
    states, _ = find_constants(traced.graph, coupling, traced.probe)
    replace_constant_branches(traced.graph, coupling, states)
    x = torch.randn(5, 3)
    torch.testing.assert_close(traced.graph(x), network(x))
    assert sum(name.startswith("constant_branch") for name, _ in traced.graph.named_buffers()) == 2
