"""The arms of recipe `one_level`: what each does to the float network of a seed, with every stage trained once.

Quantization (plain: one g for the whole network; distribution-aware: one for each layer), regularization before it,
bias tuning after it, straight-through training in place of both.
"""

import copy
from collections.abc import Mapping
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn

from spokeshave.arms_output import Scored
from spokeshave.data import Batches
from spokeshave.equal_budget import Course
from spokeshave.errors import NothingChanged
from spokeshave.export import safetensors_bytes
from spokeshave.files import atomic_write
from spokeshave.processes import is_first
from spokeshave.recipes.one_level_rows import RowPlan
from spokeshave.regularizers import LevelSolver, OneLevel, StraightThrough
from spokeshave.report.arms_record import Chart, Curve
from spokeshave.rewrites import one_level, tune_biases
from spokeshave.rewrites.bias_tuning import biased_layers, only_biases
from spokeshave.structures.groups import CONVOLUTIONS
from spokeshave.structures.magnitude_mask import Scope

_BINS = 60
_MATCHED_IMAGES = 5000
Rows = dict[str, list[dict[str, Any]]]
Trained = tuple[nn.Module, Rows, dict[str, float]]


class ArmName(Enum):
    """Ways to one level; the float network is always among the arms."""

    CONTROL = "control"
    PLAIN = "plain"
    DQ = "dq"
    DQ_MEANS = "dq-means"
    DQ_BT = "dq-bt"
    QR = "qr"
    DQ_QR = "dq-qr"
    DQ_QR_BT = "dq-qr-bt"
    ST = "st"
    ST_BT = "st-bt"


LABELS = {
    ArmName.CONTROL: "float network trained on for as long",
    ArmName.PLAIN: "rounded, one g for all layers",
    ArmName.DQ: "distribution-aware quantization (one g for each layer), no more",
    ArmName.DQ_MEANS: "DQ, then biases that restore the mean of every neuron",
    ArmName.DQ_BT: "DQ, then bias tuning",
    ArmName.QR: "quantization regularization, one g for all layers",
    ArmName.DQ_QR: "quantization regularization, one g for each layer",
    ArmName.DQ_QR_BT: "quantization regularization, one g for each layer, then bias tuning",
    ArmName.ST: "straight-through training, one g for each layer",
    ArmName.ST_BT: "straight-through training, then bias tuning",
}


class Walk:
    """One seed of a row.

    Args:
        plan: of the row.
        course: data and float network.
        seed: of the float network.
    """

    def __init__(self, plan: RowPlan, course: Course, seed: int) -> None:
        self.plan, self.course, self.seed = plan, course, seed
        self.dense, history = course.exact(seed)
        self._history = history
        self._trained: dict[str, Trained] = {}

    @property
    def stages(self) -> set[str]:
        """Names of the stages that were trained."""
        return set(self._trained)

    def arms(self, names: tuple[ArmName, ...]) -> dict[str, Scored]:
        """The float network, then these arms; the weights of each stay in `run_dir`/seed-<seed>/weights."""
        self.networks: dict[str, nn.Module] = {}
        scored = {"float": self._scored("float network", self.dense, {"float": self._history}, {})}
        self._keep("float", self.dense)
        for name in names:
            network, rows, numbers = self._arm(name)
            self.networks[name.value] = network
            self._keep(name.value, network)
            scored[name.value] = self._scored(LABELS[name], network, rows, numbers)
        return scored

    def pulled(self, scope: Scope, strength: float | None = None, stage: str = "") -> Trained:
        """The float network trained on under the pull to the levels, not yet rounded.

        Args:
            scope: one g for each layer, or for all.
            strength: None for the plan's.
            stage: name of the stage; by default that of the arm.

        Returns:
            (network, history by stage, how far its weights are from the levels).
        """
        stage = stage or (ArmName.QR if scope is Scope.GLOBAL else ArmName.DQ_QR).value
        if stage not in self._trained:
            network, settings = copy.deepcopy(self.dense), self.plan.pull
            steps = settings.total_steps(len(self.course.training.labels) // self.course.budget.batch_size)
            pull = OneLevel(
                network, self.plan.strength if strength is None else strength, scope=scope,
                solver=LevelSolver.PROXIMAL, ramp=round(self.plan.ramp * steps), relative=True,
            )  # fmt: skip
            rows = self.course.stage(self.seed, stage, network, settings, (pull,))
            far = {f"apart_{name}": value for name, value in pull.distances().items()}
            self._trained[stage] = network, {stage: rows}, {"apart_share": sum(far.values()) / len(far)}
        return self._trained[stage]

    def rounded(self, network: nn.Module, scope: Scope = Scope.LAYER) -> nn.Module:
        """The network with every weight at its level."""
        try:
            return one_level(network, self.course.example(), scope=scope)[0]
        except NothingChanged:  # the pull has brought all of them there
            return copy.deepcopy(network)

    def _arm(self, name: ArmName) -> Trained:
        if name is ArmName.CONTROL:
            network = copy.deepcopy(self.dense)
            return network, {name.value: self.course.stage(self.seed, name.value, network, self.plan.control)}, {}
        if name is ArmName.PLAIN:
            return self.rounded(self.dense, Scope.GLOBAL), {}, {}
        if name is ArmName.DQ:
            return self.rounded(self.dense), {}, {}
        if name is ArmName.DQ_MEANS:
            few = self.course.training.subset(torch.arange(min(_MATCHED_IMAGES, len(self.course.training))))
            budget, device = self.course.budget, self.course.device
            images = Batches(few, 500, 0, budget.normalize, None, device, shuffle=False)
            return tune_biases(self.rounded(self.dense), images, reference=self.dense)[0], {}, {}
        if name is ArmName.ST:
            return self._straight_through()
        if name in (ArmName.QR, ArmName.DQ_QR):
            scope = Scope.GLOBAL if name is ArmName.QR else Scope.LAYER
            network, rows, numbers = self.pulled(scope)
            return self.rounded(network, scope), rows, numbers
        before = {ArmName.DQ_BT: ArmName.DQ, ArmName.DQ_QR_BT: ArmName.DQ_QR, ArmName.ST_BT: ArmName.ST}[name]
        network, rows, numbers = self._arm(before)
        network = copy.deepcopy(network)
        only_biases(network, biased_layers(copy.deepcopy(network).eval(), self.course.example())[0])
        tuned = self.course.stage(self.seed, name.value, network, self.plan.bias)
        return network, rows | {name.value: tuned}, numbers

    def _straight_through(self) -> Trained:
        stage = ArmName.ST.value
        if stage not in self._trained:
            network = copy.deepcopy(self.dense)
            training = StraightThrough(network, refresh=20)
            rows = self.course.stage(self.seed, stage, network, self.plan.through, (training,))
            training.finish()
            self._trained[stage] = network, {stage: rows}, {}
        return self._trained[stage]

    def _keep(self, name: str, network: nn.Module) -> None:
        """Write the weights as `load_safetensors` and the command line read them."""
        if is_first():
            path = self.course.run_dir / f"seed-{self.seed}" / "weights" / f"{name}.safetensors"
            atomic_write(path, safetensors_bytes(network))

    def _scored(self, label: str, network: nn.Module, rows: Rows, numbers: Mapping[str, float]) -> Scored:
        trained = self.course.score(network, [])
        levels = {name: weight.unique().numel() for name, weight in weights_of(network).items()}
        found = dict(numbers)
        if max(levels.values()) <= 3:
            everything = torch.cat([weight.flatten() for weight in weights_of(network).values()])
            found |= {"zero_share": float((everything == 0).double().mean()), "values": max(levels.values())}
        return Scored(label, trained.validation, trained.test, found, rows)


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    """Weights of convolutions and linear layers, by the layer's name."""
    layers = {n: m for n, m in network.named_modules() if isinstance(m, (*CONVOLUTIONS, nn.Linear))}
    return {name: module.get_parameter("weight").detach().cpu() for name, module in layers.items()}


def level_rows(network: nn.Module) -> list[dict[str, Any]]:
    """g and the shares of the levels of each layer of a quantized network."""
    return [
        {
            "layer": name,
            "weights": weight.numel(),
            "g": float(weight.abs().max()),
            "zero_share": float((weight == 0).double().mean()),
            "plus_share": float((weight > 0).double().mean()),
            "minus_share": float((weight < 0).double().mean()),
        }
        for name, weight in weights_of(network).items()
    ]


def weight_charts(before: nn.Module, pulled: nn.Module, after: nn.Module) -> list[Chart]:
    """Histograms of each layer's weights: of the float network, under the pull, and the levels.

    Args:
        before: the float network.
        pulled: trained under quantization regularization, not yet rounded.
        after: at its levels.
    """
    charts = []
    for name, weight in weights_of(before).items():
        trained, level = weights_of(pulled)[name], weights_of(after)[name]
        edge = 1.02 * max(float(one.abs().max()) for one in (weight, trained, level)) or 1.0
        curves = [_histogram("float", weight, edge, dashed=True), _histogram("under the pull", trained, edge)]
        least = 0.5 / weight.numel()
        xs, ys = [], []
        for value in sorted(level.unique().tolist()):
            xs += [value] * 3
            ys += [least, float((level == value).double().mean()), None]
        charts.append(Chart(name, "weight", "share of weights", [*curves, Curve("levels", xs, ys)], True, True))
    return charts


def _histogram(label: str, weight: Tensor, edge: float, dashed: bool = False) -> Curve:
    counts = torch.histc(weight.float(), _BINS, -edge, edge).double() / weight.numel()
    width = 2 * edge / _BINS
    middles = [-edge + width * (place + 0.5) for place in range(_BINS)]
    return Curve(label, middles, [share or None for share in counts.tolist()], dashed)
