"""Working zones against the definition written out, and on a published table of networks trained at four strengths."""

import pytest
import torch

from spokeshave.errors import InvalidArgument
from spokeshave.threats.working_zones import WorkingZones, working_zones

PUBLISHED = WorkingZones(
    ("0", "0.25", "0.5", "1"),
    (0.0, 0.25, 0.5, 1.0, 2.0),
    (
        (0.9525, 0.0734, 0.0014, 0.0, 0.0),
        (0.9277, 0.8119, 0.6213, 0.2066, 0.0058),
        (0.9083, 0.8231, 0.7011, 0.4022, 0.0445),
        (0.8162, 0.7553, 0.6861, 0.5261, 0.1805),
    ),
)
"""CIFAR-10, ResNet-50, Euclidean norm, PGD-100: README of MadryLab/robustness."""


def test_a_zone_is_where_a_network_is_within_the_tolerance_of_the_best():
    table = torch.rand(6, 9)
    for tolerance in (0.0, 0.01, 0.2):
        found = working_zones(table, tolerance=tolerance)
        for row in range(6):
            for column in range(9):
                best = max(float(table[other, column]) for other in range(6))
                assert bool(found[row, column]) == (float(table[row, column]) >= best - tolerance - 1e-6)
    assert bool(working_zones(table, tolerance=0.0).any(0).all()) and bool(working_zones(table, tolerance=1.0).all())


def test_a_difference_of_just_the_tolerance_is_inside():
    assert working_zones(torch.tensor([[0.9], [0.89], [0.8899]])).flatten().tolist() == [True, True, False]


def test_others_can_be_held_against_a_best_that_is_not_among_them():
    best = torch.tensor([0.9, 0.5])
    assert working_zones(torch.tensor([[0.95, 0.48]]), best).tolist() == [[True, False]]


def test_zones_of_the_published_table_move_up_with_the_strength_of_training():
    assert [PUBLISHED.zones(row) for row in range(4)] == [[(0, 0)], [], [(0.25, 0.5)], [(1, 2)]]
    wider = WorkingZones(PUBLISHED.names, PUBLISHED.strengths, PUBLISHED.accuracies, tolerance=0.025)
    assert wider.zones(1) == [(0, 0.25)] and wider.inside[1] == [True, True, False, False, False]


def test_a_zone_may_have_a_hole():
    table = WorkingZones(("a", "b"), (0.0, 0.1, 0.2), ((0.9, 0.5, 0.9), (0.8, 0.6, 0.8)))
    assert table.zones(0) == [(0, 0), (0.2, 0.2)] and table.zones(1) == [(0.1, 0.1)]


def test_regret_is_the_largest_distance_to_the_best_of_each_strength():
    assert PUBLISHED.best == [0.9525, 0.8231, 0.7011, 0.5261, 0.1805]
    assert PUBLISHED.worst_regret(PUBLISHED.accuracies[2]) == pytest.approx(0.1805 - 0.0445)
    assert PUBLISHED.worst_regret([1.0] * 5) < 0


def test_tables_that_are_none_are_refused():
    for wrong in (
        ((), (0.1,), ()),
        (("a",), (0.1, 0.2), ((0.5,),)),
        (("a", "b"), (0.1,), ((0.5,),)),
        (("a",), (0.2, 0.1), ((0.5, 0.5),)),
    ):
        with pytest.raises(InvalidArgument, match="expected"):
            WorkingZones(*wrong)
    for table in (torch.zeros(0, 2), torch.tensor([[50.0]]), torch.tensor([[torch.nan]])):
        with pytest.raises(InvalidArgument, match="each in 0..1"):
            working_zones(table)
    with pytest.raises(InvalidArgument, match="tolerance"):
        working_zones(torch.zeros(1, 1), tolerance=-0.1)
    with pytest.raises(InvalidArgument, match="one for each of 5 strengths, got 1"):
        PUBLISHED.worst_regret([0.5])
