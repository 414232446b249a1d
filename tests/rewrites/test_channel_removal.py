import torch
from torch import nn

from network_zoo import build
from spokeshave.rewrites.channel_removal import remove_channels
from spokeshave.rewrites.liveness import find_live
from spokeshave.structures.constant_channels import find_constants
from spokeshave.structures.coupling import couple
from spokeshave.structures.graph_tracing import trace


def test_parameters_are_the_rows_and_columns_that_stay():
    network, example = build("densenet", 0)
    with torch.no_grad():
        network.get_submodule("convs.0").weight[1] = 0  # type: ignore[union-attr, index]
    traced = trace(network, example)
    coupling = couple(traced.graph)
    states, _ = find_constants(traced.graph, coupling, traced.probe)
    live = find_live(traced.graph.graph, coupling, states)
    remove_channels(traced.graph, coupling, states, live)
    stay = [place for place in range(10) if place != 7]
    norm, conv = traced.graph.get_submodule("norms.1"), traced.graph.get_submodule("convs.1")
    assert torch.equal(norm.running_mean, network.get_submodule("norms.1").running_mean[stay])  # type: ignore[arg-type, index]
    inner = conv.get_submodule("layer") if not isinstance(conv, nn.Conv2d) else conv
    assert torch.equal(inner.weight, network.get_submodule("convs.1").weight[:, stay])  # type: ignore[arg-type, index]
    torch.testing.assert_close(traced.graph(example), network(example))


def test_broadcast_parameters_and_expansions_follow():
    network, example = build("squeeze-excite", 0)
    with torch.no_grad():
        network.get_submodule("conv").weight[3] = 0  # type: ignore[union-attr, index]
        network.get_submodule("conv").bias[3] = -1  # type: ignore[union-attr, index]
    traced = trace(network, example)
    coupling = couple(traced.graph)
    states, _ = find_constants(traced.graph, coupling, traced.probe)
    live = find_live(traced.graph.graph, coupling, states)
    remove_channels(traced.graph, coupling, states, live)
    assert traced.graph.scale.shape == (7, 1, 1)  # type: ignore[union-attr]
    assert traced.graph.get_submodule("expand").weight.shape == (7, 4, 1, 1)  # type: ignore[union-attr]
    torch.testing.assert_close(traced.graph(example), network(example))
