"""Choice of ranks against spectra and times worked out by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from spokeshave.errors import InvalidArgument
from spokeshave.rewrites.rank_choice import Payoff, Plan, plan_of, ranks_as_given, ranks_by_error, ranks_within_budget
from spokeshave.rewrites.splittable_layers import splittable_layers
from spokeshave.structures.layer_spectrum import Split
from spokeshave.structures.roofline_model import MachineRates

ARITHMETIC_ONLY = MachineRates(1.0, 1.0, bytes_per_s=1e12)
MEMORY_ONLY = MachineRates(1e12, 1.0, bytes_per_s=1.0)


def plans(batch: int = 64) -> list[Plan]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(20, 12), nn.Linear(12, 30), nn.Linear(30, 1)).double()
    return [plan_of(layer, Split.FILTERS) for layer in splittable_layers(net, (torch.zeros(batch, 20).double(),), {})]


def test_smallest_rank_of_an_error_and_reasons_to_stay_whole():
    found = plans()
    ranks_by_error(found, 0.1, Payoff(ARITHMETIC_ONLY, required=False))
    for plan in found[:2]:
        energies = np.linalg.svd(plan.layer.module.weight.detach().numpy(), compute_uv=False) ** 2
        assert plan.rank == int(np.argmax(1 - energies.cumsum() / energies.sum() <= 0.1)) + 1
    assert found[2].rank is None and found[2].why_whole == "its full rank is 1"
    with pytest.raises(InvalidArgument):
        ranks_by_error(plans(), 1.5, Payoff(ARITHMETIC_ONLY, required=False))


def test_a_layer_is_split_just_where_its_halves_are_predicted_to_take_less():
    # 20 -> 12: 240 multiply-adds an image, rank K costs 32 K: less up to K = 7.
    for rank, splits in ((7, True), (8, False)):
        found = plans()
        ranks_as_given(found, {"0": rank}, Payoff(ARITHMETIC_ONLY, required=True))
        assert (found[0].rank == rank) is splits
        assert found[0].predicted_speedup == pytest.approx(240 / (32 * rank))
        assert splits or found[0].why_whole == "at rank 8 its halves are predicted to take 1.07x its time"
        assert found[1].why_whole == "no rank was given for it"
    # 64 images: 64 x 32 + 240 numbers whole; 64 x (32 + 2 K) + 32 K in two: more at every rank.
    found = plans()
    ranks_as_given(found, {"0": 2}, Payoff(MEMORY_ONLY, required=True))
    assert found[0].predicted_speedup == pytest.approx((64 * 32 + 240) / (64 * 36 + 64)) and found[0].rank is None
    forced = plans()
    ranks_as_given(forced, {"0": 2}, Payoff(MEMORY_ONLY, required=False))
    assert forced[0].rank == 2


def test_ranks_out_of_range():
    found = plans()
    ranks_as_given(found, {"0": 13}, Payoff(ARITHMETIC_ONLY, required=False))
    assert found[0].rank is None and found[0].why_whole == "rank 13 is above its full rank of 12"
    for wrong in (0, -1, True):
        with pytest.raises(InvalidArgument, match="ranks: 0"):
            ranks_as_given(plans(), {"0": wrong}, Payoff(ARITHMETIC_ONLY, required=False))


@pytest.mark.parametrize("required", [True, False])
def test_a_budget_is_spent_where_it_saves_most(required):
    """Against every pair of ranks; the third layer, 30 multiply-adds an image, stays whole."""
    payoff = Payoff(ARITHMETIC_ONLY, required)
    whole = {0: 240, 1: 360}
    spectra = [np.linalg.svd(p.layer.module.weight.detach().numpy(), compute_uv=False) ** 2 for p in plans()[:2]]
    tails = [1 - s.cumsum() / s.sum() for s in spectra]
    for share in (0.2, 0.5, 0.8):
        budget = share * 630 - 30
        found = plans()
        ranks_within_budget(found, share, 2 * 64 * 630.0, payoff)

        def cost(layer: int, rank: int | None) -> float:
            return whole[layer] if rank is None else (32 if layer == 0 else 42) * rank

        def error(layer: int, rank: int | None) -> float:
            return 0.0 if rank is None else tails[layer][rank - 1]

        options = [None, *range(1, 13)] if required else list(range(1, 13))
        allowed = [(a, b) for a in options for b in options if cost(0, a) + cost(1, b) <= budget]
        mine = found[0].rank, found[1].rank
        assert mine in allowed
        best = min(error(0, a) + error(1, b) for a, b in allowed)
        step = max(-np.diff(tails[0]).min(), -np.diff(tails[1]).min(), 0.1)
        assert error(0, mine[0]) + error(1, mine[1]) <= best + step
    with pytest.raises(InvalidArgument, match=r"cannot be met.*0\.165"):
        ranks_within_budget(plans(), 0.1, 2 * 64 * 630.0, payoff)  # (32 + 42 + 30) / 630
    with pytest.raises(InvalidArgument, match="above 0"):
        ranks_within_budget(plans(), 0.0, 1.0, payoff)
