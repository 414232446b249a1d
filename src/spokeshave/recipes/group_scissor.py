"""Group Scissor: rank clipping makes crossbars fewer, then group connection deletion takes wires between them away.

Wang, Wen, Liu, Chiarulli, Li: Group Scissor: Scaling Neuromorphic Computing Design to Large Neural Networks, DAC 2017.
The classifier is left whole and biases are not counted, as the published percentages imply. Tiles are equal divisors of
at most 64 x 64. Routing area is the square of a layer's wires; its mean over the layers that need several crossbars.
Departs from the paper: shorter schedules; proximal steps; clipping by the layer's own error, with a least rank.
"""

import contextlib
import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import Enum
from typing import Any

from torch import nn

from spokeshave.arms_course import ArmsOptions, FirstArmsOptions, close_course, open_course
from spokeshave.arms_output import Scored, write_arms
from spokeshave.equal_budget import Course
from spokeshave.errors import InvalidArgument, NothingChanged
from spokeshave.processes import is_first
from spokeshave.recipes.group_scissor_rows import LINEAR, ROWS, RowPlan
from spokeshave.regularizers import Force, Freeze, Frozen, GroupLasso
from spokeshave.report.arms_record import Chart, Curve
from spokeshave.rewrites import delete_connections
from spokeshave.rewrites.low_rank import low_rank
from spokeshave.rewrites.rank_clipping import RankClipping
from spokeshave.run_output import command_line
from spokeshave.structures.tiles import Tiling
from spokeshave.targets.crossbar.wires_and_area import CrossbarCost, area_share, price
from spokeshave.train_settings import TrainSettings

# Percent; areas and routing areas as in the abstract, accuracies as secondary sources quote them.
PAPER: dict[str, dict[str, Any]] = {
    "lenet": {"area": 13.62, "routing_area": 8.1, "ranks": [5, 12, 36], "accuracy": {"float": 99.15, "clipped": 99.14}},
    "convnet": {
        "area": 51.81, "routing_area": 52.06, "ranks": [12, 19, 22],
        "accuracy": {"float": 82.01, "direct": 43.29, "clipped": 82.09},
    },
}  # fmt: skip
QUANTITIES = {
    "area_share": "crossbar area",
    "wires_share": "wires left",
    "mean_routing_share": "routing area, mean of layers",
    "total_routing_share": "routing area, of sums",
    "crossbars": "crossbars",
}


class Row(Enum):
    """A network, the front of area against accuracy, or the small demonstration."""

    DEMO = "demo"
    LENET = "lenet"
    CONVNET = "convnet"
    LENET_FRONT = "lenet-front"


@dataclass(frozen=True)
class Own(FirstArmsOptions):
    """Options that are the recipe's own."""

    strength: float = 1.0
    """Factor on the pull on wires, at least 0."""
    clip_epochs: int = 0
    """Epochs of rank clipping."""
    delete_epochs: int = 0
    """Epochs under the pull on wires, before each deletion."""
    finetune_epochs: int = 0
    """Epochs with the deleted wires held at zero."""
    control: bool = False
    """Also train the float network on for as many epochs."""


@dataclass(frozen=True)
class Config(ArmsOptions, Own):
    """Options of the Group Scissor recipe; 0 or nothing means what the row has."""

    row: Row = Row.DEMO
    """Network."""


def plan_of(config: Config) -> RowPlan:
    """The plan of a row, with what the options change.

    Raises:
        InvalidArgument: for a negative number or no seed.
    """
    plan = ROWS[config.row.value]()
    epochs = {"clip": config.clip_epochs, "delete": config.delete_epochs, "finetune": config.finetune_epochs}
    if min(epochs.values()) < 0 or not 0 <= config.strength < float("inf") or not config.seeds:
        raise InvalidArgument(
            f"expected epochs and a finite --strength of at least 0 and at least one seed, got {epochs}, "
            f"{config.strength} and {config.seeds}"
        )
    stages: dict[str, TrainSettings] = {}
    for name, length in epochs.items():
        stage: TrainSettings = getattr(plan, name)
        stages[name] = replace(stage, epochs=length or stage.epochs, steps=2 if config.smoke else 0)
    front = plan.front[:: max(1, len(plan.front) // 3)] if config.smoke else plan.front
    clipping = replace(plan.clipping, every=1) if config.smoke else plan.clipping
    return replace(plan, **stages, clipping=clipping, front=front, wires=plan.wires * config.strength)


def run(config: Config) -> dict[str, Any]:
    """Train, clip, delete and price one row.

    Returns:
        The run's record as JSON values; nothing in all processes but the first.

    Raises:
        SpokeshaveError: what is wrong with the options, the data, the run's folder or the training.
    """
    plan, row = plan_of(config), config.row.value
    course = open_course(config, "group-scissor", plan.start())
    walks = {seed: _Walk(config, plan, course, seed) for seed in config.seeds}
    seeds = {seed: walk.front() if plan.front else walk.arms() for seed, walk in walks.items()}
    if not is_first():
        return {}
    first = walks[config.seeds[0]]
    record = write_arms(
        seeds,
        course.run_dir,
        recipe="group_scissor",
        row=row,
        title=f"Group Scissor: {row} on {course.splits.name}",
        headline="deleted" if not plan.front else "float",
        config={**asdict(plan.clipping), "measured": plan.clipping.measured.value, "wires": plan.wires}
        | {name: getattr(plan, name).to_dict() for name in ("clip", "delete", "finetune")}
        | {"keep": plan.keep, "smoke": config.smoke},
        data=course.splits.name,
        quantities=QUANTITIES,
        layers={f"Crossbars: {name}": _layer_rows(cost) for name, cost in first.costs.items()},
        charts=_front_chart(plan, seeds) if plan.front else first.charts(),
        paper=PAPER.get(row),
        command=command_line(["spokeshave", "run", "group_scissor"], config),
    )
    return close_course(record, course, config)


class _Walk:
    """One seed of a row."""

    def __init__(self, config: Config, plan: RowPlan, course: Course, seed: int) -> None:
        self.config, self.plan, self.course, self.seed = config, plan, course, seed
        self.dense, self.history = course.exact(seed)
        self.costs: dict[str, CrossbarCost] = {}
        self.rows: dict[str, list[dict[str, Any]]] = {}

    def arms(self) -> dict[str, Scored]:
        """The float network, cut to the paper's ranks, clipped, deleted; with `control` trained on for as long."""
        plan, example = self.plan, self.course.example()
        arms = {"float": self._scored("float", "float network", self.dense, {"float": self.history})}
        if self.config.control:
            arms["control"] = self._control()
        direct, _ = low_rank(copy.deepcopy(self.dense).cpu(), example.cpu(), ranks=plan.ranks, only_where_it_pays=False)
        arms["direct"] = self._scored("direct", "cut to the paper's ranks, not trained", direct, {})
        network = copy.deepcopy(self.dense)
        clipping = self._clipping(network, plan.clipping.max_error, plan.clipping.least)
        rows = {"clip": self.course.stage(self.seed, "clip", network, plan.clip, (clipping,))}
        arms["clipped"] = self._scored("clipped", "rank clipping", network, rows)
        rows = {}
        for keep in plan.keep:  # in bites: each is followed by training, the next goes by what that has made of it
            pulls = (self._lasso(network), Freeze(network, Frozen.ELEMENTS))
            stage = f"delete-{keep:g}"
            rows[stage] = self.course.stage(self.seed, stage, network, plan.delete, pulls)
            with contextlib.suppress(NothingChanged):  # the pull has left fewer wires than may stay
                network, _ = delete_connections(network.cpu(), example.cpu(), keep=keep, tiling=Tiling.DIVISOR)
        freeze = Freeze(network, Frozen.ELEMENTS)
        rows["finetune"] = self.course.stage(self.seed, "finetune", network, plan.finetune, (freeze,))
        arms["deleted"] = self._scored("deleted", "rank clipping, then connections deleted", network, rows)
        return arms

    def front(self) -> dict[str, Scored]:
        """The float network and every point of the front."""
        plan = self.plan
        arms = {"float": self._scored("float", "float network", self.dense, {"float": self.history})}
        forced = copy.deepcopy(self.dense)
        assert plan.forcing is not None
        force = Force(forced, strength=plan.forcing.strength, kind=plan.forcing.kind, layers=dict(plan.forcing.layers))
        rows = {"force": self.course.stage(self.seed, "force", forced, plan.clip, (force,))}
        arms["force"] = self._scored("force", "trained on under force", forced, rows)
        for point in plan.front:
            network = copy.deepcopy(forced if point.forced else self.dense)
            name = f"{point.label.replace(',', '').replace(' ', '-')}-{point.max_error:g}"
            errors = {"*": LINEAR * point.max_error, "conv*": point.max_error}
            clipping = self._clipping(network, errors, {}, point.clipped)
            if not point.clipped:
                clipping.clip()
            rows = {name: self.course.stage(self.seed, name, network, plan.clip, (clipping,))}
            arms[name] = self._scored(name, f"{point.label}, error {point.max_error:g}", network, rows)
        return arms

    def charts(self) -> list[Chart]:
        """Ranks over the steps of the clipping."""
        rows = self.rows["clip"]
        layers = list(rows[0]["ranks"])
        full = {name: self.dense.get_submodule(name).get_parameter("weight").shape[0] for name in layers}
        curves = [
            Curve(name, [row["step"] for row in rows], [row["ranks"][name] / full[name] for row in rows])
            for name in layers
        ]
        return [Chart("Ranks under clipping", "step", "share of full rank", curves, percent=True)]

    def _lasso(self, network: nn.Module) -> GroupLasso:
        strength = self.plan.wires
        return GroupLasso(network, tile_rows=strength, tile_columns=strength, tiling=Tiling.DIVISOR, weighting=False)

    def _control(self) -> Scored:
        plan, network = self.plan, copy.deepcopy(self.dense)
        rows = {}
        deletes = replace(plan.delete, epochs=plan.delete.epochs * len(plan.keep))
        for name, stage in {"clip": plan.clip, "delete": deletes, "finetune": plan.finetune}.items():
            rows[f"control-{name}"] = self.course.stage(self.seed, f"control-{name}", network, stage)
        return self._scored("control", "float network, trained on for as long", network, rows)

    def _clipping(
        self, network: nn.Module, max_error: Mapping[str, float], least: Mapping[str, int], clips: bool = True
    ) -> RankClipping:
        plan = self.plan.clipping
        steps = self.plan.clip.total_steps(len(self.course.training) // self.course.budget.batch_size)
        return RankClipping(
            network, max_error=max_error, least=least, every=plan.every, measured=plan.measured,
            until=round(plan.until * steps) if clips else 0, exclude=self.plan.whole,
        )  # fmt: skip

    def _scored(self, name: str, label: str, network: nn.Module, rows: Mapping[str, list[dict[str, Any]]]) -> Scored:
        cost = price(network, tiling=Tiling.DIVISOR)
        self.costs[name] = cost
        self.rows |= rows
        numbers = {
            "area_share": area_share(network, self.dense),
            "wires_share": cost.wires_share,
            "mean_routing_share": cost.mean_routing_share,
            "total_routing_share": cost.total_routing_share,
            "crossbars": cost.crossbars,
        }
        trained = self.course.score(network, [])
        return Scored(label, trained.validation, trained.test, numbers, rows)


def _layer_rows(cost: CrossbarCost) -> list[dict[str, Any]]:
    return [
        {
            "layer": layer.name, "matrix": f"{layer.inputs} x {layer.outputs}",
            "tile": f"{layer.tile_inputs} x {layer.tile_outputs}", "crossbars": layer.crossbars,
            "area_cells": layer.area_cells, "wires": layer.wires, "wires_share": layer.wires_share,
            "routing_share": layer.routing_share,
        }
        for layer in cost.layers
    ]  # fmt: skip


def _front_chart(plan: RowPlan, seeds: Mapping[int, Mapping[str, Scored]]) -> list[Chart]:
    """Test error against area, one line a way; means over the seeds."""
    lines: dict[str, list[tuple[float, float]]] = {}
    first = next(iter(seeds.values()))
    points = [name for name in first if name not in ("float", "force")]
    for name, point in zip(points, plan.front, strict=True):
        lines.setdefault(point.label, []).append(_mean_point(name, seeds))
    curves = [
        Curve(label, [area for area, _ in sorted(line)], [error for _, error in sorted(line)])
        for label, line in lines.items()
    ]
    return [Chart("Test error against crossbar area", "share of the dense area", "test error", curves, percent=True)]


def _mean_point(name: str, seeds: Mapping[int, Mapping[str, Scored]]) -> tuple[float, float]:
    found = [one[name] for one in seeds.values()]
    areas = [scored.numbers["area_share"] for scored in found]
    return sum(areas) / len(found), sum(1 - scored.test.accuracy for scored in found) / len(found)
