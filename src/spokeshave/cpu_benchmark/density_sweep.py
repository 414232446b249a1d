"""Density sweep: how much faster than dense a convolution is at every density, predicted and, at a few, measured.

Park et al., ICLR 2017, section 2.2 and figure 2: below the density 1 / alpha direct sparse code computes less than
dense code; below a second one memory takes the time, and more zeros gain little.
Departs from the paper: alpha and the level of memory change along the curve, as the planner's do; the bounds are
where the curve itself crosses over.
"""

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from spokeshave.cpu_benchmark.dense_paths import Activations, TorchPaths, TorchStep
from spokeshave.cpu_benchmark.layer_paths import FEWEST, seconds_of
from spokeshave.jit.host_cpu import VectorSet
from spokeshave.structures.magnitude_mask import magnitude_mask
from spokeshave.structures.roofline_model import LayerWork
from spokeshave.targets.cpu_sparse.layer_profile import Timing
from spokeshave.targets.cpu_sparse.network_steps import Convolve, NetworkSteps
from spokeshave.targets.cpu_sparse.planner import LayerPlan, plan_layer, plan_network
from spokeshave.targets.cpu_sparse.roofline import Roofline
from spokeshave.targets.cpu_sparse.segment import Segment
from spokeshave.targets.cpu_sparse.stored_weight import StoredWeight

DENSITIES = (0.02, 0.05, 0.1, 0.2, 0.4)
"""Shares of nonzeros that are measured, as far as the layer has so many."""
GRID = tuple(float(x) for x in np.geomspace(0.01, 1.0, 61))
"""Where the curve is predicted."""


@dataclass(frozen=True)
class DensityPoint:
    """One measured density: what dense and direct sparse code take for one batch."""

    x: float
    dense: Timing
    direct: Timing

    @property
    def speedup(self) -> float:
        """Dense time over direct sparse time."""
        return self.dense.median_s / self.direct.median_s


@dataclass(frozen=True)
class DensityCurve:
    """Speedup of one layer against its density.

    Attributes:
        layer: its name.
        xs: densities, rising.
        predicted: speedup at each.
        lower_bound: highest density at which direct sparse code is predicted to compute no longer than dense code.
        upper_bound: highest density at which memory is predicted to take the time; 0 where it never does.
        points: measured.
    """

    layer: str
    xs: tuple[float, ...]
    predicted: tuple[float, ...]
    lower_bound: float
    upper_bound: float
    points: tuple[DensityPoint, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """The curve as plain dicts, lists, numbers and strings."""
        points = [dataclasses.asdict(point) | {"speedup": point.speedup} for point in self.points]
        return dataclasses.asdict(self) | {"xs": list(self.xs), "predicted": list(self.predicted), "points": points}


def predicted_curve(work: LayerWork, roofline: Roofline, images: int) -> DensityCurve:
    """What the planner's model says of a layer at every density.

    Args:
        work: of the layer.
        roofline: of the machine.
        images: in a batch.
    """
    plans: list[LayerPlan] = [plan_layer(work, work.name, x, x, roofline, images) for x in GRID]
    return DensityCurve(
        work.name,
        GRID,
        tuple(plan.predicted_speedup for plan in plans),
        max((plan.x for plan in plans if plan.x <= plan.lower_bound), default=0.0),
        max((plan.x for plan in plans if plan.x <= plan.upper_bound), default=0.0),
    )


def sweep_densities(
    network: NetworkSteps,
    roofline: Roofline,
    vectors: VectorSet,
    images: int,
    layers: int,
    repeats: int,
    budget_s: float,
    tune_s: float,
) -> list[DensityCurve]:
    """Predict and measure the convolutions with the most FLOPs; their own weights are pruned by magnitude.

    Args:
        network: steps, with weights as dense as they are to be had.
        roofline: of the machine, for as many threads as torch uses.
        vectors: set of instructions.
        images: in a batch.
        layers: at most so many.
        repeats: rounds, at least 1.
        budget_s: seconds that the rounds of one layer may take.
        tune_s: seconds that tuning may take for each density and layout.

    Returns:
        the curves, in the network's order.
    """
    steps = [step for step in network.steps if isinstance(step, Convolve)]
    works = {plan.output: plan.work for plan in plan_network(network, roofline, images)}
    chosen = sorted(steps, key=lambda step: -works[step.output].flops_per_image)[:layers]
    activations = Activations(network, images)
    curves = []
    for step in steps:
        if step in chosen:
            points = _measured(step, network, vectors, activations, repeats, budget_s, tune_s)
            curves.append(dataclasses.replace(predicted_curve(works[step.output], roofline, images), points=points))
    return curves


def _measured(
    step: Convolve,
    network: NetworkSteps,
    vectors: VectorSet,
    activations: Activations,
    repeats: int,
    budget_s: float,
    tune_s: float,
) -> tuple[DensityPoint, ...]:
    weight = step.weight.dense()
    masks = [magnitude_mask(torch.from_numpy(weight), 1 - x).numpy() for x in DENSITIES if x < step.weight.density]
    pruned = [StoredWeight.of(weight * mask) for mask in masks]
    alone = dataclasses.replace(network, inputs=list(dict.fromkeys(step.inputs)), outputs=[step.output])
    segments = {}
    for kept in (*pruned, step.weight):
        thin = dataclasses.replace(step, weight=kept)
        segments[kept.density] = Segment(dataclasses.replace(alone, steps=[thin]), vectors, tune_s)
    paths = TorchPaths.of(step, network)
    arrays = [value.numpy() for value in activations.of(step)][: len(alone.inputs)]
    dense: Sequence[tuple[TorchStep, bool]] = [(paths.dense, False)]
    dense = dense if paths.dense_last is None else [*dense, (paths.dense_last, True)]
    times: list[list[float]] = [[] for _ in (*dense, *segments)]

    def turn(keep: bool) -> None:
        elapsed = []
        for form, last in dense:
            values = activations.of(step, last)
            elapsed.append(seconds_of(lambda form=form, values=values: form(*values)))
        for segment in segments.values():
            seconds: dict[str, float] = {}
            segment(arrays, None, seconds)
            elapsed.append(seconds[step.output])
        for kept, sample in zip(times, elapsed, strict=True):
            if keep:
                kept.append(sample)

    with torch.inference_mode():
        turn(keep=False)
        begin = time.perf_counter()
        for round_ in range(repeats):
            turn(keep=True)
            if round_ + 1 >= FEWEST and time.perf_counter() - begin > budget_s:
                break
    timings = [Timing.of(samples) for samples in times]
    best = min(timings[: len(dense)], key=lambda timing: timing.median_s)
    return tuple(DensityPoint(x, best, timing) for x, timing in zip(segments, timings[len(dense) :], strict=True))
