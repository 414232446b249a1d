"""The arms of recipe `truenorth`: ways to learn connections, each deployed for every number of copies and spikes.

Plain Tea is the reference. All arms of a seed begin with the same probabilities and train for as long (replicas have
more of them), but for rows whose rounded arm goes on from the network that Tea trained; a test accuracy is that of a
simulated chip, a mean over several draws of all connections, which are the same for all arms.
"""

from collections.abc import Mapping, Sequence
from enum import Enum
from functools import cached_property
from statistics import mean
from typing import Any, cast

import torch
from torch import Tensor

from spokeshave.arms_output import Scored
from spokeshave.data import Batches
from spokeshave.equal_budget import Course
from spokeshave.evaluation import Evaluation, evaluate
from spokeshave.export import safetensors_bytes
from spokeshave.files import atomic_write
from spokeshave.processes import is_first
from spokeshave.recipes.truenorth_rows import RowPlan
from spokeshave.regularizers import Penalty, ProbabilityBias
from spokeshave.report.arms_record import Chart, Curve
from spokeshave.report.connection_probabilities import probabilities_by_layer
from spokeshave.targets.truenorth.deployed_network import TrueNorth
from spokeshave.targets.truenorth.tea_layer import Synapses
from spokeshave.targets.truenorth.tea_network import TeaNetwork

SIDE = 16
"""Copies, and spikes per frame, up to which accuracies are measured."""
LIKE_COPIES, LIKE_SPIKES = 16, 13
"""Plain Tea's numbers of both in the paper's comparisons: 16 copies, 13 spikes per frame."""
_VALIDATION = 500
"""Draws on the validation split are numbered from here on."""


class ArmName(Enum):
    """Ways to learn; plain Tea is always among the arms."""

    L1 = "l1"
    BIAS = "bias"
    VARIANCE = "variance"
    ROUNDED = "rounded"
    WIDE = "wide"
    WIDE_ROUNDED = "wide-rounded"


LABELS = {
    ArmName.L1: "Tea and an L1 penalty",
    ArmName.BIAS: "Tea and the paper's biasing penalty",
    ArmName.VARIANCE: "Tea and the variance penalty p (1 - p)",
    ArmName.ROUNDED: "straight-through training of rounded connections on drawn input spikes",
    ArmName.WIDE: "plain Tea with several cores for each block, which learn connections of their own",
    ArmName.WIDE_ROUNDED: "straight-through training of the same",
}
TEA, TEA_LABEL = "tea", "plain Tea learning"
_PENALTIES = {ArmName.L1: Penalty.L1, ArmName.BIAS: Penalty.BIAS, ArmName.VARIANCE: Penalty.VARIANCE}


class Walk:
    """One seed of a row.

    Args:
        plan: of the row.
        course: data and budget of plain Tea.
        seed: of the first probabilities, and of deployments.
        smoke: deploy a few copies on a few images only.
    """

    def __init__(self, plan: RowPlan, course: Course, seed: int, smoke: bool = False) -> None:
        self.plan, self.course, self.seed = plan, course, seed
        self.side, self.draws = (2, 1) if smoke else (SIDE, plan.draws)
        self.networks: dict[str, TeaNetwork] = {}
        self.grids: dict[str, Tensor] = {}

    @cached_property
    def _tea(self) -> tuple[TeaNetwork, list[dict[str, Any]]]:
        network, history = self.course.exact(self.seed)
        return cast(TeaNetwork, network), history

    def arms(self, names: tuple[ArmName, ...]) -> dict[str, Scored]:
        """Plain Tea, then these arms; the weights of each stay in `run_dir`/seed-<seed>/weights."""
        network, history = self._tea
        scored = {TEA: self._scored(TEA, TEA_LABEL, network, {TEA: history})}
        for name in names:
            for replicas in self.plan.replicas if name in (ArmName.WIDE, ArmName.WIDE_ROUNDED) else (1,):
                arm = f"{name.value}-{replicas}" if replicas > 1 else name.value
                network, history = self.trained(name, arm, replicas)
                label = f"{LABELS[name]} ({replicas} each)" if replicas > 1 else LABELS[name]
                if name is ArmName.ROUNDED and self.plan.rounded_from_tea:
                    label += ", from where Tea ended"
                scored[arm] = self._scored(arm, label, network, {arm: history})
        return scored

    def trained(
        self, name: ArmName, arm: str, replicas: int = 1, strength: float | None = None
    ) -> tuple[TeaNetwork, list[dict[str, Any]]]:
        """The network of an arm, and the history of its training.

        Args:
            name: of the arm.
            arm: of the stage's folder.
            replicas: cores for each block.
            strength: of its penalty; None for the plan's.
        """
        network = self._new(replicas)
        if name in _PENALTIES:
            batches = len(self.course.training.labels) // self.course.budget.batch_size
            steps = self.course.budget.settings.total_steps(batches)
            power = getattr(self.plan, name.value) if strength is None else strength
            pull = ProbabilityBias(network, power, penalty=_PENALTIES[name], ramp=steps)
            return network, self.course.stage(self.seed, arm, network, self.course.budget.settings, (pull,))
        if name is ArmName.WIDE:
            return network, self.course.stage(self.seed, arm, network, self.course.budget.settings)
        if self.plan.rounded_from_tea and replicas == 1:
            network.load_state_dict(self._tea[0].state_dict())
        network.use(Synapses.ROUNDED)
        history = self.course.stage(self.seed, arm, network, self.course.budget.settings)
        return network.settle(), history

    def validated(self, network: TeaNetwork) -> float:
        """Accuracy on the validation split of one copy with one spike per frame: what strengths are chosen by."""
        return self._single(network).accuracy

    def _new(self, replicas: int) -> TeaNetwork:
        torch.manual_seed(self.seed)
        return cast(TeaNetwork, self.plan.start(replicas).network())

    def _single(self, network: TeaNetwork) -> Evaluation:
        """On the validation split, with draws that the test split does not see."""
        held_out = Batches(self.course.validation, 1024, 0, self.course.budget.normalize, None, shuffle=False)
        chips = [TrueNorth(seed=self._seed(_VALIDATION + draw)) for draw in range(self.draws)]
        found = [float(chip.map(network.eval()).accuracy_grid(held_out)[0, 0]) for chip in chips]
        return _accuracy(sum(found) / len(found), len(self.course.validation.labels))

    def _seed(self, draw: int) -> int:
        return 1000 * self.seed + draw

    def _scored(self, arm: str, label: str, network: TeaNetwork, rows: dict[str, list[dict[str, Any]]]) -> Scored:
        network = network.cpu().eval()
        self.networks[arm] = network
        if is_first():
            path = self.course.run_dir / f"seed-{self.seed}" / "weights" / f"{arm}.safetensors"
            atomic_write(path, safetensors_bytes(network))
        test = Batches(self.course.splits.test, 1024, 0, self.course.budget.normalize, None, shuffle=False)
        grids = [
            TrueNorth(self.side, self.side, seed=self._seed(draw)).map(network).accuracy_grid(test)
            for draw in range(self.draws)
        ]
        grid = self.grids[arm] = torch.stack(grids).mean(0)
        floating = evaluate(network, test)
        return Scored(
            label,
            self._single(network),
            _accuracy(float(grid[0, 0]), floating.images),
            self._numbers(network, floating.accuracy, grid),
            rows,
        )

    def _numbers(self, network: TeaNetwork, floating: float, grid: Tensor) -> dict[str, float]:
        layers = probabilities_by_layer(network)
        crosspoints = sum(layer.synapses for layer in layers)
        found = {
            "float_error_share": 1 - floating,
            "lost_share": floating - float(grid[0, 0]),
            "cores": float(network.cores),
            "variance": sum(layer.variance * layer.synapses for layer in layers) / crosspoints,
        }
        for number in range(self.side):
            found[f"error_{number + 1}_copies_share"] = 1 - float(grid[number, 0])
            found[f"error_{number + 1}_spikes_share"] = 1 - float(grid[0, number])
        return found | {"error_all_share": 1 - float(grid[-1, -1])}


def _accuracy(accuracy: float, images: int) -> Evaluation:
    """Of a chip, whose votes have no cross entropy."""
    return Evaluation(accuracy, float("nan"), images)


def first_reaching(errors: Sequence[float], wanted: float) -> int | None:
    """Least number, from 1, with at most this error; None where there is none.

    Example:
        >>> first_reaching([0.2, 0.1, 0.05], 0.1), first_reaching([0.5], 0.1)
        (2, None)
    """
    return next((number + 1 for number, error in enumerate(errors) if error <= wanted + 1e-9), None)


def equal_accuracy(arms: Mapping[str, Sequence[Mapping[str, float]]]) -> list[dict[str, Any]]:
    """What each arm needs for the accuracy of many copies, or many spikes per frame, of plain Tea; by means over seeds.

    Args:
        arms: name -> numbers of each seed, as `Walk.arms` scores them; plain Tea first.

    Returns:
        A row for each arm: copies and cores with one spike per frame, spikes per frame with one copy; "-" where none
        that was measured suffices.
    """
    means = {
        arm: {name: mean(one[name] for one in seeds) for name in seeds[0] if all(name in one for one in seeds)}
        for arm, seeds in arms.items()
    }
    side = max(number for number in range(1, SIDE + 1) if f"error_{number}_copies_share" in next(iter(means.values())))
    copies, spikes = min(LIKE_COPIES, side), min(LIKE_SPIKES, side)
    tea, rows = next(iter(means.values())), []
    for arm, found in means.items():
        by_copies, by_spikes = (
            [found[f"error_{number}_{what}_share"] for number in range(1, side + 1)] for what in ("copies", "spikes")
        )
        enough = first_reaching(by_copies, tea[f"error_{copies}_copies_share"])
        ticks = first_reaching(by_spikes, tea[f"error_{spikes}_spikes_share"])
        cores = None if enough is None else enough * found["cores"]
        rows.append({
            "arm": arm,
            "copies": enough or "-",
            "cores": "-" if cores is None else cores,
            "cores_saved_share": "-" if cores is None else 1 - cores / (copies * tea["cores"]),
            "spikes": ticks or "-",
            "times_fewer_spikes": "-" if ticks is None else spikes / ticks,
        })  # fmt: skip
    return rows


def deployed_charts(walks: dict[int, Walk]) -> list[Chart]:
    """Test error against cores with one spike per frame, and against spikes per frame with one copy; means of seeds."""
    first = next(iter(walks.values()))
    means = {arm: torch.stack([walk.grids[arm] for walk in walks.values()]).mean(0) for arm in first.grids}
    numbers = range(1, first.side + 1)
    by_cores = [
        Curve(arm, [float(n * first.networks[arm].cores) for n in numbers], (1 - grid[:, 0]).tolist())
        for arm, grid in means.items()
    ]
    by_spikes = [Curve(arm, [float(n) for n in numbers], (1 - grid[0]).tolist()) for arm, grid in means.items()]
    most = max(curve.xs[-1] for curve in by_cores[:1])
    cut = [
        Curve(curve.label, [x for x in curve.xs if x <= most], curve.ys[: sum(x <= most for x in curve.xs)])
        for curve in by_cores
    ]
    return [
        Chart("Test error against cores, one spike per frame", "cores of all copies", "test error", cut, percent=True),
        Chart(
            "Test error against spikes per frame, one copy", "spikes per frame", "test error", by_spikes, percent=True
        ),
    ]
