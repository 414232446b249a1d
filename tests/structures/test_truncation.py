"""Truncation keeps the groups that a sort by hand keeps."""

import pytest
import torch
from torch import nn

from spokeshave.errors import InvalidArgument
from spokeshave.structures.groups import GroupKind
from spokeshave.structures.truncation import Keep, KeepBlocks, truncate


def two_layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 5, 3))


def test_largest_filters_survive_untouched():
    model = two_layers()
    before = model[0].weight.detach().clone()
    norms = before.flatten(1).norm(dim=1)
    zeroed = truncate(model, [Keep("0", GroupKind.FILTER, 2)])
    kept = sorted(range(6), key=lambda i: -norms[i])[:2]
    assert zeroed == {"0": 4}
    for index in range(6):
        expected = before[index] if index in kept else torch.zeros_like(before[index])
        assert torch.equal(model[0].weight[index], expected)


def test_a_follower_is_ranked_and_zeroed_together():
    model = two_layers()
    scores = model[0].weight.flatten(1).norm(dim=1) * model[2].weight.transpose(0, 1).flatten(1).norm(dim=1)
    kept = set(scores.argsort(descending=True)[:3].tolist())
    truncate(model, [Keep("0", GroupKind.FILTER, 3, "2")])
    assert {i for i in range(6) if model[0].weight[i].any()} == kept
    assert {i for i in range(6) if model[2].weight[:, i].any()} == kept


def test_zero_groups_do_not_count_and_do_not_revive():
    model = two_layers()
    with torch.no_grad():
        model[0].weight[:5] = 0
    assert truncate(model, [Keep("0", GroupKind.FILTER, 3)]) == {"0": 0}
    assert [bool(model[0].weight[i].any()) for i in range(6)] == [False] * 5 + [True]


def test_a_layer_is_zeroed_whole():
    model = two_layers()
    truncate(model, [Keep("2", GroupKind.LAYER, 0)])
    assert not model[2].weight.any()


def test_the_weakest_branches_are_zeroed_whole_whatever_their_width():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(64, 64, 1), nn.Conv2d(64, 64, 1))
    with torch.no_grad():
        for layer, size in zip(net, (2.0, 3.0, 1.0, 4.0), strict=True):  # products 6 and 4
            layer.weight.fill_(size)
    assert truncate(net, [KeepBlocks((("0", "1"), ("2", "3")), 1)]) == {"2": 1, "3": 1}
    assert [bool(layer.weight.any()) for layer in net] == [True, True, False, False]


@pytest.mark.parametrize(
    ("keep", "says"),
    [
        (Keep("9", GroupKind.FILTER, 1), "no layer '9'"),
        (Keep("0", GroupKind.FILTER, 0), "at least 1"),
        (KeepBlocks((("0", "2"),), 2), "0..1 branches"),
        (KeepBlocks((("0", "7"),), 1), "no layer '7'"),
        (Keep("2", GroupKind.FILTER, 1, "0"), "1 input channels"),
    ],
)
def test_bad_plans_are_refused(keep, says):
    with pytest.raises(InvalidArgument, match=says):
        truncate(two_layers(), [keep])
