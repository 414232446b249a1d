"""One-level synapses: every weight of a network, the last layer's too, at -g, 0 or +g of its layer.

Wang, Wen, Song, Li: Classification Accuracy Improvement for Neuromorphic Computing Systems with One-level Precision
Synapses, ASP-DAC 2017: distribution-aware quantization (DQ), quantization regularization (QR) and bias tuning (BT),
each by itself and together; and straight-through training (ST), which is not the paper's.
Departs from the paper: only its abstract was at hand; proximal steps; lambda_q chosen here; several seeds.
"""

from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from rich.console import Console

from spokeshave.arms_course import ArmsOptions, FirstArmsOptions, close_course, open_course, require_arms
from spokeshave.arms_output import write_arms
from spokeshave.errors import InvalidArgument
from spokeshave.processes import is_first
from spokeshave.recipes.one_level_arms import ArmName, Walk, level_rows, weight_charts
from spokeshave.recipes.one_level_rows import ROWS, RowPlan
from spokeshave.run_output import command_line
from spokeshave.structures.magnitude_mask import Scope

# Points of accuracy below the float network, at most: the abstract has one number for MNIST and one for CIFAR-10.
PAPER: dict[str, dict[str, Any]] = {
    "mlp": {"gap": {"dq-qr-bt": 0.19}},
    "lenet": {"gap": {"dq-qr-bt": 0.19}},
    "convnet": {"gap": {"dq-qr-bt": 5.53}},
}
QUANTITIES = {
    "zero_share": "zeros",
    "values": "values a layer's weights take",
    "apart_share": "distance from the levels before rounding, of g",
    "plus_share": "+g",
    "minus_share": "-g",
}
_TABLED = (ArmName.DQ, ArmName.DQ_QR_BT, ArmName.ST_BT)


class Row(Enum):
    """A network, or the small demonstration."""

    DEMO = "demo"
    MLP = "mlp"
    LENET = "lenet"
    CONVNET = "convnet"


@dataclass(frozen=True)
class Own(FirstArmsOptions):
    """Options that are the recipe's own."""

    arms: tuple[ArmName, ...] = tuple(ArmName)
    """What is compared with the float network."""
    strength: float = 0.0
    """lambda_q of the quantization regularization at the end of its rise, in units of each layer's g."""
    epochs: int = 0
    """Of quantization regularization, of straight-through training and of the control."""
    bias_epochs: int = 0
    """Epochs of bias tuning."""
    try_strengths: tuple[float, ...] = ()
    """Train under each of these strengths, and print what the rounded networks score on the validation split."""


@dataclass(frozen=True)
class Config(ArmsOptions, Own):
    """Options of the one-level recipe; 0 or nothing means what the row has."""

    row: Row = Row.DEMO
    """Network."""


def plan_of(config: Config) -> RowPlan:
    """The plan of a row, with what the options change.

    Raises:
        InvalidArgument: for a number out of its range, no seed or no arm.
    """
    plan = ROWS[config.row.value]()
    strengths = (config.strength, *config.try_strengths)
    if min(config.epochs, config.bias_epochs) < 0 or not all(0 <= one < float("inf") for one in strengths):
        raise InvalidArgument(
            "expected epochs and finite strengths of at least 0, got "
            f"{config.epochs}, {config.bias_epochs} and {strengths}"
        )
    require_arms(config.seeds, config.arms)
    lengths = dict.fromkeys(("pull", "through", "control"), config.epochs) | {"bias": config.bias_epochs}
    stages = {
        name: replace(getattr(plan, name), epochs=length or getattr(plan, name).epochs, steps=2 if config.smoke else 0)
        for name, length in lengths.items()
    }
    return replace(plan, **stages, strength=config.strength or plan.strength)


def run(config: Config) -> dict[str, Any]:
    """Quantize the float networks of one row in every way, and compare them.

    Returns:
        The run's record as JSON values; nothing in all processes but the first, or where strengths are tried.

    Raises:
        SpokeshaveError: what is wrong with the options, the data, the run's folder or the training.
    """
    plan, row = plan_of(config), config.row.value
    course = open_course(config, "one-level", plan.start())
    walks = {seed: Walk(plan, course, seed) for seed in config.seeds}
    if config.try_strengths:
        _try_strengths(config, walks)
        return {}
    seeds = {seed: walk.arms(config.arms) for seed, walk in walks.items()}
    if not is_first():
        return {}
    first = walks[config.seeds[0]]
    named = [name.value for name in config.arms]
    pulled = ArmName.DQ_QR.value in first.stages
    record = write_arms(
        seeds,
        course.run_dir,
        recipe="one_level",
        row=row,
        title=f"One-level synapses: {row} on {course.splits.name}",
        headline=ArmName.DQ_QR_BT.value if ArmName.DQ_QR_BT in config.arms else named[-1],
        config={
            "strength": plan.strength, "ramp": plan.ramp, "arms": named, "smoke": config.smoke,
            **{name: getattr(plan, name).to_dict() for name in ("pull", "through", "control", "bias")},
        },
        data=course.splits.name,
        quantities=QUANTITIES,
        layers={n.value: level_rows(first.networks[n.value]) for n in _TABLED if n in config.arms},
        charts=_charts(first) if pulled else (),
        paper=PAPER.get(row),
        command=command_line(["spokeshave", "run", "one_level"], config),
    )  # fmt: skip
    return close_course(record, course, config)


def _charts(walk: Walk) -> list[Any]:
    pulled = walk.pulled(Scope.LAYER)[0]
    return weight_charts(walk.dense, pulled, walk.rounded(pulled))


def _try_strengths(config: Config, walks: dict[int, Walk]) -> None:
    console = Console(highlight=False)
    for strength in config.try_strengths:
        for seed, walk in walks.items():
            network, _, numbers = walk.pulled(Scope.LAYER, strength, f"strength-{strength:g}")
            accuracy = walk.course.validate(walk.rounded(network)).accuracy
            if is_first():
                console.print(
                    f"seed {seed}, strength {strength:g}: {accuracy:.2%} on the validation split; before rounding "
                    f"{numbers['apart_share']:.1%} of g from the levels",
                    soft_wrap=True,
                )
