"""MAT: networks trained at many strengths of attack at once, beside networks trained at one.

Song, Cheng, Yang, Li, Wu, Wu, Chen, Li: MAT: A Multi-strength Adversarial Training Method to Mitigate Adversarial
Attacks, ISVLSI 2018: single-strength networks have working zones; mixed MAT is one network for all strengths, parallel
MAT one for each.
Departs from the paper: its text was not at hand, so no row can be set beside a published number. Networks, strengths,
lengths and the attack are chosen here; rows that end in -fgsm train and are attacked as the paper presumably did,
which is known to overestimate; all others train on PGD.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from rich.console import Console

from spokeshave.arms_course import (
    ArmsOptions,
    FirstArmsOptions,
    close_course,
    do_side_by_side,
    open_course,
    require_arms,
)
from spokeshave.arms_output import Scored, write_arms
from spokeshave.equal_budget import Course
from spokeshave.errors import InvalidArgument
from spokeshave.evaluation import Evaluation
from spokeshave.recipes.mat_arms import LABELS, PLAIN, PLAIN_LABEL, ArmName, Walk, single_names, stages_of, words
from spokeshave.recipes.mat_figures import attacked_images, charts, comparisons, transfer, zones
from spokeshave.recipes.mat_judging import Verdict, judge
from spokeshave.recipes.mat_rows import ROWS, RowPlan
from spokeshave.run_output import command_line
from spokeshave.threats.autoattack import Part
from spokeshave.threats.ensemble import Combine
from spokeshave.threats.gradient_attack import InnerAttack
from spokeshave.threats.multi_strength import Drawing

PAPER: dict[str, dict[str, Any]] = {row: {} for row in ("mnist", "cifar10", "mnist-fgsm", "cifar10-fgsm")}
"""Of the paper no number could be read."""


class Row(Enum):
    """Data and protocol; -fgsm trains on one step from the image itself, as the paper presumably did."""

    DEMO = "demo"
    MNIST = "mnist"
    CIFAR10 = "cifar10"
    MNIST_FGSM = "mnist-fgsm"
    CIFAR10_FGSM = "cifar10-fgsm"


@dataclass(frozen=True)
class Own(FirstArmsOptions):
    """Options that are the recipe's own; 0 or nothing means what the row has."""

    arms: tuple[ArmName, ...] = tuple(ArmName)
    """Structures of MAT that are compared with single-strength networks."""
    strengths: tuple[float, ...] = ()
    """That networks are trained on, L-inf, 0..1 of the range of a pixel."""
    inner: InnerAttack | None = None
    """Attack that networks are trained on."""
    weights: tuple[float, ...] = ()
    """How often mixed MAT draws each of the strengths."""
    drawing: Drawing = Drawing.ONE
    """Strengths that an image sees in a step of mixed MAT: one, all, or one from the range."""
    combine: Combine = Combine.PROBABILITY_MEAN
    """How members answer together."""
    epochs: int = 0
    """Of every training."""
    images: int = 0
    """Of the test split that FGSM and PGD attack."""
    judged: int = -1
    """Of these, the first that AutoAttack attacks; 0 leaves it out, below 0 means what the row has."""
    workers: int = 0
    """Processes that train and judge side by side on a CPU; one a core by default."""
    walk: int = 0
    """Choose strengths by a random walk of so many proposals, each trained for an epoch; prints what it found."""


@dataclass(frozen=True)
class Config(ArmsOptions, Own):
    """Options of the MAT recipe; 0 or nothing means what the row has."""

    row: Row = Row.DEMO
    """Data and protocol."""


def plan_of(config: Config) -> RowPlan:
    """The plan of a row, with what the options change.

    Raises:
        InvalidArgument: for a number out of its range, no seed or no arm.
    """
    plan = ROWS[config.row.value]()
    if min(config.epochs, config.images, config.workers, config.walk) < 0:
        raise InvalidArgument(
            "expected epochs, images, workers and proposals of at least 0, got "
            f"{config.epochs}, {config.images}, {config.workers}, {config.walk}"
        )
    if not all(0 < one <= 1 for one in config.strengths) or len(set(config.strengths)) < len(config.strengths):
        raise InvalidArgument(f"strengths: expected different ones above 0 and at most 1, got {config.strengths}")
    require_arms(config.seeds, config.arms)
    if config.weights and len(config.weights) != len(config.strengths or plan.strengths):
        raise InvalidArgument(f"weights: expected one for each strength, got {config.weights}")
    given = config.strengths or plan.strengths
    weights = config.weights or (() if config.strengths else plan.weights)
    order = sorted(range(len(given)), key=lambda place: given[place])
    plan = replace(
        plan,
        strengths=tuple(given[place] for place in order),
        weights=tuple(weights[place] for place in order) if weights else (),
        settings=replace(plan.settings, epochs=config.epochs or plan.settings.epochs),
        inner=config.inner or plan.inner,
        tested=tuple(sorted({*plan.tested, *config.strengths})),
        images=config.images or plan.images,
        judged=plan.judged if config.judged < 0 else config.judged,
    )
    if config.smoke:
        return replace(plan, images=32, judged=4, pgd_steps=2, parts=(Part.SQUARE,), queries=20)
    return plan


def run(config: Config) -> dict[str, Any]:
    """Train every network of one row, attack it, and compare.

    Returns:
        The run's record as JSON values; nothing where strengths are chosen.

    Raises:
        SpokeshaveError: what is wrong with the options, the data, the run's folder or the training.
    """
    started, plan, row = time.perf_counter(), plan_of(config), config.row.value
    course = open_course(config, "mat", plan.start())
    if config.walk:
        _choose_strengths(_walk(config, plan, course, config.seeds[0]), config.walk)
        return {}
    names = [PLAIN, *single_names(plan), *(arm.value for arm in config.arms)]
    if _in_processes(config, plan, course, names):
        course.resume = True  # for what processes have trained just now
    walks = {seed: _walk(config, plan, course, seed) for seed in config.seeds}
    verdicts = {seed: {name: _verdict(walk, name, config) for name in names} for seed, walk in walks.items()}
    seeds = {
        seed: {name: _scored(walks[seed], name, found) for name, found in one.items()} for seed, one in verdicts.items()
    }
    found = list(verdicts.values())
    own = [one for arm in config.arms for one in stages_of(plan, arm.value) if one not in single_names(plan)]
    record = write_arms(
        seeds,
        course.run_dir,
        recipe="mat",
        row=row,
        title=f"MAT: {row} on {course.splits.name}",
        headline=config.arms[0].value,
        config={
            "strengths": list(plan.strengths), "tested": list(plan.tested), "inner": plan.inner.value,
            "gap": plan.gap, "weights": list(plan.weights), "drawing": config.drawing.value,
            "combine": config.combine.value,
            "images": plan.images, "judged": plan.judged, "pgd_steps": plan.pgd_steps,
            "batch_size": plan.batch_size, "smoke": config.smoke, "training": course.budget.settings.to_dict(),
        },
        data=course.splits.name,
        quantities=_quantities(plan),
        layers=comparisons(plan, found),
        charts=charts(plan, found),
        tables=[*zones(plan, found), transfer(walks[config.seeds[0]], own[:1])],
        galleries=[attacked_images(walks[config.seeds[0]], config.arms[0].value)],
        command=command_line(["spokeshave", "run", "mat"], config),
        started=started,
    )  # fmt: skip
    return close_course(record, course, config)


def _quantities(plan: RowPlan) -> dict[str, str]:
    found = {"pgd_area": "area, PGD", "autoattack_area": "area, AA", "networks": "networks", "epochs": "epochs"}
    found["gradients"] = "attack gradients an image"
    for attack, heading in (("pgd", f"PGD-{plan.pgd_steps}"), ("autoattack", "AA"), ("fgsm", "FGSM")):
        found |= {f"{attack}_{words(one, plan)}_share": f"{heading} {words(one, plan)}" for one in plan.strengths}
    return found


def _scored(walk: Walk, name: str, found: Verdict) -> Scored:
    stages = stages_of(walk.plan, name)
    label = PLAIN_LABEL if name == PLAIN else f"adversarial training at {name.removeprefix('single-')}"
    label = next((LABELS[arm] for arm in ArmName if arm.value == name), label)
    numbers = found.numbers(walk.plan, [words(one, walk.plan) for one in walk.plan.tested])
    numbers |= {"networks": len(stages), "epochs": sum(len(walk.histories[stage]) for stage in stages)}
    last = [walk.histories[stage][-1] for stage in stages]
    # Of an image in an epoch; the training itself passes through twice as many images, clean and attacked.
    taken = sum(row.get("transform", {}).get("gradients", 0) for row in last)
    numbers["gradients"] = taken / sum(row["step"] for row in last)
    (accuracy, loss, images), (test, test_loss, test_images) = found.validation, found.test
    return Scored(
        label,
        Evaluation(accuracy, loss, int(images)),
        Evaluation(test, test_loss, int(test_images)),
        numbers,
        {stage: walk.histories[stage] for stage in stages},
    )


def _verdict(walk: Walk, name: str, config: Config) -> Verdict:
    first = walk.seed == config.seeds[0]
    # AutoAttack on an ensemble takes as long as on all its members: once is enough.
    single = len(stages_of(walk.plan, name)) == 1
    plan = walk.plan if first or single else replace(walk.plan, judged=0)
    return judge(walk.network(name), plan, walk.course, walk.seed, name, curve=first)


def _walk(config: Config, plan: RowPlan, course: Course, seed: int) -> Walk:
    return Walk(plan, course, seed, config.drawing, config.combine)


def _in_processes(config: Config, plan: RowPlan, course: Course, names: list[str]) -> bool:
    """Train, then judge, side by side; what processes leave in the run's folder is found there afterwards.

    Returns:
        Whether there was more than one process to do it.
    """
    stages = list(dict.fromkeys(stage for name in names for stage in stages_of(plan, name)))
    for judging, jobs in ((False, stages), (True, names)):
        pairs = [(f"{job} (seed {seed})", (judging, seed, job)) for seed in config.seeds for job in jobs]
        if not do_side_by_side(config, config.workers, _part, (config, plan, course), pairs):
            return False
    return True


def _part(shared: tuple[Config, RowPlan, Course], job: tuple[bool, int, str], tell: Callable[[Any], None]) -> None:
    config, plan, course = shared
    judging, seed, name = job
    if judging:
        course.resume = True
    walk = _walk(config, plan, course, seed)
    if judging:
        _verdict(walk, name, config)
    else:
        walk.trained(name)


def _choose_strengths(walk: Walk, proposals: int) -> None:
    console = Console(highlight=False)
    found = walk.choose_strengths(proposals)
    chosen = " ".join(f"{one:.4g}" for one in found.strengths)
    console.print(
        f"best of {proposals} proposals on the validation split: --strengths {chosen} (area {found.area:.4f}; "
        f"as given {found.first_area:.4f})",
        soft_wrap=True,
    )
