import pytest
import torch
from torch import nn

from spokeshave.errors import NothingChanged
from spokeshave.rewrites import shrink
from spokeshave.rewrites.liveness import Liveness, emptied_operands, find_live, reachable
from spokeshave.structures.channel_classes import Coupling
from spokeshave.structures.constant_channels import find_constants
from spokeshave.structures.coupling import couple
from spokeshave.structures.graph_tracing import trace


def live_of(network: nn.Module, example: torch.Tensor) -> tuple[torch.fx.GraphModule, Coupling, Liveness]:
    traced = trace(network, example)
    coupling = couple(traced.graph)
    states, _ = find_constants(traced.graph, coupling, traced.probe)
    return traced.graph, coupling, find_live(traced.graph.graph, coupling, states)


def test_need_travels_back_along_nonzero_weights_only():
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))
    with torch.no_grad():
        network[4].weight[:, 0] = 0  # nobody reads hidden unit 0, so what only it reads is dead too
        network[2].weight.zero_()
        network[2].weight[0, 3] = network[2].weight[1, 1] = 1.0
    _, coupling, live = live_of(network, torch.randn(2, 3))
    first, second, _ = coupling.mixing
    assert live.keep(first.outputs.ids).tolist() == [False, True, False, False]
    assert live.keep(second.outputs.ids).tolist() == [False, True, False, False], "rows 2, 3 are constant"


class OnlyItsShape(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Conv2d(1, 2, 3), nn.Conv2d(1, 2, 1), nn.Conv2d(4, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = self.a(x)
        b = nn.functional.interpolate(self.b(x), size=a.shape[2:])
        return self.out(torch.cat([a, b], 1))


def test_a_tensor_read_for_its_shape_keeps_one_channel():
    network = OnlyItsShape()
    with torch.no_grad():
        network.out.weight[:, :2] = 0
    graph, coupling, live = live_of(network, torch.randn(1, 1, 6, 6))
    assert live.keep(coupling.mixing[0].outputs.ids).tolist() == [True, False]
    cat = next(node for node in graph.graph.nodes if node.name == "cat")
    assert emptied_operands(cat, coupling, live) == [] and cat in reachable(graph.graph, coupling, live)


@pytest.mark.parametrize(("alive", "stays"), [(20, 32), (32, 32), (33, 48)])
def test_groups_of_a_grouped_convolution_stay_multiples_of_the_vector_width(alive: int, stays: int) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 96, 1), nn.ReLU(), nn.Conv2d(96, 4, 3, groups=2)).eval()
    with torch.no_grad():
        for first in (alive, 48 + alive):
            net[0].weight[first : first - alive + 48] = 0
            net[0].bias[first : first - alive + 48] = 0
    if stays == 48:
        with pytest.raises(NothingChanged):
            shrink(net, torch.zeros(1, 3, 5, 5), squeeze=False)
    else:
        small, _ = shrink(net, torch.zeros(1, 3, 5, 5), squeeze=False)
        assert small.get_submodule("0").weight.shape[0] == 2 * stays
