"""Force regularization: filters are drawn together, then layers are factorized at an error and fine-tuned.

Wen, Xu, Wu, Wang, Chen, Li: Coordinating Filters for Faster Deep Neural Networks, ICCV 2017. Two arms from one float
network, trained on under force, and for as long without; ranks are counted at 5 % PCA error; both are factorized and
fine-tuned.
Departs from the paper: a fraction of its epochs; networks for 32 x 32 images; time is measured, in turns, on the CPU.
"""

import copy
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import Enum
from fnmatch import fnmatch
from typing import Any

from torch import nn

from spokeshave.arms_course import ArmsOptions, FirstArmsOptions, close_course, open_course
from spokeshave.arms_output import Scored, write_arms
from spokeshave.dense_runtimes import times_as_fast, torch_forms
from spokeshave.equal_budget import Course
from spokeshave.errors import InexactRewrite, InvalidArgument, NothingChanged
from spokeshave.measure import measure
from spokeshave.processes import is_first
from spokeshave.recipes.force_rows import ROWS, RowPlan
from spokeshave.regularizers import Force, Pull
from spokeshave.report.arms_record import Chart, Curve
from spokeshave.rewrites.low_rank import low_rank
from spokeshave.rewrites.to_sparse import to_sparse
from spokeshave.run_output import command_line
from spokeshave.structures.rank_ratio import rank_ratio
from spokeshave.structures.tiles import CONVOLUTIONS
from spokeshave.timing import using_threads

# Percent; ResNet-20 as the first author gives it, ranks at 5 % PCA error of its 19 convolutions.
PAPER: dict[str, dict[str, Any]] = {
    "resnet20": {
        "accuracy": {"plain": 91.18, "force": 90.43},
        "mean_rank_ratio": {"plain": 0.802, "force": 0.310},
        "ranks": {
            "plain": [8, 13, 13, 14, 14, 14, 13, 23, 26, 27, 28, 28, 28, 47, 54, 56, 55, 56, 31],
            "force": [8, 9, 10, 10, 10, 9, 10, 8, 9, 9, 10, 9, 8, 2, 1, 1, 1, 1, 1],
        },
    },
}
QUANTITIES = {
    "mean_rank_ratio": "mean rank ratio",
    "flops_share": "FLOPs",
    "parameters_share": "parameters",
    "torch_speedup_batch_16": "times as fast in torch, batch 16",
    "compiled_speedup_batch_16": "times as fast by to_sparse, batch 16",
}


class Row(Enum):
    """A network, or the small demonstration."""

    DEMO = "demo"
    CONVNET = "convnet"
    RESNET20 = "resnet20"


@dataclass(frozen=True)
class Own(FirstArmsOptions):
    """Options that are the recipe's own."""

    strength: float = 0.0
    """lambda_s; below 0 filters repel each other."""
    kind: Pull | None = None
    """How pairs of filters attract each other."""
    max_error: float = 0.0
    """Share of the squared norm of a layer that ranks are counted at, 0..1."""
    cut_error: float = 0.0
    """Share that the factorization may lose before it is fine-tuned, 0..1."""
    force_epochs: int = 0
    """Epochs under force, and without it in the plain arm."""
    finetune_epochs: int = 0
    """Epochs after the factorization."""


@dataclass(frozen=True)
class Config(ArmsOptions, Own):
    """Options of the force regularization recipe; 0 or nothing means what the row has."""

    row: Row = Row.DEMO
    """Network."""


def plan_of(config: Config) -> RowPlan:
    """The plan of a row, with what the options change.

    Raises:
        InvalidArgument: for a number out of its range, or no seed.
    """
    plan = ROWS[config.row.value]()
    lengths = {"force": config.force_epochs, "finetune": config.finetune_epochs}
    errors = (config.max_error, config.cut_error)
    if min(lengths.values()) < 0 or not all(0 <= error < 1 for error in errors) or not config.seeds:
        raise InvalidArgument(
            f"expected epochs of at least 0, --max-error and --cut-error of 0..1 and at least one seed, got {lengths}, "
            f"{errors} and {config.seeds}"
        )
    stages = {
        name: replace(getattr(plan, name), epochs=length or getattr(plan, name).epochs, steps=2 if config.smoke else 0)
        for name, length in lengths.items()
    }
    return replace(
        plan, **stages, strength=config.strength or plan.strength, kind=config.kind or plan.kind,
        max_error=config.max_error or plan.max_error, cut_error=config.cut_error or plan.cut_error,
    )  # fmt: skip


def run(config: Config) -> dict[str, Any]:
    """Train both arms of one row, factorize, fine-tune and time them.

    Returns:
        The run's record as JSON values; nothing in all processes but the first.

    Raises:
        SpokeshaveError: what is wrong with the options, the data, the run's folder or the training.
    """
    plan, row = plan_of(config), config.row.value
    course = open_course(config, "force", plan.start())
    walks = {seed: _Walk(plan, course, seed) for seed in config.seeds}
    seeds = {seed: walk.arms() for seed, walk in walks.items()}
    if not is_first():
        return {}
    first = walks[config.seeds[0]]
    record = write_arms(
        seeds,
        course.run_dir,
        recipe="force",
        row=row,
        title=f"Force regularization: {row} on {course.splits.name}",
        headline="force-low-rank",
        config={
            "strength": plan.strength, "kind": plan.kind.value,
            "max_error": plan.max_error, "cut_error": plan.cut_error,
            "force": plan.force.to_dict(), "finetune": plan.finetune.to_dict(), "smoke": config.smoke,
        },
        data=course.splits.name,
        quantities=QUANTITIES,
        layers={f"Ranks at {plan.max_error:.0%} error": first.rank_rows()},
        charts=[first.rank_chart()],
        paper=PAPER.get(row),
        command=command_line(["spokeshave", "run", "force"], config),
    )  # fmt: skip
    return close_course(record, course, config)


class _Walk:
    """One seed of a row."""

    def __init__(self, plan: RowPlan, course: Course, seed: int) -> None:
        self.plan, self.course, self.seed = plan, course, seed
        self.dense, self.history = course.exact(seed)
        self.forced = {
            name: 1.0
            for name, module in self.dense.named_modules()
            if isinstance(module, CONVOLUTIONS) and not any(fnmatch(name, pattern) for pattern in plan.whole)
        }
        # As the first author counts: every convolution but the shortcuts.
        self.counted = [
            name
            for name, module in self.dense.named_modules()
            if isinstance(module, CONVOLUTIONS) and not fnmatch(name, "*.downsampling")
        ]
        self.ranks: dict[str, dict[str, int]] = {}
        self.cut: dict[str, dict[str, int]] = {}

    def arms(self) -> dict[str, Scored]:
        """Float, then plain and forced, each as it is and factorized."""
        arms = {"float": self._scored("float", "float network", self.dense, {"float": self.history})}
        for name, label, strength in (
            ("plain", "trained on without force", 0.0),
            ("force", "trained on under force", self.plan.strength),
        ):
            network = copy.deepcopy(self.dense)
            force = Force(network, strength=strength, kind=self.plan.kind, layers=self.forced)
            rows = {name: self.course.stage(self.seed, name, network, self.plan.force, (force,))}
            arms[name] = self._scored(name, label, network, rows)
            arms[f"{name}-low-rank"] = self._low_rank(f"{name}-low-rank", f"{label}, factorized", network)
        return arms

    def rank_rows(self) -> list[dict[str, Any]]:
        """Ranks at the error that they are counted at, then those of the factorized networks, one layer a row."""
        full = {name: self.dense.get_submodule(name).get_parameter("weight").shape[0] for name in self.counted}
        return [
            {"layer": name, "full": most}
            | {arm: ranks[name] for arm, ranks in self.ranks.items()}
            | {arm: ranks.get(name, most) for arm, ranks in self.cut.items()}
            for name, most in full.items()
        ]

    def rank_chart(self) -> Chart:
        """Rank ratios over the layers."""
        rows = self.rank_rows()
        places = [float(place) for place in range(1, len(rows) + 1)]
        curves = [Curve(arm, places, [row[arm] / row["full"] for row in rows], arm != "force") for arm in self.ranks]
        title = f"Ranks at {self.plan.max_error:.0%} PCA error"
        return Chart(title, "layer", "share of full rank", curves, percent=True)

    def _low_rank(self, name: str, label: str, network: nn.Module) -> Scored:
        example = self.course.example().cpu()
        network = copy.deepcopy(network).cpu().eval()
        try:
            small, report = low_rank(
                network, example.repeat(8, 1, 1, 1), max_error=self.plan.cut_error, exclude=self.plan.whole
            )
            split = {layer.name: layer.rank for layer in report.layers if layer.rank is not None}
        except NothingChanged:  # no layer gains at this error: the network goes on as it is
            small, split = network, {}
        self.cut[name] = split
        rows = {name: self.course.stage(self.seed, name, small, self.plan.finetune)}
        return self._scored(name, label, small, rows, timed=True)

    def _speedups(self, dense: nn.Module, network: nn.Module, in_torch: bool) -> dict[str, float]:
        """Over the float network in the best of torch's forms, on one thread; what cannot be compiled has no number."""
        images = self.course.example().cpu().repeat(16, 1, 1, 1)[:16]
        others = torch_forms(network, images) if in_torch else {}
        with using_threads(1), suppress(NothingChanged, InexactRewrite):
            compiled, report = to_sparse(network, images, tolerance=1e-4)
            others |= {"compiled": compiled} if report.vectors else {}
        if not others:
            return {}
        repeats = 5 if self.plan.force.steps else 20  # a smoke run's times mean nothing
        fast = {name: ratio for name, (ratio, _) in times_as_fast(dense, others, images, repeats=repeats).items()}
        found = {"compiled_speedup_batch_16": fast.pop("compiled")} if "compiled" in fast else {}
        return found | ({"torch_speedup_batch_16": max(fast.values())} if fast else {})

    def _scored(
        self, name: str, label: str, network: nn.Module, rows: Mapping[str, list[dict[str, Any]]], timed: bool = False
    ) -> Scored:
        example = self.course.example().cpu()[:1]
        plain = copy.deepcopy(network).cpu().eval()
        dense = copy.deepcopy(self.dense).cpu().eval()
        numbers: dict[str, float] = {}
        if not timed:
            ratio = rank_ratio(plain, self.plan.max_error)
            self.ranks[name] = {layer: ratio.ranks[layer] for layer in self.counted}
            numbers["mean_rank_ratio"] = sum(ratio.ratios[layer] for layer in self.counted) / len(self.counted)
        else:
            before, after = (measure(one, example, latency=False) for one in (dense, plain))
            numbers["flops_share"] = after.flops / before.flops
            numbers["parameters_share"] = after.parameters / before.parameters
        if is_first() and (timed or name == "float"):
            numbers |= self._speedups(dense, plain, timed)
        trained = self.course.score(network, [])
        return Scored(label, trained.validation, trained.test, numbers, rows)
