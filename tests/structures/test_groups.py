"""Groups against loops over indices, which share nothing with the view arithmetic under test."""

import itertools
import math

import pytest
import torch
from torch import nn

from spokeshave.errors import InvalidArgument
from spokeshave.structures.groups import TILED, Grouping, GroupKind


def brute_force_groups(shape, kind, conv_groups, transposed):
    """Sets of index tuples, by the definition: outputs and inputs are counted inside each convolution group."""
    groups: dict[tuple, list[tuple[int, ...]]] = {}
    for index in itertools.product(*map(range, shape)):
        first, second, position = index[0], index[1], index[2:]
        per_group = shape[0] // conv_groups
        group, inner = divmod(first, per_group)
        output, inputs = (second, inner) if transposed else (inner, second)
        key = {
            GroupKind.FILTER: (group, output),
            GroupKind.CHANNEL: (group, inputs),
            GroupKind.SHAPE: (group, inputs, position),
            GroupKind.KERNEL: (group, output, inputs),
            GroupKind.LAYER: (),
        }[kind]
        groups.setdefault(key, []).append(index)
    return [groups[key] for key in sorted(groups)]


SHAPES = [
    ((6, 4, 3, 2), 1, False),
    ((6, 4, 3, 2), 3, False),
    ((6, 1, 3, 3), 6, False),
    ((6, 2, 3, 2), 2, True),
    ((5, 7), 1, False),
]


@pytest.mark.parametrize("kind", [k for k in GroupKind if k not in TILED])
@pytest.mark.parametrize(("shape", "conv_groups", "transposed"), SHAPES)
def test_sums_norms_zero_and_spread_match_brute_force(kind, shape, conv_groups, transposed):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = brute_force_groups(shape, kind, conv_groups, transposed)
    for index in expected[0]:
        weight[index] = 0
    grouping = Grouping(shape, kind, conv_groups, transposed)
    assert grouping.sizes().tolist() == [len(g) for g in expected]
    assert grouping.sums(weight).tolist() == pytest.approx([sum(weight[i].item() for i in g) for g in expected])
    norms = [math.sqrt(sum(weight[i].item() ** 2 for i in g)) for g in expected]
    assert grouping.norms(weight).tolist() == pytest.approx(norms)
    assert grouping.zero(weight).tolist() == [n == 0 for n in norms]
    spread = grouping.spread(torch.arange(len(expected)))
    assert all(spread[index] == number for number, group in enumerate(expected) for index in group)


@pytest.mark.parametrize("tile", [(2, 3), (4, 5), (1, 12), (100, 100)])
def test_tiles_match_slices_of_the_lowered_matrix(tile):
    weight = torch.randn(5, 4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    matrix = weight.flatten(1)
    grouping = Grouping((5, 4, 3), GroupKind.TILE, tile=tile)
    rows, columns = tile
    blocks = [matrix[r : r + rows, c : c + columns] for r in range(0, 5, rows) for c in range(0, 12, columns)]
    assert grouping.norms(weight).tolist() == pytest.approx([block.norm().item() for block in blocks])
    assert grouping.sizes().tolist() == [block.numel() for block in blocks]
    restored = grouping.spread(torch.arange(len(blocks))).flatten(1)
    assert all((restored[r, c] == (r // rows) * -(-12 // columns) + c // columns) for r in range(5) for c in range(12))


@pytest.mark.parametrize(("shape", "conv_groups", "transposed"), SHAPES)
@pytest.mark.parametrize("tile", [(2, 3), (5, 1), (1, 4), (100, 100)])
@pytest.mark.parametrize("kind", [GroupKind.TILE_ROW, GroupKind.TILE_COLUMN])
def test_wires_of_tiles_match_loops_over_indices(kind, tile, shape, conv_groups, transposed):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    positions = list(itertools.product(*map(range, shape[2:])))
    wires: dict[tuple, list[tuple[int, ...]]] = {}
    for index in itertools.product(*map(range, shape)):
        group, inner = divmod(index[0], shape[0] // conv_groups)
        output, channel = (index[1], inner) if transposed else (inner, index[1])
        tap = channel * len(positions) + positions.index(index[2:])  # row of the crossbar matrix
        key = (group, output // tile[1], tap) if kind is GroupKind.TILE_ROW else (group, output, tap // tile[0])
        wires.setdefault(key, []).append(index)
    expected = [wires[key] for key in sorted(wires)]
    grouping = Grouping(shape, kind, conv_groups, transposed, tile)
    assert grouping.sizes().tolist() == [len(wire) for wire in expected]
    norms = [math.sqrt(sum(weight[index].item() ** 2 for index in wire)) for wire in expected]
    assert grouping.norms(weight).tolist() == pytest.approx(norms)
    spread = grouping.spread(torch.arange(len(expected)))
    assert all(spread[index] == number for number, wire in enumerate(expected) for index in wire)


def test_norm_has_zero_gradient_on_a_zero_group():
    weight = torch.zeros(2, 3, requires_grad=True)
    Grouping((2, 3), GroupKind.FILTER).norms(weight).sum().backward()
    assert torch.equal(weight.grad, torch.zeros(2, 3))


def test_of_reads_groups_and_transposition_from_the_module():
    depthwise = Grouping.of(nn.Conv2d(6, 6, 3, groups=6), GroupKind.FILTER)
    upward = Grouping.of(nn.ConvTranspose2d(4, 6, 2, groups=2), GroupKind.FILTER)
    assert (depthwise.conv_groups, depthwise.transposed, len(depthwise.sizes())) == (6, False, 6)
    assert (upward.conv_groups, upward.transposed, upward.sizes().tolist()) == (2, True, [8] * 6)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Grouping((5,), GroupKind.FILTER),
        lambda: Grouping((5, 2), GroupKind.FILTER, conv_groups=2),
        lambda: Grouping((4, 2), GroupKind.TILE),
        lambda: Grouping((4, 2), GroupKind.FILTER, tile=(1, 1)),
        lambda: Grouping((4, 2), GroupKind.TILE, tile=(0, 1)),
        lambda: Grouping((4, 2), GroupKind.TILE_ROW),
        lambda: Grouping((4, 2), GroupKind.FILTER).sums(torch.zeros(2, 4)),
        lambda: Grouping.of(nn.BatchNorm2d(4), GroupKind.FILTER),
    ],
)
def test_bad_arguments_are_refused_with_what_came(make):
    with pytest.raises(InvalidArgument, match=r"expected|goes with|at least"):
        make()
