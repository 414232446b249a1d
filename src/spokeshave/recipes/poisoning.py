"""Poisoning: how much one training image can harm a network, how fast it is made, and whether it is found.

Yang, Wu, Li, Chen: Generative Poisoning Attack Method Against Neural Networks, arXiv:1703.01340, 2017: the direct and
the generative method, the countermeasure that watches losses; beside them the exact gradient, an amortised generator,
further detectors, and attackers who know the detector. Meant for measuring how far a network's training is at risk.
Departs from the paper: three freshly trained victims, as its one checkpoint is unusually fragile; its tables are not
known, so that the speed-up in its abstract is the only published number.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

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
from spokeshave.processes import is_first
from spokeshave.recipes.poisoning_arms import CLEAN, ArmName, Walk
from spokeshave.recipes.poisoning_rows import ROWS, RowPlan
from spokeshave.recipes.poisoning_tables import (
    HIDING,
    RETRAINED,
    SEEN,
    Numbers,
    detectors_table,
    hiding_charts,
    hiding_table,
    poison_gallery,
    retrained_table,
    roc_charts,
    shown,
)
from spokeshave.run_output import command_line

# "Up to", of MNIST or CIFAR-10: the abstract does not say which.
PAPER: dict[str, dict[str, Any]] = {"mnist": {"times_faster": 239.38}, "cifar10": {"times_faster": 239.38}}
Table = Callable[[Walk], dict[str, Numbers]]
"""Makes a table of one seed."""
QUANTITIES = {
    "seconds": "seconds a poison",
    "times_faster": "times faster than differences",
    "times_faster_spread": "its spread",
    "loss_area": "loss: ROC area",
    "loss_found_share": "loss: found at 1 %",
    "loss_filtered_error_share": "loss: error, filtered",
    "both_area": "loss or distance: ROC area",
    "both_found_share": "loss or distance: found at 1 %",
    "both_filtered_error_share": "loss or distance: error, filtered",
    "training_s": "training, seconds",
    "break_even": "poisons until it pays",
}


class Row(Enum):
    """A data set of the paper, or the small demonstration."""

    DEMO = "demo"
    MNIST = "mnist"
    CIFAR10 = "cifar10"


@dataclass(frozen=True)
class Own(FirstArmsOptions):
    """Options that are the recipe's own."""

    arms: tuple[ArmName, ...] = tuple(ArmName)
    """Ways to make a poison, compared with the clean victim."""
    poisons: int = 0
    """Base images, each a poison of its own."""
    differences: int = 0
    """Of these, how many are attacked by finite differences."""
    lambdas: tuple[float, ...] = ()
    """Weights of hiding from the detector."""
    steps: tuple[int, ...] = ()
    """Lengths of the retrainings on many poisons."""
    shares: tuple[float, ...] = ()
    """Shares of poison in these, of the clean images."""
    skip: bool = False
    """Only the arms: no retraining on many poisons, no poison that hides."""
    workers: int = 0
    """Processes that work side by side on a CPU; one a core by default."""


@dataclass(frozen=True)
class Config(ArmsOptions, Own):
    """Options of the poisoning recipe; 0 or nothing means what the row has."""

    row: Row = Row.DEMO
    """Data set and victim."""


def plan_of(config: Config) -> RowPlan:
    """The plan of a row, with what the options change.

    Raises:
        InvalidArgument: for a number out of its range, no seed or no arm.
    """
    plan = ROWS[config.row.value]()
    if min(config.poisons, config.differences, config.workers, *config.steps, *config.lambdas, 0) < 0:
        raise InvalidArgument(
            "expected poisons, differences, workers, steps and lambdas of at least 0, got "
            f"{config.poisons}, {config.differences}, {config.workers}, {config.steps} and {config.lambdas}"
        )
    if not all(0 < share <= 1 for share in config.shares):
        raise InvalidArgument(f"shares: expected above 0 and at most 1, got {config.shares}")
    require_arms(config.seeds, config.arms)
    plan = plan.small() if config.smoke else plan
    poisons = config.poisons or plan.poisons
    return replace(
        plan,
        poisons=poisons,
        differences=min(config.differences or plan.differences, poisons),
        lambdas=config.lambdas or plan.lambdas,
        steps=config.steps or plan.steps,
        shares=config.shares or plan.shares,
    )


def run(config: Config) -> dict[str, Any]:
    """Poison one victim for each seed in every way, and look for the poison.

    Returns:
        The run's record as JSON values; nothing in all processes but the first.

    Raises:
        SpokeshaveError: what is wrong with the options, the data, the run's folder or the training.
    """
    started, plan, row = time.perf_counter(), plan_of(config), config.row.value
    course = open_course(config, "poisoning", plan.start())
    tables = {SEEN: detectors_table}
    tables |= {} if config.skip else {RETRAINED: retrained_table, HIDING: hiding_table}
    jobs: list[tuple[str, tuple[int, Table | None]]] = [(f"seed {seed}", (seed, None)) for seed in config.seeds]
    if do_side_by_side(config, config.workers, _part, (config, plan, course), jobs):
        # Detectors are shown all arms at once, and times are taken with nothing else beside: here, afterwards.
        others = {title: make for title, make in tables.items() if title != SEEN}
        jobs = [(f"seed {seed}, {title}", (seed, make)) for title, make in others.items() for seed in config.seeds]
        do_side_by_side(config, config.workers, _part, (config, plan, course), jobs)
        course.resume = True  # for what processes have made just now
    walks = {seed: Walk(plan, course, seed) for seed in config.seeds}
    seeds = {seed: walk.arms(config.arms) for seed, walk in walks.items()}
    if not is_first():
        return {}
    found = {title: [make(walk) for walk in walks.values()] for title, make in tables.items()}
    seeds = {seed: _noted(seeds[seed], found, place) for place, seed in enumerate(seeds)}
    names = list(next(iter(seeds.values())))
    record = write_arms(
        seeds,
        course.run_dir,
        recipe="poisoning",
        row=row,
        title=f"Poisoning: {row} on {course.splits.name}",
        headline=ArmName.GENERATOR.value if ArmName.GENERATOR in config.arms else names[-1],
        config={
            "victim": plan.name, "poisons": plan.poisons, "differences": plan.differences, "arms": names[1:],
            "learning_rate": plan.budget.lr, "bias_rate": plan.budget.bias_rate, "normal": plan.normal,
            "lambdas": list(plan.lambdas), "steps": list(plan.steps), "shares": list(plan.shares),
            "smoke": config.smoke, "training": plan.settings.to_dict(),
        },
        data=course.splits.name,
        quantities=QUANTITIES,
        layers={title: shown(rows, "") for title, rows in found.items()},
        charts=roc_charts(next(iter(walks.values()))) + hiding_charts(found.get(HIDING, [])),
        galleries=[poison_gallery(next(iter(walks.values())))],
        paper=PAPER.get(row),
        command=command_line(["spokeshave", "run", "poisoning"], config),
        started=started,
    )  # fmt: skip
    return close_course(record, course, config)


def _part(shared: tuple[Config, RowPlan, Course], job: tuple[int, Table | None], tell: Callable[[Any], None]) -> None:
    """Make the poisons of a seed, or one of its tables; they stay in the run's folder."""
    config, plan, course = shared
    seed, table = job
    walk = Walk(plan, course, seed)
    if table is None:
        walk.make(config.arms)
    else:
        table(walk)


def _noted(arms: dict[str, Scored], tables: dict[str, list[dict[str, Numbers]]], place: int) -> dict[str, Scored]:
    """The clean arm remembers a seed's tables, number by number, for the ledger."""
    noted = {
        f"{title.partition(':')[0]} | {name} | {key}": value
        for title, found in tables.items()
        for name, numbers in found[place].items()
        for key, value in numbers.items()
    }
    return {**arms, CLEAN: replace(arms[CLEAN], numbers=noted)}
