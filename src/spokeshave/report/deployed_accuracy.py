"""Accuracy of a network on a chip, by copies and spikes per frame, as numbers and as heat maps.

Wen et al., DAC 2016: copies of a network (in space) and spikes per frame (in time) average chance away; after biasing,
fewer of either reach the same accuracy.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from spokeshave.report.figures import Figure
from spokeshave.report.heat_map import Side, difference_map, heat_map, round_steps

CLOSE = 0.001
"""Share of images below the best accuracy that counts as reaching it: 0.1 points."""
_ROUNDING = 1e-9


class Enough(NamedTuple):
    """What suffices for an accuracy; None where nothing that was measured does."""

    copies: int | None
    """With one spike per frame."""
    spikes: int | None
    """Per frame, with one copy."""


@dataclass(frozen=True)
class DeployedAccuracy:
    """Accuracy of a network in training's form and on the chip.

    Attributes:
        floating: of the network that was mapped, 0..1.
        draws: on the chip with the first 1, 2, ... copies and ticks of a frame, of each draw of all connections.
    """

    floating: float
    draws: Float[Tensor, "draws copies ticks"]

    @property
    def mean(self) -> Float[Tensor, "copies ticks"]:
        """Over the draws."""
        return self.draws.mean(0)

    @property
    def spread(self) -> Float[Tensor, "copies ticks"]:
        """Standard deviation over the draws; 0 of one."""
        return self.draws.std(0) if len(self.draws) > 1 else torch.zeros_like(self.draws[0])

    @property
    def best(self) -> float:
        """The greatest mean of any number of copies and spikes."""
        return float(self.mean.max())

    def corners(self) -> list[tuple[int, int]]:
        """Numbers of copies and spikes per frame: one and all of each."""
        _, copies, ticks = self.draws.shape
        return list(dict.fromkeys([(1, 1), (1, ticks), (copies, 1), (copies, ticks)]))

    def at(self, copies: int, spikes: int) -> tuple[float, float]:
        """Mean and spread with so many of each."""
        return float(self.mean[copies - 1, spikes - 1]), float(self.spread[copies - 1, spikes - 1])

    def enough(self, accuracy: float | None = None) -> Enough:
        """The smallest numbers of copies and of spikes per frame that reach an accuracy.

        Args:
            accuracy: 0..1; by default what is within 0.1 points of the best.
        """
        wanted = (self.best - CLOSE if accuracy is None else accuracy) - _ROUNDING
        found = [(line >= wanted).nonzero().flatten() for line in (self.mean[:, 0], self.mean[0])]
        return Enough(*(int(line[0]) + 1 if len(line) else None for line in found))

    def to_dict(self) -> dict[str, Any]:
        """As plain numbers."""
        return {
            "float": self.floating, "best": self.best, "enough": self.enough()._asdict(),
            "mean": self.mean.tolist(), "spread": self.spread.tolist(), "draws": len(self.draws),
        }  # fmt: skip


def accuracy_maps(named: Mapping[str, DeployedAccuracy]) -> list[Figure]:
    """Draw accuracy against copies and spikes per frame: of one network, or of two, and what the second gains.

    Args:
        named: by what they are called, two at most, of the same numbers of copies and spikes; none gives no figures.
    """
    if not named:
        return []
    _, copies, ticks = next(iter(named.values())).draws.shape
    rows, columns = Side("copies", round_steps(copies)), Side("spikes per frame", round_steps(ticks))
    chosen = [torch.tensor(side.numbers) - 1 for side in (rows, columns)]
    values = {label: one.mean[chosen[0]][:, chosen[1]] for label, one in named.items()}
    limits = min(float(one.min()) for one in values.values()), max(float(one.max()) for one in values.values())
    title = "Accuracy, %" if len(values) == 1 else "Accuracy {}, %"
    maps = [heat_map(title.format(label), one, rows, columns, limits) for label, one in values.items()]
    if len(values) == 2:
        before, after = values.values()
        maps.append(difference_map("Gained by biasing, points", after - before, rows, columns))
    return maps


def counted(number: int | None, what: str, none: str = "none") -> str:
    """Write a number of things.

    Example:
        >>> counted(1, "copy"), counted(12, "copy"), counted(2, "spike"), counted(None, "copy")
        ('1 copy', '12 copies', '2 spikes', 'none')
    """
    if number is None:
        return none
    many = what[:-1] + "ies" if what.endswith("y") else what + "s"
    return f"{number:,} {what if number == 1 else many}"
