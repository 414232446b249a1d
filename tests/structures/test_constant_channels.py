import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

from network_zoo import build, zero_at_random
from spokeshave.structures.constant_channels import connections, find_constants, spreads_border
from spokeshave.structures.coupling import couple
from spokeshave.structures.graph_tracing import trace


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(6, 4),
        nn.Conv2d(6, 4, 3, groups=2),
        nn.Conv2d(4, 8, 3, groups=4),
        nn.ConvTranspose2d(6, 4, 3, groups=2),
        nn.Conv1d(6, 4, 3),
    ],
)
def test_connections_are_the_nonzero_pattern_of_the_jacobian(layer):
    with torch.no_grad():
        layer.weight.mul_(torch.rand(layer.weight.shape[:2] + (1,) * (layer.weight.ndim - 2)) < 0.5)
    shape = (1, 6 if layer.weight.shape[0] != 8 else 4) + (5,) * (layer.weight.ndim - 2)
    jacobian = torch.autograd.functional.jacobian(layer, torch.rand(shape))
    axes = layer.weight.ndim - 2
    jacobian = jacobian.abs().movedim(axes + 3, 2).flatten(3).sum(3)[0]
    assert np.array_equal(connections(layer), jacobian.ne(0).numpy())


@pytest.mark.parametrize("name", ["lenet", "resnet", "unet", "mobilenet", "densenet", "squeeze-excite", "grouped"])
@pytest.mark.parametrize("seed", range(3))
def test_known_channels_hold_their_value_for_any_input_of_any_size(name, seed):
    network, example = build(name, seed)
    zero_at_random(network, seed)
    traced = trace(network.double(), example.double())
    states, _ = find_constants(traced.graph, couple(traced.graph), traced.probe)
    coupling = couple(traced.graph)
    seen: dict[fx.Node, Tensor] = {}

    class Recorder(fx.Interpreter):
        def run_node(self, n: fx.Node) -> object:
            result = super().run_node(n)
            if isinstance(result, Tensor):
                seen[n] = result.clone()
            return result

    shape = list(example.shape)
    if name not in ("lenet",):
        shape[2:] = [size + 3 for size in shape[2:]]
    with torch.no_grad():
        Recorder(traced.graph).run(5 * torch.randn(4, *shape[1:], dtype=torch.float64))
    known = 0
    for node, state in states.items():
        value = seen[node].movedim(coupling.channels[node].axis, 0).flatten(1)
        if value.shape[0] != len(state.known):
            continue
        expected = torch.from_numpy(state.values)[:, None].expand_as(value)
        mask = torch.from_numpy(state.known)
        torch.testing.assert_close(value[mask], expected[mask], rtol=1e-9, atol=1e-12)
        known += int(mask.sum())
    assert known > 0


def test_border_is_told_from_no_border():
    assert not spreads_border(nn.Conv2d(1, 1, 3)) and spreads_border(nn.Conv2d(1, 1, 3, padding=1))
    assert not spreads_border(nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"))
    assert spreads_border(nn.Conv2d(1, 1, 3, padding="same")) and spreads_border(nn.ConvTranspose2d(1, 1, 2))
    assert not spreads_border(nn.Linear(1, 1))


def test_size_dependent_sums_are_not_constants_of_the_network():
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x).sum((2, 3))

    network = Sum()
    with torch.no_grad():
        network.conv.weight[0] = 0
    traced = trace(network, torch.ones(1, 1, 3, 3))
    states, _ = find_constants(traced.graph, couple(traced.graph), traced.probe)
    last = list(states.values())[-1]
    assert last.independent.tolist() == [True, False] and not last.known.any()
