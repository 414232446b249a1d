"""The arms of recipe `mat`: a network without any defence, one for each strength, and the structures of MAT.

Every network of a seed sees as many epochs as the undefended one, but for `mixed-long`, which is trained for as long as
the single-strength networks together. Members of one kind differ in their first weights, batches and random starts.
"""

from collections.abc import Sequence
from dataclasses import replace
from enum import Enum
from functools import cached_property
from typing import Any

import torch
from torch import nn

from spokeshave.equal_budget import Course
from spokeshave.recipes.mat_rows import RowPlan
from spokeshave.threats.ensemble import Combine, Ensemble
from spokeshave.threats.multi_strength import Drawing, MixedMAT

PLAIN, PLAIN_LABEL = "plain", "trained on clean images only"


class ArmName(Enum):
    """Structures that are compared; single-strength networks are always among them."""

    MIXED = "mixed"
    MIXED_LONG = "mixed-long"
    PARALLEL = "parallel"
    MIXED_ENSEMBLE = "mixed-ensemble"


LABELS = {
    ArmName.MIXED: "mixed MAT: one network, all strengths",
    ArmName.MIXED_LONG: "mixed MAT, trained for as long as all single-strength networks together",
    ArmName.PARALLEL: "parallel MAT: the single-strength networks together",
    ArmName.MIXED_ENSEMBLE: "as many networks as parallel MAT, each trained on all strengths",
}


class Walk:
    """One seed of a row.

    Args:
        plan: of the row.
        course: data and budget.
        seed: of first weights, batches and what attacks draw.
        drawing: how many strengths an image sees in a step of mixed MAT.
        combine: how members answer together.
    """

    def __init__(self, plan: RowPlan, course: Course, seed: int, drawing: Drawing, combine: Combine) -> None:
        self.plan, self.course, self.seed = plan, course, seed
        self.drawing, self.combine = drawing, combine
        self.histories: dict[str, list[dict[str, Any]]] = {}

    @cached_property
    def plain(self) -> nn.Module:
        """The network that has seen clean images only."""
        network, self.histories[PLAIN] = self.course.exact(self.seed)
        return network

    @cached_property
    def singles(self) -> dict[str, nn.Module]:
        """Name of the arm -> the network trained on one strength."""
        return {
            (name := f"single-{words(strength, self.plan)}"): self._trained(name, member, (strength,))
            for member, strength in enumerate(self.plan.strengths)
        }

    @cached_property
    def mixed(self) -> list[nn.Module]:
        """Networks trained on all strengths, as many as there are strengths; the first is the arm `mixed`."""
        count = len(self.plan.strengths)
        return [self._trained(f"mixed-{member}", member, self.plan.strengths) for member in range(count)]

    @cached_property
    def mixed_long(self) -> nn.Module:
        """One network trained on all strengths, at the cost of all singles."""
        return self._trained("mixed-long", 0, self.plan.strengths, len(self.plan.strengths))

    def network(self, name: ArmName) -> nn.Module:
        """The network of an arm, trained or loaded; an ensemble where it has members."""
        if name is ArmName.MIXED:
            return self.mixed[0] if "mixed" in vars(self) else self._trained("mixed-0", 0, self.plan.strengths)
        if name is ArmName.MIXED_LONG:
            return self.mixed_long
        members = list(self.singles.values()) if name is ArmName.PARALLEL else self.mixed
        return Ensemble(members, self.combine)

    def stages(self, name: ArmName | str) -> list[str]:
        """Names of the trainings that an arm needs."""
        if name is ArmName.PARALLEL:
            return list(self.singles)
        if name is ArmName.MIXED_ENSEMBLE:
            return [f"mixed-{member}" for member in range(len(self.plan.strengths))]
        return ["mixed-0" if name is ArmName.MIXED else name.value if isinstance(name, ArmName) else name]

    def _trained(self, stage: str, member: int, strengths: Sequence[float], times: int = 1) -> nn.Module:
        torch.manual_seed(1000 * (1 + self.seed) + member)
        network, settings = self.plan.network(), self.course.budget.settings
        if times > 1:
            settings = replace(settings, epochs=settings.epochs * times, steps=settings.steps * times)
        an_epoch = len(self.course.training.labels) // self.course.budget.batch_size
        mat = MixedMAT(
            network, strengths, self.plan.inner.attack(), self.drawing,
            guard=self.plan.guard_every(an_epoch), seed=1000 * (1 + self.seed) + member,
        )  # fmt: skip
        folder = stage.replace("/", "of")
        self.histories[stage] = self.course.stage(self.seed, folder, network, settings, transform=mat)
        return network.eval()


def words(strength: float, plan: RowPlan) -> str:
    """A strength as it is written: colour images count in 255ths.

    Example:
        >>> from spokeshave.recipes.mat_rows import ROWS
        >>> words(8 / 255, ROWS["cifar10"]()), words(0.1, ROWS["mnist"]())
        ('8/255', '0.1')
    """
    of_255 = all(abs(255 * one - round(255 * one)) < 1e-6 for one in plan.tested)
    return f"{round(255 * strength)}/255" if of_255 else f"{strength:g}"
