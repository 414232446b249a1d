"""How recipe `mat` judges a network: accuracy under FGSM, PGD and AutoAttack, strength by strength, on test images.

What was found stays in the run's folder, so that a run that is resumed does not measure it again. An image that a model
has wrong as it is counts as wrong; ensembles are attacked whole, through what they answer together.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from spokeshave.data import Split
from spokeshave.equal_budget import Course
from spokeshave.kept_results import kept_or_made
from spokeshave.recipes.mat_rows import RowPlan
from spokeshave.tensor_digest import digest
from spokeshave.threats.autoattack import AutoAttack
from spokeshave.threats.gradient_attack import fgsm, pgd
from spokeshave.threats.gradient_masking import attack_curves
from spokeshave.threats.minimum_perturbation import accuracies_at, minimum_perturbations
from spokeshave.threats.robust_accuracy import area_under_curve, robust_accuracy

_CURVE_POINTS = 41
_SIGNS, _CHANCE = 500, 0.02
"""Images that signs of masking are looked for in; differences of accuracy that chance alone makes among so many."""


@dataclass(frozen=True)
class Verdict:
    """What one network scored; accuracies are 0..1, those under attack at 0 and each tested strength.

    Attributes:
        validation: accuracy, loss, images: without attack.
        test: the same of the whole test split.
        strengths: 0, then those that are tested.
        fgsm: accuracies under the fast gradient sign method.
        pgd: under projected gradient descent.
        autoattack: under AutoAttack, of the first images only; fewer strengths, see `judged`.
        judged: strengths of `autoattack`.
        minimum: accuracies that the smallest perturbations found tell, at `minimum_strengths`; may be empty.
        minimum_strengths: evenly from 0 to beyond the largest.
        signs: of gradient masking, in words; looked for where `minimum` is.
    """

    validation: list[float]
    test: list[float]
    strengths: list[float]
    fgsm: list[float]
    pgd: list[float]
    autoattack: list[float]
    judged: list[float]
    minimum: list[float]
    minimum_strengths: list[float]
    signs: list[str]

    def numbers(self, plan: RowPlan, names: Sequence[str]) -> dict[str, float]:
        """What the record keeps.

        Args:
            plan: of the row.
            names: of the tested strengths.
        """
        found = {"pgd_area": area_under_curve(self.strengths, self.pgd)}
        found["fgsm_area"] = area_under_curve(self.strengths, self.fgsm)
        if self.autoattack:
            found["autoattack_area"] = area_under_curve(self.judged, self.autoattack)
        for attack, accuracies in (("fgsm", self.fgsm), ("pgd", self.pgd)):
            found |= {f"{attack}_{n}_share": a for n, a in zip(names, accuracies[1:], strict=True)}
        by_strength = dict(zip(self.judged, self.autoattack, strict=True))
        found |= {
            f"autoattack_{n}_share": by_strength[s] for n, s in zip(names, plan.tested, strict=True) if s in by_strength
        }
        return found


def judge(network: nn.Module, plan: RowPlan, course: Course, seed: int, arm: str, curve: bool) -> Verdict:
    """Attack a network, or find what an earlier run of the same network and settings found.

    Args:
        network: of the arm.
        plan: of the row.
        course: its data, and the folder of the run.
        seed: of the run.
        arm: its name.
        curve: also look for smallest perturbations and for signs of gradient masking.
    """
    path = course.run_dir / f"seed-{seed}" / "judged" / f"{arm.replace('/', 'of')}.json"
    key = {"weights": digest(network.state_dict()), "combine": str(getattr(network, "combine", "")), "curve": curve}
    key |= {"data": digest({"images": course.splits.test.images, "labels": course.splits.test.labels})}
    key |= {"tested": list(plan.tested), "trained": list(plan.strengths), "sizes": [plan.images, plan.judged]}
    key |= {
        "pgd_steps": plan.pgd_steps,
        "seed": seed,
        "parts": [part.value for part in plan.parts],
        "queries": plan.queries,
    }
    return kept_or_made(
        path,
        key,
        lambda: _judge(network.eval(), plan, course, seed, path.parent / "autoattack", curve),
        asdict,
        lambda kept: Verdict(**kept),
    )


def _judge(network: nn.Module, plan: RowPlan, course: Course, seed: int, folder: Path, curve: bool) -> Verdict:
    test = course.splits.test
    attacked, judged = (_first(test, count) for count in (plan.images, plan.judged))
    strengths = [0.0, *plan.tested]
    hard = [0.0, *plan.strengths] if plan.judged else []
    found, points, signs = [], [], []
    if curve and plan.judged:
        steps = (plan.pgd_steps // 2, 5 * plan.pgd_steps // 2)
        seen = _first(test, min(plan.images, _SIGNS))
        curves = attack_curves(network, seen, plan.tested, steps=steps, seed=seed)
        signs = [str(one) for one in curves.findings(_CHANCE)]
        top = 1.5 * plan.tested[-1]
        points = [top * index / (_CURVE_POINTS - 1) for index in range(_CURVE_POINTS)]
        images = (judged.images.float() / 255).to(course.device)
        found = accuracies_at(minimum_perturbations(network, images, judged.labels.to(course.device)), points)
    validation, clean = course.validate(network), course.score(network, []).test
    return Verdict(
        [validation.accuracy, validation.loss, validation.images],
        [clean.accuracy, clean.loss, clean.images],
        strengths,
        robust_accuracy(network, attacked, fgsm(), strengths, seed),
        robust_accuracy(network, attacked, pgd(plan.pgd_steps), strengths, seed),
        robust_accuracy(network, judged, AutoAttack(parts=plan.parts, queries=plan.queries, folder=folder), hard, seed)
        if hard
        else [],
        hard,
        found,
        points,
        signs,
    )


def _first(split: Split, count: int) -> Split:
    return split.subset(torch.arange(min(count, len(split))))
