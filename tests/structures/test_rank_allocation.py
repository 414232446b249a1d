"""Allocation against every combination of choices of small problems."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spokeshave.errors import InvalidArgument
from spokeshave.structures.rank_allocation import Choices, allocate


def layer(cost: int, energies: list[int]) -> Choices:
    """Ranks 1.. of a spectrum, and the whole layer."""
    share = np.sort(np.array(energies, float))[::-1] / sum(energies)
    ranks = np.arange(1, len(energies))
    return Choices(np.array([*(cost * ranks), cost * len(energies) * 0.9]), np.array([*(1 - share.cumsum()[:-1]), 0.0]))


PROBLEMS = st.lists(
    st.tuples(st.integers(1, 9), st.lists(st.integers(1, 50), min_size=2, max_size=5)), min_size=1, max_size=4
)


@settings(max_examples=60, deadline=None)
@given(problem=PROBLEMS, share=st.floats(0, 1))
def test_the_budget_is_met_and_what_it_costs_could_not_be_spent_better_by_more_than_one_step(problem, share):
    layers = [layer(*one) for one in problem]
    least = sum(one.costs.min() for one in layers)
    most = sum(one.costs.max() for one in layers)
    budget = least + share * (most - least)
    chosen = allocate(layers, budget)

    def total(choice, what):
        return sum(getattr(one, what)[at] for one, at in zip(layers, choice, strict=True))

    assert total(chosen, "costs") <= budget * (1 + 1e-6)
    best = min(
        total(choice, "errors")
        for choice in itertools.product(*(range(len(one.costs)) for one in layers))
        if total(choice, "costs") <= budget * (1 + 1e-9)
    )
    largest_step = max(one.errors.max() for one in layers)
    assert best - 1e-12 <= total(chosen, "errors") <= best + largest_step


def test_with_convex_spectra_of_equal_cost_it_is_the_best_there_is():
    """Steps all cost the same then, so that none leaves anything behind."""
    layers = [Choices(np.arange(1.0, 6.0), np.array(errors)) for errors in ([0.9, 0.4, 0.2, 0.1, 0.0],
              [0.5, 0.3, 0.15, 0.05, 0.0], [0.8, 0.7, 0.6, 0.5, 0.4])]  # fmt: skip
    for budget in range(3, 16):
        chosen = allocate(layers, float(budget))
        every = [c for c in itertools.product(range(5), repeat=3) if sum(c) + 3 <= budget]
        best = min(sum(one.errors[at] for one, at in zip(layers, c, strict=True)) for c in every)
        assert sum(one.errors[at] for one, at in zip(layers, chosen, strict=True)) == pytest.approx(best)


def test_a_budget_that_cannot_be_met_is_refused():
    with pytest.raises(InvalidArgument, match="at least 6"):
        allocate([layer(2, [3, 2]), layer(4, [3, 2])], 5.0)


def test_a_small_step_does_not_hide_a_good_one_behind_it():
    late = Choices(np.array([1.0, 2.0, 3.0]), np.array([1.0, 0.95, 0.0]))  # nothing is gained until the whole is paid
    early = Choices(np.array([1.0, 2.0]), np.array([1.0, 0.8]))
    assert allocate([late, early], 4.0) == [2, 0]
    assert allocate([late, early], 3.0) == [0, 1]
