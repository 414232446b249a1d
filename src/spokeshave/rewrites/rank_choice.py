"""Rank choice: the rank of each layer that a criterion asks for, and whether splitting at that rank pays.

Wen et al., ICCV 2017, section 3.1: the smallest rank whose error, a share of the squared norm, stays below a limit; or
ranks that are given. For a budget of FLOPs, those of the least summed error: `structures/rank_allocation.py`.
Departs from the paper: a layer whose two halves are predicted to take no less time than the whole is left whole.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

from spokeshave.errors import InvalidArgument
from spokeshave.rewrites.splittable_layers import SplittableLayer
from spokeshave.structures.layer_spectrum import Split, full_rank, layer_energies
from spokeshave.structures.rank_allocation import Choices, allocate
from spokeshave.structures.roofline_model import MachineRates
from spokeshave.structures.spectrum import rank_for_error
from spokeshave.structures.split_work import flops_of, seconds_of, split_launches, whole_launches


@dataclass
class Plan:
    """What becomes of one layer.

    Attributes:
        layer: as it is in the model.
        split: what into.
        full_rank: of a group; 0 where the layer cannot be split.
        rank: of a group; None for a layer that is left whole.
        predicted_speedup: at the rank that was looked at; None where none was.
        why_whole: '' where it is split.
    """

    layer: SplittableLayer
    split: Split
    full_rank: int = 0
    rank: int | None = None
    predicted_speedup: float | None = None
    why_whole: str = ""


@dataclass(frozen=True)
class Payoff:
    """When splitting pays.

    Attributes:
        rates: of the machine.
        required: leave a layer whole where it does not.
    """

    rates: MachineRates
    required: bool

    def speedup(self, plan: Plan, rank: int) -> float:
        """Predicted time of the whole layer over that of its two halves."""
        module, calls = plan.layer.module, plan.layer.seen.calls
        whole = seconds_of(whole_launches(module, calls), self.rates)
        return whole / seconds_of(split_launches(module, calls, rank, plan.split), self.rates)


def plan_of(layer: SplittableLayer, split: Split) -> Plan:
    """A layer before its rank is chosen.

    Args:
        layer: of the model.
        split: what into, if it is split.
    """
    if layer.why_whole:
        return Plan(layer, split, why_whole=layer.why_whole)
    most = full_rank(layer.module, split)
    return Plan(layer, split, most, why_whole="its full rank is 1" if most == 1 else "")


def ranks_by_error(plans: list[Plan], max_error: float, payoff: Payoff) -> None:
    """Give every layer the smallest rank of an error.

    Args:
        plans: filled in; those with a reason to stay whole are left alone.
        max_error: share of the squared norm of a layer, 0..1.
        payoff: when splitting pays.

    Raises:
        InvalidArgument: for an error outside 0..1, or weights that are not finite.
    """
    for plan in plans:
        if not plan.why_whole:
            _take(plan, rank_for_error(_energies(plan), max_error), payoff)


def ranks_as_given(plans: list[Plan], ranks: Mapping[str, int], payoff: Payoff) -> None:
    """Give the named layers their ranks; the others are left whole.

    Args:
        plans: filled in; those with a reason to stay whole are left alone.
        ranks: layer -> rank of each group, at least 1.
        payoff: when splitting pays.

    Raises:
        InvalidArgument: for a rank below 1.
    """
    for name, rank in ranks.items():
        if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
            raise InvalidArgument(f"ranks: {name}: expected a whole number of at least 1, got {rank!r}")
    for plan in plans:
        if plan.why_whole:
            continue
        rank = ranks.get(plan.layer.name)
        if rank is None:
            plan.why_whole = "no rank was given for it"
        elif rank > plan.full_rank:
            plan.why_whole = f"rank {rank} is above its full rank of {plan.full_rank}"
        else:
            _take(plan, rank, payoff)


def ranks_within_budget(plans: list[Plan], share: float, network_flops: float, payoff: Payoff) -> None:
    """Give the layers the ranks of the least summed error with which the network meets a budget.

    Args:
        plans: filled in; those with a reason to stay whole are left alone.
        share: of the FLOPs of the whole network that may be left, above 0, at most 1.
        network_flops: of the whole network as it is, for the example's batch.
        payoff: when splitting pays.

    Raises:
        InvalidArgument: for a share that is out of range or cannot be met.
    """
    if not 0 < share <= 1:
        raise InvalidArgument(f"flops: expected a share of the network's FLOPs, above 0, at most 1, got {share}")
    free = [plan for plan in plans if not plan.why_whole]
    if not free:
        return
    menus = [_menu(plan, payoff) for plan in free]
    fixed = network_flops - sum(flops_of(whole_launches(p.layer.module, p.layer.seen.calls)) for p in free)
    least = fixed + sum(float(choices.costs.min()) for _, choices in menus)
    if least > share * network_flops * (1 + 1e-9):
        raise InvalidArgument(
            f"flops: {share:g} of the network's FLOPs cannot be met: with a rank of 1 wherever splitting is allowed "
            f"and pays, {least / network_flops:.3f} of them are left"
        )
    chosen = allocate([choices for _, choices in menus], share * network_flops - fixed)
    for plan, (ranks, _), at in zip(free, menus, chosen, strict=True):
        if ranks[at]:
            plan.rank, plan.predicted_speedup = ranks[at], payoff.speedup(plan, ranks[at])
        else:
            plan.why_whole = "its FLOPs fit the budget whole" if len(ranks) > 1 else "at no rank is it predicted to pay"


def _menu(plan: Plan, payoff: Payoff) -> tuple[list[int], Choices]:
    """Ranks that a layer may have, 0 for whole, with FLOPs and error of each."""
    module, calls = plan.layer.module, plan.layer.seen.calls
    energies = _energies(plan)
    total = float(energies.sum())
    ranks = [0] if payoff.required else []
    for rank in range(1, plan.full_rank + 1):
        if payoff.required and payoff.speedup(plan, rank) <= 1:
            break  # time grows with the rank
        ranks.append(rank)
    tails: Float[np.ndarray, " ranks"] = (
        1 - np.cumsum(energies.cpu().numpy()) / total if total > 0 else np.zeros(plan.full_rank)
    )
    costs = [
        flops_of(split_launches(module, calls, rank, plan.split) if rank else whole_launches(module, calls))
        for rank in ranks
    ]
    errors = [max(0.0, float(tails[rank - 1])) if rank else 0.0 for rank in ranks]
    return ranks, Choices(np.array(costs), np.array(errors))


def _energies(plan: Plan) -> Tensor:
    return layer_energies(plan.layer.name, plan.layer.module, plan.split)


def _take(plan: Plan, rank: int, payoff: Payoff) -> None:
    plan.predicted_speedup = payoff.speedup(plan, rank)
    if payoff.required and plan.predicted_speedup <= 1:
        plan.why_whole = f"at rank {rank} its halves are predicted to take {1 / plan.predicted_speedup:.2f}x its time"
    else:
        plan.rank = rank
