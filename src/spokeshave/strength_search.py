"""Strength search: the strongest pull that keeps a drop of accuracy, and the cheapest network among all that do.

Strengths grow or fall by a constant factor until one keeps the drop and another does not, then the gap between the two
is halved on a log scale. Accuracy is not monotonic in the strength, so the choice is made among all tries, by FLOPs.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from spokeshave.errors import NothingChanged
from spokeshave.rewrites.shrink_report import ShrinkReport

STEP = 4.0
"""Factor between strengths until one keeps the drop and another does not; between those, halved on a log scale."""


@dataclass(frozen=True)
class Try:
    """One strength: what it left, and what that scores on the validation split.

    Attributes:
        strength: of the pull.
        accuracy: on the validation split, 0..1.
        flops: of the small network, for one image.
        sparse: the network with its zero groups in place.
        small: the same function without them.
        report: what shrinking changed; None where there was nothing to shrink.
        history: stage -> rows.
    """

    strength: float
    accuracy: float
    flops: int
    sparse: nn.Module
    small: nn.Module
    report: ShrinkReport | None
    history: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def point(self, test_accuracy: float) -> dict[str, Any]:
        """The try as a point of the page's figure.

        Args:
            test_accuracy: of the small network on the test split, measured after the choice was made, 0..1.
        """
        return {
            "label": f"strength {self.strength:.3g}",
            "strength": self.strength,
            "error": 1 - test_accuracy,
            "flops": self.flops,
            "parameters": sum(parameter.numel() for parameter in self.small.parameters()),
            "stage": "shrunk",
        }


def search(keeps_the_drop: Callable[[float], bool], start: float, tries: int) -> None:
    """Try strengths until the strongest that keeps the drop is known well enough.

    Args:
        keeps_the_drop: tries a strength.
        start: first strength, positive.
        tries: how many are tried at most; fewer where two that differ by a fifth bracket the limit.

    Example:
        >>> tried = []
        >>> search(lambda strength: tried.append(strength) or strength <= 10, 1.0, 5)
        >>> [round(strength, 1) for strength in tried]
        [1.0, 4.0, 16.0, 8.0, 11.3]
    """
    weakest_bad, strongest_good, strength = math.inf, 0.0, start
    for _ in range(tries):
        if keeps_the_drop(strength):
            strongest_good = max(strongest_good, strength)
        else:
            weakest_bad = min(weakest_bad, strength)
        if weakest_bad == math.inf:
            strength = strongest_good * STEP
        elif strongest_good == 0.0:
            strength = weakest_bad / STEP
        elif weakest_bad < 1.2 * strongest_good:
            return
        else:
            strength = math.sqrt(strongest_good * weakest_bad)


def choose(tries: Sequence[Try], least: float, baseline_flops: int, max_drop: float) -> Try:
    """Take the try with the fewest FLOPs among those that keep the drop.

    Args:
        tries: all of them.
        least: validation accuracy that must be kept, 0..1.
        baseline_flops: of the model as it was.
        max_drop: as the user gave it, in percentage points, for the message.

    Raises:
        NothingChanged: where none is smaller and keeps it.
    """
    good = [attempt for attempt in tries if attempt.accuracy >= least]
    smaller = [attempt for attempt in good if attempt.flops < baseline_flops]
    if smaller:
        return min(smaller, key=lambda attempt: (attempt.flops, -attempt.accuracy))
    if good:
        raise NothingChanged(
            f"strengths up to {max(attempt.strength for attempt in good):.3g} made nothing smaller: raise --tries, "
            "--strength or --ssl-epochs, so that groups have the time to reach zero"
        )
    best = max(tries, key=lambda attempt: attempt.accuracy, default=None)
    nearest = (
        "no try could be evaluated" if best is None else f"the nearest lost {100 * (least - best.accuracy):.2f} more"
    )
    raise NothingChanged(
        f"no strength lost at most {max_drop:g} percentage points of validation accuracy ({nearest}): raise "
        "--max-drop, --tries or --finetune-epochs, or lower --strength"
    )
