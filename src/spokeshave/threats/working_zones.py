"""Working zones: the strengths of attack at which a network trained at one strength is as good as the best.

Song, Cheng, Yang, Li, Wu, Wu, Chen, Li: MAT: A Multi-strength Adversarial Training Method to Mitigate Adversarial
Attacks, ISVLSI 2018: networks that are trained at different strengths "have different working zones". For accuracies
a(trained, tested) and a tolerance t:    Z(trained) = { tested : a(trained, tested) >= max_j a(j, tested) - t }
Departs from the paper: its definition was not readable; this one, with t of one percentage point, is a reconstruction.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from spokeshave.errors import InvalidArgument


def working_zones(
    accuracies: Float[Tensor, "trained tested"],
    best: Float[Tensor, " tested"] | None = None,
    tolerance: float = 0.01,
) -> Bool[Tensor, "trained tested"]:
    """Which networks are within a tolerance of the best at each strength of attack.

    Args:
        accuracies: a row for each network, a column for each strength of attack, 0..1.
        best: accuracy to be close to at each strength; None for the best of the rows.
        tolerance: 0..1.

    Raises:
        InvalidArgument: for no accuracies, some outside 0..1, or a tolerance outside 0..1.

    Example:
        >>> working_zones(torch.tensor([[0.99, 0.50, 0.10], [0.985, 0.80, 0.40], [0.90, 0.795, 0.70]]))
        tensor([[ True, False, False],
                [ True,  True, False],
                [False,  True,  True]])
    """
    if not accuracies.numel() or not bool(((accuracies >= 0) & (accuracies <= 1)).all()):
        raise InvalidArgument("accuracies: expected at least one, each in 0..1, got none, NaN or values outside")
    if not 0 <= tolerance <= 1:
        raise InvalidArgument(f"tolerance: expected 0..1, got {tolerance}")
    limit = accuracies.amax(0) if best is None else best
    # In double, with room for rounding: 0.89 is within 0.01 of 0.90.
    return accuracies.double() >= limit.double() - tolerance - 1e-6


@dataclass(frozen=True)
class WorkingZones:
    """Accuracies of networks by the strength that they were trained at and the one that they are tested at.

    Attributes:
        names: of the networks, such as their strengths of training.
        strengths: of the attack, rising.
        accuracies: a row for each network, 0..1.
        tolerance: to the best, 0..1.

    Raises:
        InvalidArgument: where the sizes do not fit.
    """

    names: tuple[str, ...]
    strengths: tuple[float, ...]
    accuracies: tuple[tuple[float, ...], ...]
    tolerance: float = 0.01

    def __post_init__(self) -> None:
        fits = len(self.accuracies) == len(self.names) and all(
            len(row) == len(self.strengths) for row in self.accuracies
        )
        if not self.names or not self.strengths or not fits:
            raise InvalidArgument(
                f"accuracies: expected {len(self.names)} rows of {len(self.strengths)}, got "
                f"{[len(row) for row in self.accuracies]}"
            )
        if any(low >= high for low, high in pairwise(self.strengths)):
            raise InvalidArgument(f"strengths: expected rising ones, got {list(self.strengths)}")

    @property
    def inside(self) -> list[list[bool]]:
        """Whether each strength of attack is in the zone of each network."""
        return working_zones(torch.tensor(self.accuracies), tolerance=self.tolerance).tolist()

    @property
    def best(self) -> list[float]:
        """Accuracy of the best network at each strength: what one network for each strength would reach."""
        return [max(column) for column in zip(*self.accuracies, strict=True)]

    def zones(self, row: int) -> list[tuple[float, float]]:
        """The zone of a network, as ranges from the first to the last tested strength inside.

        Example:
            >>> table = WorkingZones(("0", "0.1"), (0.0, 0.1, 0.2), ((0.99, 0.5, 0.1), (0.90, 0.8, 0.4)))
            >>> table.zones(0), table.zones(1)
            ([(0.0, 0.0)], [(0.1, 0.2)])
        """
        ranges: list[tuple[float, float]] = []
        earlier = False
        for strength, now in zip(self.strengths, self.inside[row], strict=True):
            if now:
                ranges = [*ranges[:-1], (ranges[-1][0], strength)] if earlier else [*ranges, (strength, strength)]
            earlier = now
        return ranges

    def worst_regret(self, accuracies: Sequence[float]) -> float:
        """By how much a network falls short of the best of these at the strength where it does so most.

        Args:
            accuracies: of the network, at these strengths.

        Raises:
            InvalidArgument: for another number of them.

        Example:
            >>> table = WorkingZones(("0", "0.1"), (0.0, 0.1), ((0.75, 0.5), (0.5, 0.625)))
            >>> table.worst_regret([0.75, 0.5])
            0.125
        """
        if len(accuracies) != len(self.strengths):
            raise InvalidArgument(
                f"accuracies: expected one for each of {len(self.strengths)} strengths, got {len(accuracies)}"
            )
        return max(best - mine for best, mine in zip(self.best, accuracies, strict=True))
