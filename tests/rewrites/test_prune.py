"""Pruning against sorting by hand; the road from prune to fine-tuning to to_sparse."""

import pytest
import torch
from torch import nn

import spokeshave as ss
from spokeshave.errors import InvalidArgument, NothingChanged


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5))


def test_global_takes_the_smallest_of_all_and_layer_of_each():
    net = network()
    weights = torch.cat([net[i].weight.detach().flatten() for i in (0, 3)])
    cut = weights.abs().sort().values[round(0.4 * len(weights))]
    everywhere, report = ss.prune(net, 0.4)
    for i in (0, 3):
        assert torch.equal(everywhere[i].weight != 0, net[i].weight.abs() >= cut)
        assert torch.equal(everywhere[i].bias, net[i].bias)
    assert report.sparsity == pytest.approx(round(0.4 * 356) / 356) and report.max_relative_error is None
    apart, report = ss.prune(net, {"0": 0.5, "3": 0.75}, scope=ss.Scope.LAYER)
    assert [layer.nonzeros_after for layer in report.layers] == [18, 80]
    assert [int((apart[i].weight == 0).sum()) for i in (0, 3)] == [18, 240]
    (only,) = ss.prune(net, {"3": 0.5})[1].layers
    assert (only.name, only.weights, only.nonzeros_before, only.nonzeros_after) == ("3", 320, 320, 160)


def test_the_report_says_how_far_the_outputs_moved():
    net = network()
    images = torch.randn(8, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    mild, strong = (ss.prune(net, share, images)[1].max_relative_error for share in (0.05, 0.9))
    assert 0 < mild < 0.2 < strong
    pruned, report = ss.prune(net, 0.9, images)
    seen = (pruned(images) - net(images)).abs().max() / net(images).abs().max()
    assert report.max_relative_error >= seen.item() * (1 - 1e-5)


def test_nothing_to_prune_is_said():
    once, _ = ss.prune(network(), 0.5)
    with pytest.raises(NothingChanged, match="zeros already"):
        ss.prune(once, 0.5)
    with pytest.raises(NothingChanged, match="no layer"):
        ss.prune(nn.ReLU(), 0.5)
    with pytest.raises(NothingChanged, match="sparsity of 0"):
        ss.prune(network(), 0.0)
    for bad in (1.5, {"0": -0.5}, {"nowhere": 0.5}):
        with pytest.raises(InvalidArgument):
            ss.prune(network(), bad)


def test_zeros_survive_fine_tuning_and_the_sparse_network_is_the_same():
    pruned, _ = ss.prune(network(), 0.8)
    zeros = [pruned[i].weight == 0 for i in (0, 3)]
    optimizer = torch.optim.SGD(pruned.parameters(), 0.05, momentum=0.9, weight_decay=1e-3)
    ss.Freeze(pruned, ss.Frozen.ELEMENTS).attach(optimizer)
    images = torch.randn(16, 1, 6, 6)
    for _ in range(5):
        optimizer.zero_grad()
        pruned(images).square().mean().backward()
        optimizer.step()
    assert all(torch.equal(pruned[i].weight == 0, zero) for i, zero in zip((0, 3), zeros, strict=True))
    fast, _ = ss.to_sparse(pruned.eval(), images)
    assert torch.allclose(fast(images), pruned(images), atol=1e-4)
