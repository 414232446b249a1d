"""Tables and figures of recipe `mat`: accuracy by strength of training and of attack, working zones, curves, regret."""

from collections.abc import Callable, Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from spokeshave.recipes.mat_arms import PLAIN, ArmName, single_names, words
from spokeshave.recipes.mat_judging import Verdict
from spokeshave.recipes.mat_rows import RowPlan
from spokeshave.report.arms_record import Chart, Curve
from spokeshave.threats.working_zones import WorkingZones

Seeds = Sequence[Mapping[str, Verdict]]
"""What every seed found: name of an arm -> its verdict."""
_Scores = Callable[[Verdict], list[float]]


def tables(plan: RowPlan, seeds: Seeds) -> dict[str, list[dict[str, Any]]]:
    """Title -> rows: accuracies by strength of training, with working zones; how far structures are from the best.

    Args:
        plan: of the row.
        seeds: what each found.
    """
    found = {}
    for title, scores, strengths in _kinds(plan, seeds):
        names = ["0" if not one else words(one, plan) for one in strengths]
        zones = WorkingZones(
            tuple(single_names(plan)), tuple(strengths), tuple(_mean(seeds, arm, scores) for arm in single_names(plan))
        )
        found[f"{title} of single-strength networks, by strength of attack; * in the working zone"] = [
            {
                "arm": arm,
                **{n: f"{100 * a:.1f} %{' *' if i else ''}" for n, a, i in zip(names, row, inside, strict=True)},
            }
            for arm, row, inside in zip(zones.names, zones.accuracies, zones.inside, strict=True)
        ]
        structures = [arm.value for arm in ArmName if arm.value in seeds[0]]
        found[f"{title}: points above the best single-strength network at each strength of attack"] = [
            {"arm": arm, **dict(zip(names, _above(plan, seeds, arm, scores), strict=True))} for arm in structures
        ]
    return found


def charts(plan: RowPlan, seeds: Seeds) -> list[Chart]:
    """Accuracy against strength under each attack, and as the smallest perturbations of the first seed tell it."""
    made = []
    for title, scores, strengths in _kinds(plan, seeds):
        curves = [_curve(arm, strengths, _mean(seeds, arm, scores)) for arm in seeds[0]]
        made.append(Chart(title, _axis(plan), "accuracy", curves, percent=True))
    smallest = {arm: one for arm, one in seeds[0].items() if one.minimum}
    if smallest:
        curves = [_curve(arm, one.minimum_strengths, one.minimum) for arm, one in smallest.items()]
        made.append(Chart("Images that only a larger perturbation fools", _axis(plan), "share", curves, percent=True))
    return made


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
    return tuple(mean(column) for column in zip(*(scores(one[arm]) for one in seeds), strict=True))


def _above(plan: RowPlan, seeds: Seeds, arm: str, scores: _Scores) -> list[str]:
    """At each strength, over the seeds: the best is the one whose mean is the best."""
    cells = []
    singles = {one: _mean(seeds, one, scores) for one in single_names(plan)}
    for column in range(len(scores(seeds[0][arm]))):
        best = max(singles, key=lambda one, column=column: singles[one][column])
        gaps = [100 * (scores(one[arm])[column] - scores(one[best])[column]) for one in seeds]
        spread = f" ± {stdev(gaps):.1f}" if len(gaps) > 1 else ""
        cells.append(f"{mean(gaps):+.1f}{spread}".replace("-", "−"))
    return cells


def _curve(arm: str, xs: Sequence[float], ys: Sequence[float]) -> Curve:
    structure = any(arm == one.value for one in ArmName)
    return Curve(arm, list(xs), list(ys), dashed=not structure)


def _axis(plan: RowPlan) -> str:
    return "strength of attack, L-inf, 1 is the range of a pixel"
