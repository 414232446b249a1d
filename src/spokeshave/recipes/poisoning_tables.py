"""What recipe `poisoning` shows beside its arms: retrainings on many poisons, hiding poison, all detectors, ROC curves.

Retrainings go on from the trained victim, on clean training images and poisons mixed. Everything is a mean over the
seeds, with its standard deviation where there are several.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from statistics import mean
from typing import Any

import torch
from torch import Tensor

from spokeshave.recipes.poisoning_arms import DetectorName, ImagesAndLabels, Made, Walk
from spokeshave.report.arms_record import Chart, Curve, spread
from spokeshave.report.image_gallery import Gallery, gallery
from spokeshave.threats.detection_scores import roc_curve
from spokeshave.threats.evasive_poison import Doubt, WatchedGenerator, both, distance_doubt, evade, loss_doubt
from spokeshave.threats.poison_filter import PoisonFilter
from spokeshave.threats.poisoning import Damage, damage, poison

_LOW = 0.05
"""ROC curves are shown up to this share of false alarms."""
_ELSEWHERE = 2000
"""Test images of the network of another architecture."""
_BELOW = 0.95
"""Of a detector's limit, what hiding poison aims at: what aims at the limit itself ends close to it on either side."""

Numbers = dict[str, float]

RETRAINED = "Retraining on clean images and many poisons: accuracy on test images"
HIDING = "Poison that hides: accuracy after one step, and what is above the detectors' own thresholds"
SEEN = "Detectors: area under the ROC curve, and share found at 1 % false alarms"


def clean_of(found: Damage) -> float:
    """Accuracy after the same retraining without poison."""
    assert found.clean is not None
    return found.clean


def retrained_table(walk: Walk) -> dict[str, Numbers]:
    """Accuracies after retraining without poison, with wrong labels, joint poison, its filtered rest, and elsewhere."""
    lengths = {f"{steps} steps, {100 * share:g} % poison": (steps, share) for steps in walk.plan.steps
               for share in walk.plan.shares}  # fmt: skip
    given = walk.other.state_dict()
    return {name: walk.found(name, partial(_retrained, walk, name, *how), given) for name, how in lengths.items()}


def _retrained(walk: Walk, name: str, steps: int, share: float) -> Numbers:
    seeds = (walk.seed + 100, walk.seed + 200)  # orders that the attacker has not rehearsed
    plan, clean = walk.plan, (walk.known[0][: walk.plan.training], walk.known[1][: walk.plan.training])
    budget = plan.together(steps)

    def after(poisons: ImagesAndLabels, training: ImagesAndLabels = clean) -> Damage:
        return damage(walk.victim, *poisons, walk.tests, budget, training=training, seeds=seeds)

    count = max(1, round(share * len(clean[1])))
    bases = walk.fed(walk.course.training, slice(len(walk.known[1]), len(walk.known[1]) + count))
    normal = (walk.known[0][: plan.many], walk.known[1][: plan.many])
    flipped = bases[0], budget.labels_for(bases[1], len(walk.course.splits.classes))
    how = plan.joint_ascent(steps)
    made = poison(walk.victim, *bases, *normal, budget, how=how, training=clean, seed=walk.seed)
    joint = made.images, made.labels
    wrong, worse = after(flipped), after(joint)
    row = {"none_share": clean_of(wrong), "flip_share": wrong.mean, "joint_share": worse.mean}
    for detector in (DetectorName.LOSS, DetectorName.BOTH):
        for kind, poisons in (("flip", flipped), ("joint", joint)):
            whole = torch.cat([clean[0], poisons[0]]), torch.cat([clean[1], poisons[1]])
            left = PoisonFilter(walk.detectors[detector]).tensors(*whole)
            # What is left is trained on as it is; which images are called poison makes no difference.
            kept = after((left[0][:1], left[1][:1]), (left[0][1:], left[1][1:]))
            row[f"{kind}_filtered_by_{detector.name.lower()}_share"] = kept.mean
    few = (walk.tests[0][:_ELSEWHERE], walk.tests[1][:_ELSEWHERE])
    elsewhere = damage(walk.other, *joint, few, budget, training=clean, seeds=seeds[:1])
    row |= {"elsewhere_none_share": clean_of(elsewhere), "elsewhere_joint_share": elsewhere.mean}
    walk.say(f"{name}: {_words(row)}")
    return row


def hiding_table(walk: Walk) -> dict[str, Numbers]:
    """Accuracy and what is caught of poison that weighs damage against detection, for each lambda."""
    plan = walk.plan
    normal = (walk.known[0][: plan.normal], walk.known[1][: plan.normal])
    by_loss = loss_doubt(walk.victim, _BELOW * walk.detectors[DetectorName.LOSS].limit)
    most_loss, farthest = (_BELOW * limit for limit in walk.joint_detector.limits)
    by_both = both(loss_doubt(walk.victim, most_loss), distance_doubt(*walk.defended, farthest, plan.neighbours))

    def direct(doubt: Doubt, strength: float, flip: bool = True) -> ImagesAndLabels:
        budget = plan.budget if flip else replace(plan.budget, flip=False)
        made = evade(walk.victim, *walk.bases, *normal, doubt, strength, budget, plan.evasion, seed=walk.seed)
        return made.images, made.labels

    attackers: dict[str, Callable[[float], ImagesAndLabels]] = {
        "direct, hides from the loss": partial(direct, by_loss),
        "direct, hides from loss and distance": partial(direct, by_both),
        "true label, hides from loss and distance": partial(direct, by_both, flip=False),
        "generator, hides from the loss": lambda strength: _generated(walk, by_loss, strength, normal),
    }

    def measured(name: str, hide: Callable[[float], ImagesAndLabels], strength: float) -> Numbers:
        images, labels = hide(strength)
        accuracies = damage(walk.victim, images, labels, walk.tests, plan.budget).accuracies
        made, row = Made(images, labels, accuracies), {"accuracy_share": float(accuracies.mean())}
        for detector in (DetectorName.LOSS, DetectorName.BOTH):
            judged = walk.detectors[detector].judge(*walk.tests, images, labels)
            key = detector.name.lower()
            row |= {f"{key}_area": judged.area, f"{key}_caught_share": judged.caught_share}
            row[f"{key}_filtered_share"] = walk.filtered(made, walk.detectors[detector])
        walk.say(f"{name}: {_words(row)}")
        return row

    found = {}
    for strength in plan.lambdas:
        for who, hide in attackers.items():
            name = f"{who}, lambda {strength:g}"
            found[name] = walk.found(name, partial(measured, name, hide, strength))
    return found


def detectors_table(walk: Walk) -> dict[str, Numbers]:
    """Area and found share of every detector for every arm."""

    def measured(name: DetectorName) -> Numbers:
        row = {}
        for arm, made in walk.made.items():
            judged = walk.detectors[name].judge(*walk.tests, made.images, made.labels)
            row |= {f"{arm.value}_area": judged.area, f"{arm.value}_found_share": judged.found_share}
        walk.say(f"{name.value}: {_words(row)}")
        return row

    given = {
        f"{arm.value} {what}": getattr(made, what) for arm, made in walk.made.items() for what in ("images", "labels")
    }
    return {name.value: walk.found(name.value, partial(measured, name), given) for name in walk.detectors}


def shown(tables: Sequence[Mapping[str, Numbers]], first: str) -> list[dict[str, Any]]:
    """One table of all seeds as rows of a page: means, ± their standard deviation in points for shares.

    Args:
        tables: of each seed; all have the same rows.
        first: heading of the first column.

    Example:
        >>> shown([{"a": {"x_share": 0.5}}, {"a": {"x_share": 0.7}}], "row")
        [{'row': 'a', 'x': '60.0 ± 14.1 %'}]
    """
    rows = []
    for name, numbers in tables[0].items():
        cells: dict[str, Any] = {first: name}
        for key in numbers:
            values = [table[name][key] for table in tables]
            apart, share = spread(values), key.endswith("_share")
            scale, digits = (100, 1) if share else (1, 4)
            text = f"{scale * mean(values):.{digits}f}"
            text += "" if apart is None else f" ± {scale * apart:.{digits}f}"
            cells[key.removesuffix("_share")] = text + (" %" if share else "")
        rows.append(cells)
    return rows


def roc_charts(walk: Walk) -> list[Chart]:
    """ROC curves of the loss, and of loss or distance, for every arm, up to few false alarms."""
    charts = []
    for name in (DetectorName.LOSS, DetectorName.BOTH):
        detector, curves = walk.detectors[name], []
        clean = detector.scores(*walk.tests)
        for arm, made in walk.made.items():
            curve = roc_curve(clean, detector.scores(made.images, made.labels))
            low = curve.false_alarms <= _LOW
            curves.append(Curve(arm.value, curve.false_alarms[low].tolist(), curve.found[low].tolist()))
        title = f"Poisons found by {name.value}, first seed"
        charts.append(Chart(title, "share of clean images suspicious", "share found", curves, percent=True))
    return charts


def poison_gallery(walk: Walk, count: int = 8) -> Gallery:
    """The first base images, and below them what each arm made of them; framed where loss or distance finds it."""
    images, labels = walk.bases[0][:count], walk.bases[1][:count]
    rows: list[tuple[str, Tensor, list[str], list[bool]]] = [
        ("base images", images, [str(int(label)) for label in labels], [False] * len(labels))
    ]
    for arm, made in walk.made.items():
        some, given = made.images[:count], made.labels[:count]
        losses = walk.detectors[DetectorName.LOSS].scores(some, given).tolist()
        captions = [f"as {label}, loss {loss:.1f}" for label, loss in zip(given.tolist(), losses, strict=True)]
        rows.append((arm.value, some, captions, walk.detectors[DetectorName.BOTH].suspicious(some, given).tolist()))
    return gallery("Poisons, first seed", rows, f"found by {DetectorName.BOTH.value}")


def hiding_charts(tables: Sequence[Mapping[str, Numbers]]) -> list[Chart]:
    """Accuracy after the poison against the share caught, lambda by lambda, for each attacker; means of seeds."""
    if not tables:
        return []
    attackers = dict.fromkeys(name.rpartition(", lambda")[0] for name in tables[0])
    charts = []
    for key, who in (("loss", "the loss"), ("both", "loss or distance")):
        curves = []
        for attacker in attackers:
            names = [name for name in tables[0] if name.startswith(f"{attacker}, lambda")]
            points = sorted(
                (_mean(tables, name, f"{key}_caught_share"), _mean(tables, name, "accuracy_share")) for name in names
            )
            curves.append(Curve(attacker, [x for x, _ in points], [y for _, y in points]))
        title = f"What hiding from {who} costs the attacker"
        charts.append(
            Chart(title, "share above the detector's threshold", "accuracy after one step", curves, percent=True)
        )
    return charts


def _words(row: Numbers) -> str:
    return ", ".join(f"{key.removesuffix('_share').replace('_', ' ')} {value:.3f}" for key, value in row.items())


def _mean(tables: Sequence[Mapping[str, Numbers]], name: str, key: str) -> float:
    return mean(table[name][key] for table in tables)


def _generated(walk: Walk, doubt: Doubt, strength: float, normal: ImagesAndLabels) -> ImagesAndLabels:
    generator = WatchedGenerator(copy.deepcopy(walk.autoencoder), doubt, strength, walk.plan.budget)
    generator.fit(walk.victim, *walk.known, *normal, replace(walk.plan.hiding, seed=walk.seed))
    with torch.no_grad():
        return generator(walk.bases[0]), walk.wrong(walk.bases[1])
