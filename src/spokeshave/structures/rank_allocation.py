"""Rank allocation: which rank each layer gets so that a network meets a budget with the least summed error.

Each layer offers choices, each with a cost and an error. Greedy along the lower convex hull: from the cheapest choices
on, the step that takes away most error for its cost is taken next (Lagrange; optimal wherever a step ends); what is
left of the budget goes to the best steps that still fit.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from spokeshave.errors import InvalidArgument


@dataclass(frozen=True)
class Choices:
    """What one layer offers.

    Attributes:
        costs: of each choice, in any unit that adds up over layers.
        errors: of each choice.
    """

    costs: Float[np.ndarray, " choices"]
    errors: Float[np.ndarray, " choices"]


def allocate(layers: Sequence[Choices], budget: float) -> list[int]:
    """Choose for each layer.

    Args:
        layers: what each offers, at least one choice each.
        budget: the costs of the choices together may be this at most.

    Returns:
        The index of the choice of each layer.

    Raises:
        InvalidArgument: where the cheapest choices together cost more than the budget.

    Example:
        >>> steep, flat = Choices(np.array([1.0, 2.0]), np.array([0.9, 0.0])), Choices(np.array([1.0, 2.0]), np.ones(2))
        >>> allocate([flat, steep], 3.0)
        [0, 1]
    """
    chosen = [int(np.lexsort((layer.errors, layer.costs))[0]) for layer in layers]
    left = budget - sum(float(layer.costs[at]) for layer, at in zip(layers, chosen, strict=True))
    slack = 1e-9 * abs(budget)
    if left < -slack:
        raise InvalidArgument(f"expected a budget of at least {budget - left:g}, the cheapest there is, got {budget:g}")
    steps = [_best_step(layer, at, left + slack) for layer, at in zip(layers, chosen, strict=True)]
    queue = [(-step[0], number, step[1]) for number, step in enumerate(steps) if step is not None]
    heapq.heapify(queue)
    while queue:
        _, number, target = heapq.heappop(queue)
        layer = layers[number]
        price = float(layer.costs[target] - layer.costs[chosen[number]])
        if price <= left + slack:
            left -= price
            chosen[number] = target
        step = _best_step(layer, chosen[number], left + slack)
        if step is not None:
            heapq.heappush(queue, (-step[0], number, step[1]))
    return chosen


def _best_step(layer: Choices, at: int, left: float) -> tuple[float, int] | None:
    """Error taken away for the cost, and the choice, of the best step that what is left pays for; none if none does."""
    prices, gains = layer.costs - layer.costs[at], layer.errors[at] - layer.errors
    possible: NDArray[np.bool_] = (prices > 0) & (gains > 0) & (prices <= left)
    if not possible.any():
        return None
    worth = np.where(possible, gains / np.where(possible, prices, 1.0), -1.0)
    best = int(worth.argmax())
    return float(worth[best]), best
