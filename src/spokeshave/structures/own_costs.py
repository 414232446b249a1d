"""Own costs: what layers cost whose weights are no parameters of torch and whose work torch's counter does not see."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True)
class OwnCost:
    """One layer.

    Attributes:
        name: within the module that runs it.
        kind: of work.
        parameters: numbers that are kept: weights, biases, factors.
        nonzero_parameters: those of them that are not zero.
        bytes: of what is kept.
        flops: for one image, a multiply-add counts as 2; 0 where torch runs the layer, and counts it.
    """

    name: str
    kind: str
    parameters: int
    nonzero_parameters: int
    bytes: int
    flops: int


@runtime_checkable
class HasOwnCosts(Protocol):
    """A module that runs such layers."""

    def own_costs(self) -> Sequence[OwnCost]:
        """Give its layers, in order of execution."""
        ...
