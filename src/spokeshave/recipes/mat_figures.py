"""Tables and figures of recipe `mat`: accuracy by strength of training and of attack, working zones, curves, regret."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import mean, stdev
from typing import Any

import torch

from spokeshave.recipes.mat_arms import PLAIN, ArmName, Walk, single_names, words
from spokeshave.recipes.mat_judging import Verdict
from spokeshave.recipes.mat_rows import RowPlan
from spokeshave.report.arms_record import Chart, Curve
from spokeshave.report.heat_table import HeatTable
from spokeshave.report.image_gallery import Gallery
from spokeshave.report.robustness_figures import (
    AXIS,
    AttackedNetwork,
    adversarial_gallery,
    strength_chart,
    transfer_table,
    zones_table,
)
from spokeshave.threats.gradient_attack import pgd
from spokeshave.threats.robust_accuracy import transfer_accuracies
from spokeshave.threats.working_zones import WorkingZones

Seeds = Sequence[Mapping[str, Verdict]]
"""What every seed found: name of an arm -> its verdict; ensembles are judged by AutoAttack in the first seed only."""
_SHOWN = 8
_Scores = Callable[[Verdict], list[float]]


def comparisons(plan: RowPlan, seeds: Seeds) -> dict[str, list[dict[str, Any]]]:
    """Title -> rows: how far structures are from the best single-strength network; signs of gradient masking.

    Args:
        plan: of the row.
        seeds: what each found.
    """
    found = {}
    structures = [arm.value for arm in ArmName if arm.value in seeds[0]]
    for title, scores, strengths in _kinds(plan, seeds):
        names = ["0" if not one else words(one, plan) for one in strengths]
        found[f"{title}: points above the best single-strength network at each strength of attack"] = [
            {"arm": arm, **dict(zip(names, _above(plan, seeds, arm, scores), strict=True))} for arm in structures
        ]
    signs = [{"arm": arm, "sign": sign} for arm, one in seeds[0].items() for sign in one.signs]
    return found | ({"Signs of gradient masking, first seed": signs} if signs else {})


def zones(plan: RowPlan, seeds: Seeds) -> list[HeatTable]:
    """Accuracy by strength of training and of attack, working zones framed.

    Args:
        plan: of the row.
        seeds: what each found.
    """
    made = []
    for title, scores, strengths in _kinds(plan, seeds):
        accuracies = tuple(_mean(seeds, arm, scores) for arm in single_names(plan))
        names = tuple(words(one, plan) for one in plan.strengths)
        table = zones_table(title, WorkingZones(names, tuple(strengths), accuracies))
        made.append(replace(table, column_names=["0" if not one else words(one, plan) for one in strengths]))
    return made


def transfer(walk: Walk, stages: Sequence[str]) -> HeatTable:
    """Accuracies of single-strength networks and others on images that were made to fool each of them.

    Args:
        walk: of a seed whose networks are trained.
        stages: names of the other trainings.
    """
    plan, names = walk.plan, [*single_names(walk.plan), *stages]
    strength = plan.strengths[len(plan.strengths) // 2]
    seen = walk.course.splits.test.subset(torch.arange(min(plan.judged or plan.images, len(walk.course.splits.test))))
    found = transfer_accuracies([walk.trained(one) for one in names], seen, pgd(plan.pgd_steps), strength, walk.seed)
    return transfer_table(
        f"Accuracy on images made for another network, strength {words(strength, plan)}", names, found
    )


def attacked_images(walk: Walk, arm: str) -> Gallery:
    """Test images under PGD, a row for each strength, with what the network sees in them.

    Args:
        walk: of a seed whose networks are trained.
        arm: whose network is attacked.
    """
    plan, network = walk.plan, walk.network(arm)
    test = walk.course.splits.test
    images, labels = (
        test.images[:_SHOWN].float().to(walk.course.device) / 255,
        test.labels[:_SHOWN].to(walk.course.device),
    )
    rows = {}
    for strength in (0.0, *plan.strengths):
        drawn = torch.Generator().manual_seed(walk.seed)
        attacked = pgd(plan.pgd_steps)(network, images, labels, strength, drawn)
        with torch.no_grad():
            rows[words(strength, plan) if strength else "clean"] = attacked.cpu(), network(attacked).argmax(1).cpu()
    title = f"Test images as PGD changes them for {arm}, and what it sees"
    return adversarial_gallery(title, rows, labels.cpu(), walk.course.splits.classes)


def charts(plan: RowPlan, seeds: Seeds) -> list[Chart]:
    """Accuracy against strength under each attack, and as the smallest perturbations of the first seed tell it.

    Args:
        plan: of the row.
        seeds: what each found.
    """
    kinds = _kinds(plan, seeds)
    made = [_all_attacks(plan, seeds)]
    for title, scores, strengths in kinds:
        curves = [_curve(arm, strengths, _mean(seeds, arm, scores)) for arm in seeds[0]]
        made.append(Chart(title, AXIS, "accuracy", curves, percent=True))
    smallest = {arm: one for arm, one in seeds[0].items() if one.minimum}
    if smallest:
        curves = [_curve(arm, one.minimum_strengths, one.minimum) for arm, one in smallest.items()]
        made.append(Chart("Images that only a larger perturbation fools", AXIS, "share", curves, percent=True))
    return made


def _all_attacks(plan: RowPlan, seeds: Seeds) -> Chart:
    """The strongest single-strength network and the first structure: where attacks part, gradients are bent."""
    arms = [single_names(plan)[-1], *[arm for arm in seeds[0] if arm in {one.value for one in ArmName}][:1]]
    networks = [
        AttackedNetwork(
            arm, seeds[0][arm].strengths, _mean(seeds, arm, lambda one: one.fgsm),
            _mean(seeds, arm, lambda one: one.pgd), _mean(seeds, arm, lambda one: one.autoattack),
            seeds[0][arm].judged,
        )
        for arm in arms
    ]  # fmt: skip
    return strength_chart("Accuracy under all attacks", networks)


def _kinds(plan: RowPlan, seeds: Seeds) -> list[tuple[str, _Scores, list[float]]]:
    first = seeds[0][PLAIN]
    kinds: list[tuple[str, _Scores, list[float]]] = [
        (f"Accuracy under PGD-{plan.pgd_steps}", lambda one: one.pgd, first.strengths),
        ("Accuracy under FGSM", lambda one: one.fgsm, first.strengths),
    ]
    if first.autoattack:
        kinds.insert(1, ("Accuracy under AutoAttack", lambda one: one.autoattack, first.judged))
    return kinds


def _mean(seeds: Seeds, arm: str, scores: _Scores) -> tuple[float, ...]:
    found = [scores(one[arm]) for one in seeds]
    return tuple(mean(column) for column in zip(*filter(None, found), strict=True))


def _above(plan: RowPlan, seeds: Seeds, arm: str, scores: _Scores) -> list[str]:
    """At each strength, over the seeds that have scores: the best is the one whose mean is the best."""
    cells = []
    singles = {one: _mean(seeds, one, scores) for one in single_names(plan)}
    for column in range(len(scores(seeds[0][arm]))):
        best = max(singles, key=lambda one, column=column: singles[one][column])
        both = [(scores(one[arm]), scores(one[best])) for one in seeds]
        gaps = [100 * (own[column] - other[column]) for own, other in both if own]
        spread = f" ± {stdev(gaps):.1f}" if len(gaps) > 1 else ""
        cells.append(f"{mean(gaps):+.1f}{spread}".replace("-", "−"))
    return cells


def _curve(arm: str, xs: Sequence[float], ys: Sequence[float]) -> Curve:
    structure = any(arm == one.value for one in ArmName)
    return Curve(arm, list(xs), list(ys), dashed=not structure)
