"""The walk against every set of strengths on the lattice that it moves on."""

from itertools import combinations, pairwise

import pytest

from spokeshave.errors import InvalidArgument
from spokeshave.threats.strength_walk import Strengths, random_walk

LATTICE = [round(0.05 * number, 9) for number in range(1, 9)]


def coverage(strengths: Strengths) -> float:
    """Area under a curve on which each strength holds a zone of its own; one maximum for walks of single steps."""
    zones = [max(1 - abs(test - strength) / 0.1 for strength in strengths) for test in (0.12, 0.26)]
    return sum(zones) - 0.01 * strengths[-1]


@pytest.mark.parametrize("seed", range(10))
def test_the_walk_ends_at_the_best_set_that_brute_force_finds(seed: int) -> None:
    best = max(combinations(LATTICE, 2), key=coverage)
    walk = random_walk(coverage, [0.2, 0.4], 0.05, 0.05, 0.4, proposals=200, seed=seed)
    assert walk.ended
    assert walk.strengths == best
    assert walk.area == coverage(best)


def test_no_set_is_tried_twice_none_leaves_the_range_and_all_stay_apart() -> None:
    asked: list[Strengths] = []

    def area(strengths: Strengths) -> float:
        asked.append(strengths)
        return sum(strengths)

    walk = random_walk(area, [0.1, 0.05, 0.3], 0.05, 0.05, 0.3, proposals=100, seed=2)
    assert walk.strengths == (0.2, 0.25, 0.3), "as large as they can be, one step apart"
    assert len(set(asked)) == len(asked) == len(walk.proposals)
    for strengths in asked:
        assert strengths[0] >= 0.05 and strengths[-1] <= 0.3
        assert all(round(b - a, 9) >= 0.025 for a, b in pairwise(strengths))


def test_the_record_has_the_start_and_only_what_rises_is_kept() -> None:
    walk = random_walk(coverage, [0.2, 0.4], 0.05, 0.05, 0.4, proposals=5, seed=3)
    assert walk.proposals[0].strengths == (0.2, 0.4) and walk.proposals[0].kept
    assert len(walk.proposals) == 6 and not walk.ended
    best = walk.proposals[0].area
    for proposal in walk.proposals[1:]:
        assert proposal.area == coverage(proposal.strengths)
        assert proposal.kept == (proposal.area > best)
        best = max(best, proposal.area)
    assert walk.area == best and walk.first_area == coverage((0.2, 0.4))


def test_the_seed_decides_the_walk() -> None:
    walks = [random_walk(coverage, [0.2, 0.4], 0.05, 0.05, 0.4, proposals=4, seed=seed) for seed in (1, 1, 2, 3)]
    assert walks[0] == walks[1]
    assert len({tuple(walk.proposals) for walk in walks}) > 1


def test_no_proposals_leave_the_start() -> None:
    walk = random_walk(coverage, [0.2], 0.05, 0.05, 0.4, proposals=0)
    assert walk.strengths == (0.2,) and len(walk.proposals) == 1 and not walk.ended


def test_what_cannot_be_walked_is_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"within 0.05..0.4, at least 0.025 \(half a step\) apart"):
        random_walk(coverage, [0.5], 0.05, 0.05, 0.4, 1)
    with pytest.raises(InvalidArgument, match="half a step"):
        random_walk(coverage, [0.1, 0.11], 0.05, 0.05, 0.4, 1)
    with pytest.raises(InvalidArgument, match="half a step"):
        random_walk(coverage, [], 0.05, 0.05, 0.4, 1)
    with pytest.raises(InvalidArgument, match="step above 0"):
        random_walk(coverage, [0.1], 0.0, 0.05, 0.4, 1)
    with pytest.raises(InvalidArgument, match=r"got nan for strengths \(0.1,\)"):
        random_walk(lambda strengths: float("nan"), [0.1], 0.05, 0.05, 0.4, 1)
