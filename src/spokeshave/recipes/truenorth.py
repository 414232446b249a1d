"""TrueNorth: connection probabilities that survive sampling, so that fewer copies and fewer spikes per frame suffice.

Wen, Wu, Wang, Nixon, Wu, Barnell, Li, Chen: A New Learning Method for Inference Accuracy, Core Occupation, and
Performance Co-optimization on TrueNorth Chip, DAC 2016: plain Tea learning, an L1 penalty and the biasing penalty;
beside them a variance penalty and straight-through training, which are not the paper's.
Departs from the paper: its text was not at hand; neurons a core, votes, strengths and schedules are chosen here.
"""

from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from rich.console import Console

from spokeshave.arms_course import ArmsOptions, FirstArmsOptions, close_course, open_course, require_arms
from spokeshave.arms_output import write_arms
from spokeshave.errors import InvalidArgument
from spokeshave.processes import is_first
from spokeshave.recipes.truenorth_arms import (
    LIKE_COPIES,
    LIKE_SPIKES,
    SIDE,
    ArmName,
    Walk,
    deployed_charts,
    equal_accuracy,
)
from spokeshave.recipes.truenorth_rows import ROWS, RowPlan
from spokeshave.run_output import command_line

# Percent, deployed with one copy and one spike per frame; remembered, and agreed with by what follow-ups print.
PAPER: dict[str, dict[str, Any]] = {
    "bench-1-10": {"accuracy": {"tea": 90.04, "l1": 89.83, "bias": 92.78}, "gap": {"bias": -2.74}},
    "bench-1": {"accuracy": {"tea": 90.04, "l1": 89.83, "bias": 92.78}, "gap": {"bias": -2.74}},
    "bench-1-40": {"accuracy": {"tea": 90.04, "l1": 89.83, "bias": 92.78}, "gap": {"bias": -2.74}},
    "bench-2": {},
    "bench-3": {},
    "bench-4": {},
}
QUANTITIES = {
    "float_error_share": "float error",
    "lost_share": "lost on the chip",
    "variance": "mean p (1 - p)",
    "cores": "cores of a copy",
    "error_5_copies_share": "error, 5 copies",
    f"error_{SIDE}_copies_share": f"error, {SIDE} copies",
    "error_2_spikes_share": "error, 2 spikes",
    f"error_{LIKE_SPIKES}_spikes_share": f"error, {LIKE_SPIKES} spikes",
}


EQUAL = f"Enough for plain Tea's accuracy with {LIKE_COPIES} copies, or with {LIKE_SPIKES} spikes per frame"


class Row(Enum):
    """A test bench of the paper, or the small demonstration; bench-1-10 has 10 neurons a core, bench-1-40 has 40."""

    DEMO = "demo"
    BENCH_1_10 = "bench-1-10"
    BENCH_1 = "bench-1"
    BENCH_1_40 = "bench-1-40"
    BENCH_2 = "bench-2"
    BENCH_3 = "bench-3"
    BENCH_4 = "bench-4"


@dataclass(frozen=True)
class Own(FirstArmsOptions):
    """Options that are the recipe's own."""

    arms: tuple[ArmName, ...] = tuple(ArmName)
    """What is compared with plain Tea."""
    strength: float = 0.0
    """lambda of the biasing penalty at the end of its rise."""
    neurons: int = 0
    """Of a core of the last layer."""
    epochs: int = 0
    """Of every training."""
    draws: int = 0
    """Deployments that accuracies are means over."""
    try_strengths: tuple[float, ...] = ()
    """Train under each of these strengths (of the first arm that is bias or variance), and print what one deployed copy
    scores on the validation split."""


@dataclass(frozen=True)
class Config(ArmsOptions, Own):
    """Options of the TrueNorth recipe; 0 or nothing means what the row has."""

    row: Row = Row.DEMO
    """Test bench."""


def plan_of(config: Config) -> RowPlan:
    """The plan of a row, with what the options change.

    Raises:
        InvalidArgument: for a number out of its range, no seed or no arm.
    """
    plan = ROWS[config.row.value]()
    strengths = (config.strength, *config.try_strengths)
    if min(config.epochs, config.neurons, config.draws) < 0 or not all(0 <= one < float("inf") for one in strengths):
        raise InvalidArgument(
            "expected epochs, neurons, draws and finite strengths of at least 0, got "
            f"{config.epochs}, {config.neurons}, {config.draws} and {strengths}"
        )
    require_arms(config.seeds, config.arms)
    if min(config.seeds) < 0:
        raise InvalidArgument(f"seeds: expected at least 0, got {config.seeds}")
    return replace(
        plan,
        settings=replace(plan.settings, epochs=config.epochs or plan.settings.epochs),
        bias=config.strength or plan.bias,
        neurons=config.neurons or plan.neurons,
        draws=config.draws or plan.draws,
    )


def run(config: Config) -> dict[str, Any]:
    """Learn the connections of one test bench in every way, deploy them, and compare.

    Returns:
        The run's record as JSON values; nothing in all processes but the first, or where strengths are tried.

    Raises:
        SpokeshaveError: what is wrong with the options, the data, the run's folder or the training.
    """
    plan, row = plan_of(config), config.row.value
    course = open_course(config, "truenorth", plan.start())
    walks = {seed: Walk(plan, course, seed, config.smoke) for seed in config.seeds}
    if config.try_strengths:
        _try_strengths(config, walks)
        return {}
    seeds = {seed: walk.arms(config.arms) for seed, walk in walks.items()}
    if not is_first():
        return {}
    names = list(next(iter(seeds.values())))
    record = write_arms(
        seeds,
        course.run_dir,
        recipe="truenorth",
        row=row,
        title=f"TrueNorth: {row} on {course.splits.name}",
        headline=ArmName.BIAS.value if ArmName.BIAS in config.arms else names[-1],
        config={
            "bench": plan.bench.__name__, "neurons": plan.neurons, "draws": plan.draws, "arms": names[1:],
            "bias": plan.bias, "variance": plan.variance, "l1": plan.l1, "smoke": config.smoke,
            "training": plan.settings.to_dict(),
        },
        data=course.splits.name,
        quantities=QUANTITIES,
        layers={EQUAL: equal_accuracy({arm: [one[arm].numbers for one in seeds.values()] for arm in names})},
        charts=deployed_charts(walks),
        paper=PAPER.get(row) or None,
        command=command_line(["spokeshave", "run", "truenorth"], config),
    )  # fmt: skip
    return close_course(record, course, config)


def _try_strengths(config: Config, walks: dict[int, Walk]) -> None:
    console, penalized = Console(highlight=False), (ArmName.L1, ArmName.BIAS, ArmName.VARIANCE)
    name = next((arm for arm in config.arms if arm in penalized and arm is not ArmName.L1), ArmName.BIAS)
    for strength in config.try_strengths:
        for seed, walk in walks.items():
            network, _ = walk.trained(name, f"{name.value}-{strength:g}", strength=strength)
            single, floating = walk.validated(network), walk.course.validate(network).accuracy
            if is_first():
                console.print(
                    f"seed {seed}, {name.value} {strength:g}: one copy with one spike per frame {single:.2%} on the "
                    f"validation split, float {floating:.2%}",
                    soft_wrap=True,
                )
