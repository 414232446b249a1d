"""The arms of recipe `mat`: a network without any defence, one for each strength, and the structures of MAT.

Every training of a seed has as many epochs as that of the undefended network, but for `mixed-long`, which is trained
for as long as the single-strength networks together. Members differ in first weights, batches and random starts.
"""

from dataclasses import replace
from enum import Enum
from typing import Any

import torch
from torch import nn

from spokeshave.data import Split
from spokeshave.equal_budget import Course
from spokeshave.recipes.mat_rows import RowPlan
from spokeshave.threats.ensemble import Combine, Ensemble
from spokeshave.threats.gradient_attack import pgd
from spokeshave.threats.multi_strength import Drawing, MixedMAT
from spokeshave.threats.robust_accuracy import area_under_curve, robust_accuracy
from spokeshave.threats.strength_walk import Walked, random_walk

PLAIN, PLAIN_LABEL = "plain", "trained on clean images only"
_WALK_IMAGES = 500
"""Of the validation split, by which strengths are chosen."""


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


def words(strength: float, plan: RowPlan) -> str:
    """A strength as it is written: colour images count in 255ths.

    Example:
        >>> from spokeshave.recipes.mat_rows import ROWS
        >>> words(8 / 255, ROWS["cifar10"]()), words(0.1, ROWS["mnist"]())
        ('8/255', '0.1')
    """
    of_255 = all(abs(255 * one - round(255 * one)) < 1e-6 for one in plan.tested)
    return f"{round(255 * strength)}/255" if of_255 else f"{strength:g}"


def single_names(plan: RowPlan) -> list[str]:
    """Names of the arms that see one strength, weakest first."""
    return [f"single-{words(one, plan)}" for one in plan.strengths]


def stages_of(plan: RowPlan, arm: str) -> list[str]:
    """Names of the trainings that an arm is made of.

    Example:
        >>> from spokeshave.recipes.mat_rows import ROWS
        >>> stages_of(ROWS["demo"](), "mixed-ensemble")
        ['mixed-0', 'mixed-1', 'mixed-2']
    """
    if arm == ArmName.PARALLEL.value:
        return single_names(plan)
    if arm == ArmName.MIXED_ENSEMBLE.value:
        return [f"mixed-{member}" for member in range(len(plan.strengths))]
    return ["mixed-0" if arm == ArmName.MIXED.value else arm]


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
        self._networks: dict[str, nn.Module] = {}

    def network(self, arm: str) -> nn.Module:
        """The network of an arm, trained or loaded; an ensemble where it has members."""
        members = [self.trained(stage) for stage in stages_of(self.plan, arm)]
        return members[0] if len(members) == 1 else Ensemble(members, self.combine)

    def trained(self, stage: str) -> nn.Module:
        """The network of a training, and its history in `histories`."""
        if stage in self._networks:
            return self._networks[stage]
        plan = self.plan
        if stage == PLAIN:
            network, self.histories[stage] = self.course.exact(self.seed)
        elif stage in single_names(plan):
            member = single_names(plan).index(stage)
            network = self._train(stage, member, (plan.strengths[member],))
        elif stage == ArmName.MIXED_LONG.value:
            network = self._train(stage, 0, plan.strengths, len(plan.strengths))
        else:
            network = self._train(stage, int(stage.removeprefix("mixed-")), plan.strengths)
        self._networks[stage] = network.eval()
        return network

    def choose_strengths(self, proposals: int) -> Walked:
        """Walk at random over strengths; each proposal is mixed MAT trained for an epoch, seen by PGD-10.

        Args:
            proposals: trainings beside the first, at least 1.
        """
        held_out = self.course.validation
        seen: Split = held_out.subset(torch.arange(min(_WALK_IMAGES, len(held_out))))
        tested = [0.0, *self.plan.tested]

        def area(strengths: tuple[float, ...]) -> float:
            name = "walk-" + "-".join(f"{one:.4f}" for one in strengths)
            network = self._train(name, 0, strengths, epochs=1)
            return area_under_curve(tested, robust_accuracy(network.eval(), seen, pgd(10), tested, self.seed))

        low, high = self.plan.tested[0] / 2, self.plan.tested[-1]
        return random_walk(area, self.plan.strengths, high / 8, low, high, proposals, self.seed)

    def _train(
        self, stage: str, member: int, strengths: tuple[float, ...], times: int = 1, epochs: int = 0
    ) -> nn.Module:
        seed = 1000 * (1 + self.seed) + member
        torch.manual_seed(seed)
        network, settings = self.plan.network(), self.course.budget.settings
        settings = replace(settings, epochs=epochs or settings.epochs * times, steps=settings.steps * times)
        if epochs:  # as short as a proposal of the walk: not all of it warm-up
            settings = replace(settings, warmup_epochs=min(settings.warmup_epochs, epochs / 4))
        an_epoch = len(self.course.training.labels) // self.course.budget.batch_size
        fits = len(strengths) == len(self.plan.weights) and self.drawing is Drawing.ONE
        weights = self.plan.weights if fits else None
        mat = MixedMAT(
            network, strengths, self.plan.inner.attack(), self.drawing,
            guard=self.plan.guard_every(an_epoch), seed=seed, weights=weights,
        )  # fmt: skip
        folder = stage.replace("/", "of")
        self.histories[stage] = self.course.stage(self.seed, folder, network, settings, transform=mat)
        return network
