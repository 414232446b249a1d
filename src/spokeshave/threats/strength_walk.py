"""Random walk over training strengths: move one of them a step, keep the move where the robust area rises.

The sequel to MAT by the same group (Adversarial Attack: A New Threat to Smart Devices and How to Defend It, IEEE
Consumer Electronics Magazine) selects strengths by a random walk: e_k <- e_k +- step, k and the sign at random.
Departs from the paper: only its abstract could be read, so the rule is ours: a move is kept where the area under the
validation accuracy over strength rises, and no set of strengths is tried twice, since each try is a training.
"""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from spokeshave.errors import InvalidArgument

Strengths = tuple[float, ...]

DIGITS = 9
"""Strengths are rounded to so many decimals: a step forth and a step back are then no step at all."""


@dataclass(frozen=True)
class Proposal:
    """A set of strengths that was tried.

    Attributes:
        strengths: ascending.
        area: that they gave.
        kept: whether the walk went there.
    """

    strengths: Strengths
    area: float
    kept: bool


@dataclass(frozen=True)
class Walked:
    """Where a walk led.

    Attributes:
        strengths: of the largest area found.
        area: of them.
        proposals: everything tried, the start first.
        ended: no move was left that had not been tried: no neighbour is better.
    """

    strengths: Strengths
    area: float
    proposals: list[Proposal]
    ended: bool

    @property
    def first_area(self) -> float:
        """Of the start."""
        return self.proposals[0].area


def random_walk(
    area: Callable[[Strengths], float],
    start: Sequence[float],
    step: float,
    low: float,
    high: float,
    proposals: int,
    seed: int = 0,
) -> Walked:
    """Walk over strengths toward a larger area.

    Args:
        area: what is to be large; called once for each set of strengths, ascending.
        start: the first strengths, at least half a step apart.
        step: by which one strength moves, above 0.
        low: least strength.
        high: largest strength.
        proposals: moves tried at most.
        seed: of the moves.

    Returns:
        The best strengths, which stay within low..high and at least half a step apart, and all that was tried.

    Raises:
        InvalidArgument: where a number is out of its range, the start is not allowed, or an area is not finite.

    Example:
        >>> walk = random_walk(lambda strengths: -abs(strengths[0] - 0.3), [0.1], 0.1, 0.0, 0.5, proposals=9)
        >>> walk.strengths, walk.ended
        ((0.3,), True)
    """
    if not 0 < step < math.inf or not low <= high or proposals < 0:
        raise InvalidArgument(
            f"expected step above 0, low at most high, proposals of at least 0, got {step}, {low}..{high}, {proposals}"
        )
    here = tuple(sorted(round(float(one), DIGITS) for one in start))
    if not here or not _allowed(here, step, low, high):
        raise InvalidArgument(
            f"start: expected strengths within {low}..{high}, at least {step / 2:g} (half a step) apart, got {here}"
        )
    generator = random.Random(seed)
    best = _finite(area(here), here)
    record = [Proposal(here, best, True)]
    seen = {here}
    while True:
        moves = [moved for moved in _moves(here, step) if _allowed(moved, step, low, high) and moved not in seen]
        if not moves or len(record) > proposals:
            return Walked(here, best, record, not moves)
        moved = generator.choice(moves)
        found = _finite(area(moved), moved)
        seen.add(moved)
        record.append(Proposal(moved, found, found > best))
        if found > best:
            here, best = moved, found


def _moves(strengths: Strengths, step: float) -> list[Strengths]:
    return [
        (*strengths[:k], round(strengths[k] + way, DIGITS), *strengths[k + 1 :])
        for k in range(len(strengths))
        for way in (-step, step)
    ]


def _allowed(strengths: Strengths, step: float, low: float, high: float) -> bool:
    slack = 10.0**-DIGITS
    apart = all(b - a >= step / 2 - slack for a, b in pairwise(strengths))
    return apart and strengths[0] >= low - slack and strengths[-1] <= high + slack


def _finite(area: float, strengths: Strengths) -> float:
    if not math.isfinite(area):
        raise InvalidArgument(f"area: expected a finite number, got {area} for strengths {strengths}")
    return area
