"""Probability-biased learning: connection probabilities are pulled to the poles, where nothing is left to chance.

Wen et al., A New Learning Method for Inference Accuracy, Core Occupation, and Performance Co-optimization on TrueNorth
Chip, DAC 2016:

    E(w) = E_D(w) + lambda * sum_k | |p_k - a| - b |,        a = b = 0.5

A copy of a network draws each connection with its probability p; copies differ by c^2 p (1 - p), 0 at both poles.
Departs from the paper: the strength may begin late and rise, since a constant one decides for the nearer pole before
the data has spoken; two other penalties; probabilities that a step took beyond 0..1 are put back after it.
"""

import math
from collections.abc import Mapping, Sequence
from enum import Enum
from fnmatch import fnmatch
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from spokeshave.errors import InvalidArgument
from spokeshave.regularizers.optimizer_hooks import Attachment, Rounds, add_to_gradient

_RISE = 5.0
"""The strength grows by e to this power over the ramp."""


class Penalty(Enum):
    """What the probabilities pay."""

    BIAS = "bias"
    """| |p - a| - b |: the paper's; as strong everywhere between the poles."""
    VARIANCE = "variance"
    """p (1 - p): what copies vary by; strongest near the poles, so that what is undecided stays free for longer."""
    L1 = "l1"
    """|p|: the nearest of the usual penalties, which the paper compares with; one pole only."""


def bias_energy(p: Float[Tensor, "*crosspoints"], centroid: float = 0.5, distance: float = 0.5) -> Float[Tensor, ""]:
    """sum | |p - a| - b |, the paper's penalty.

    Args:
        p: probabilities.
        centroid: a, between the poles.
        distance: b, of each pole from it.

    Example:
        >>> bias_energy(torch.tensor([0.0, 0.25, 0.5, 1.0])).item()
        0.75
    """
    return ((p - centroid).abs() - distance).abs().sum()


def bias_gradient(
    p: Float[Tensor, "*crosspoints"], centroid: float = 0.5, distance: float = 0.5
) -> Float[Tensor, "*crosspoints"]:
    """Its gradient, sgn(|p - a| - b) sgn(p - a); 0 at the poles and at the centroid.

    Example:
        >>> bias_gradient(torch.tensor([0.25, 0.75, 1.5])).tolist()
        [1.0, -1.0, 1.0]
    """
    return ((p - centroid).abs() - distance).sign() * (p - centroid).sign()


class ProbabilityBias:
    """Pulls probabilities of a model to the poles while it is trained, in any training loop.

    Args:
        model: any module with parameters that are probabilities; it is watched, not changed by making this object.
        strength: lambda, at least 0; may be changed at any time.
        names: patterns on full names of those parameters.
        penalty: what they pay.
        centroid: a of the paper's penalty.
        distance: b of the paper's penalty.
        start: steps without a pull at first.
        ramp: further steps over which the strength rises from 0, slowly at first: by (e^5r - 1) / (e^5 - 1), r the part
            of them that is done.

    Raises:
        InvalidArgument: for a number out of its range, a pattern that no parameter matches, or a value that is no
            probability.

    Example:
        >>> layer = nn.Module()
        >>> layer.probability = nn.Parameter(torch.tensor([0.25, 0.5, 1.0]))
        >>> ProbabilityBias(layer, strength=2.0).energy().item()  # 2 (0.25 + 0.5 + 0)
        1.5
    """

    def __init__(
        self,
        model: nn.Module,
        strength: float = 1e-5,
        *,
        names: Sequence[str] = ("*probability",),
        penalty: Penalty = Penalty.BIAS,
        centroid: float = 0.5,
        distance: float = 0.5,
        start: int = 0,
        ramp: int = 0,
    ) -> None:
        if not 0 <= strength < float("inf") or min(start, ramp) < 0 or not 0 < centroid < 1 or not 0 < distance <= 1:
            raise InvalidArgument(
                "strength must be finite and at least 0, start and ramp at least 0, centroid and distance in 0..1, got "
                f"{strength}, {start}, {ramp}, {centroid} and {distance}"
            )
        self._watched: list[nn.Parameter] = []
        for pattern in names:
            found = [parameter for name, parameter in model.named_parameters() if fnmatch(name, pattern)]
            if not found:
                raise InvalidArgument(
                    f"names: no parameter matches {pattern!r}; the model has "
                    f"{', '.join(name for name, _ in model.named_parameters()) or 'none'}"
                )
            self._watched += [parameter for parameter in found if not any(parameter is one for one in self._watched)]
        for parameter in self._watched:
            low, high = float(parameter.detach().min()), float(parameter.detach().max())
            if not 0 <= low <= high <= 1:
                raise InvalidArgument(f"names: expected probabilities of 0..1, got values of {low:g}..{high:g}")
        self.strength, self.penalty, self.centroid, self.distance = float(strength), penalty, centroid, distance
        self.start, self.ramp, self.step, self.names = start, ramp, 0, tuple(names)
        self._rounds = Rounds()

    @property
    def strength_now(self) -> float:
        """What the penalty is multiplied by in the step that comes."""
        done = min(1.0, (self.step - self.start + 1) / (self.ramp + 1))
        return self.strength * math.expm1(_RISE * done) / math.expm1(_RISE) if self.step >= self.start else 0.0

    def energy(self) -> Float[Tensor, ""]:
        """The penalty as strong as it is now; differentiable."""
        first = self._watched[0]
        total = torch.stack([self._energy(parameter).to(first.device, first.dtype) for parameter in self._watched])
        return self.strength_now * total.sum()

    @torch.no_grad()
    def pull(self) -> None:
        """Add the gradient of `energy` to `.grad` of every watched parameter (made where it is None)."""
        self._pull(self._watched)

    def attach(self, optimizer: Optimizer) -> Attachment:
        """Let the penalty act at every step of an optimizer, and keep the probabilities in 0..1.

        Args:
            optimizer: must hold at least one watched parameter.

        Returns:
            A handle; `handle.remove()` undoes the attachment.

        Raises:
            InvalidArgument: where it holds none of them.
        """
        held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        mine = [parameter for parameter in self._watched if id(parameter) in held]
        if not mine:
            raise InvalidArgument("the optimizer holds none of the probabilities; was it made from the same model?")
        self._rounds.restart()
        return Attachment(
            optimizer, before=lambda _: self._pull(mine), after=lambda stepped: self._after(stepped, mine)
        )

    @torch.no_grad()
    def variance(self) -> float:
        """Mean p (1 - p) of all watched probabilities: 0 where copies are alike, 0.25 at most."""
        values = torch.cat([parameter.detach().flatten().clamp(0, 1).cpu() for parameter in self._watched])
        return float((values * (1 - values)).mean())

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold: strength and step."""
        return {"strength": torch.tensor(self.strength, dtype=torch.float64), "step": torch.tensor(self.step)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.strength, self.step = float(state["strength"]), int(state["step"])

    def _energy(self, p: Tensor) -> Tensor:
        if self.penalty is Penalty.BIAS:
            return bias_energy(p, self.centroid, self.distance)
        return p.abs().sum() if self.penalty is Penalty.L1 else (p * (1 - p)).sum()

    def _gradient(self, p: Tensor) -> Tensor:
        if self.penalty is Penalty.BIAS:
            return bias_gradient(p, self.centroid, self.distance)
        return p.sign() if self.penalty is Penalty.L1 else 1 - 2 * p

    @torch.no_grad()
    def _pull(self, parameters: Sequence[nn.Parameter]) -> None:
        strength = self.strength_now
        for parameter in parameters if strength else ():
            add_to_gradient(parameter, strength * self._gradient(parameter.detach()))

    @torch.no_grad()
    def _after(self, optimizer: Optimizer, parameters: Sequence[nn.Parameter]) -> None:
        for parameter in parameters:
            parameter.clamp_(0, 1)
        self.step += self._rounds.begin_with(optimizer)
