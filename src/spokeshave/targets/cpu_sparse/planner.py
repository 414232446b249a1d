"""Planner: which layer runs as direct sparse code and which dense, decided by the roofline of this machine.

Park et al., ICLR 2017, section 2.2: direct sparse wins where max(alpha x C / F, (S_A + beta x S_W) / B) < C / F.
Departs from the paper: alpha falls as the share of nonzeros x grows, as measured; a dense layer in the middle of a
sparse network also pays for changing the layout of its activations twice; the squeezed layer (zero rows and columns
left out, the rest dense) is predicted beside the two, for comparison: direct sparse code does no work there either;
where the prediction is for dense, torch is timed on that very layer, since F is far lower with few channels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from math import prod

import numpy as np

from spokeshave.structures.roofline_model import LayerWork, lower_bound, upper_bound
from spokeshave.targets.cpu_sparse.network_steps import Convolve, Multiply, NetworkSteps
from spokeshave.targets.cpu_sparse.nonzero_finder import CHUNK
from spokeshave.targets.cpu_sparse.roofline import BYTES_A_NONZERO, Level, Roofline
from spokeshave.targets.cpu_sparse.stored_weight import StoredWeight

SWITCH_S = 40e-6
"""Leaving generated code for one layer in torch and coming back: two calls more, and what torch spends on its own."""
CLEARLY = 0.9
"""A dense layer has to be predicted at least this much faster: the prediction is not better than that."""


class Path(Enum):
    """How a layer can run."""

    DIRECT = "direct sparse"
    DENSE = "dense"
    SQUEEZED = "squeezed dense"


@dataclass(frozen=True)
class LayerPlan:
    """What was decided for one layer, and why.

    Attributes:
        layer: its name.
        output: name of the value that it makes.
        path: how it runs.
        work: FLOPs and bytes of the dense layer, for one image.
        x: share of nonzero weights, 0 to 1.
        left: share of the weights in rows and columns that are not all zero.
        predicted_s: path -> seconds for one batch.
        lower_bound: x above which sparse code computes longer than dense code.
        upper_bound: x below which memory takes the time; infinite where it always does.
        why: the decision in words.
        measured_s: what torch took for the dense layer; none where it was not timed.
    """

    layer: str
    output: str
    path: Path
    work: LayerWork
    x: float
    left: float
    predicted_s: dict[Path, float]
    lower_bound: float
    upper_bound: float
    why: str
    measured_s: float | None = None

    @property
    def predicted_speedup(self) -> float:
        """Dense time over direct sparse time."""
        return self.predicted_s[Path.DENSE] / self.predicted_s[Path.DIRECT]


@dataclass(frozen=True)
class CloserLook:
    """Measurements for layers that would run dense: the rate of one typical layer says little about thin ones.

    Attributes:
        roofline: the given one with the rates of thin layers.
        dense_s: how long torch takes for a step.
    """

    roofline: Callable[[Roofline], Roofline]
    dense_s: Callable[[Convolve | Multiply], float]


def left_over(weight: StoredWeight, groups: int = 1) -> float:
    """Share of a weight that is left when all-zero rows and columns of its lowered matrix are dropped.

    Args:
        weight: [filters, ...]; the columns are those of each group.
        groups: into which the filters fall.

    Example:
        >>> left_over(StoredWeight.of(np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 0.0], [3.0, 0.0]], np.float32)))
        0.375
    """
    columns, height = max(1, prod(weight.shape[1:])), max(1, len(weight) // groups)
    places = weight.places
    begins = (np.arange(len(weight)) * columns).astype(places.dtype)  # of another kind, all would be copied
    borders = np.append(np.searchsorted(places, begins), len(places))  # places ascend
    rows = (np.diff(borders) > 0).reshape(groups, -1).sum(1)
    left = 0
    for group in range(groups):
        used = np.zeros(columns, bool)
        mine = places[borders[group * height] : borders[(group + 1) * height]]
        for start in range(0, len(mine), CHUNK):  # of an unstructured weight the first part uses every column
            used[mine[start : start + CHUNK] % columns] = True
            if used.all():
                break
        left += int(rows[group]) * int(used.sum())
    return left / max(1, len(weight) * columns)


def plan_network(
    network: NetworkSteps,
    roofline: Roofline,
    images: int,
    closer: "CloserLook | None" = None,
) -> list[LayerPlan]:
    """Decide for every convolution and linear layer.

    Args:
        network: steps.
        roofline: of the machine.
        images: in a batch.
        closer: asked before a layer is left to torch; without it the roofline alone decides.
    """
    plans = []
    for step in network.steps:
        if isinstance(step, Convolve | Multiply):
            shape = network.shapes[step.output]
            values = prod(network.shapes[step.inputs[0]]) + prod(shape)
            flops = 2.0 * prod(step.weight.shape) * prod(shape[1:])
            work = LayerWork(step.layer, flops, 4.0 * values, 4.0 * prod(step.weight.shape))
            left = left_over(step.weight, step.groups if isinstance(step, Convolve) else 1)
            given = (work, step.output, step.weight.density, left)
            plan = plan_layer(*given, roofline, images)
            if plan.path is Path.DENSE and closer is not None:
                plan = plan_layer(*given, closer.roofline(roofline), images, closer.dense_s(step))
            plans.append(plan)
    return plans


def plan_layer(
    work: LayerWork, output: str, x: float, left: float, roofline: Roofline, images: int, dense_s: float | None = None
) -> LayerPlan:
    """Decide for one layer.

    Args:
        work: of the dense layer, for one image.
        output: name of the value that it makes.
        x: share of nonzero weights, 0 to 1.
        left: share of the weights in rows and columns that are not all zero.
        roofline: of the machine.
        images: in a batch.
        dense_s: what torch was measured to take for a batch, and is judged by; predicted if none is given.
    """
    activations = images * work.activation_bytes
    weights = BYTES_A_NONZERO * x * work.weight_bytes
    rates = roofline.rates(x, roofline.level_of(activations + weights), weights)
    arithmetic = images * work.flops_per_image / rates.dense_flops_per_s

    def seconds(compute_s: float, weight_bytes: float, travelling: float) -> float:
        far = roofline.bytes_per_s[roofline.level_of(weight_bytes)]
        return max(compute_s, weight_bytes / far + travelling / rates.bytes_per_s)

    relayout = activations / roofline.bytes_per_s[Level.LAST_LEVEL_CACHE]
    predicted = {
        Path.DIRECT: seconds(rates.alpha * x * arithmetic, weights, activations),
        Path.SQUEEZED: seconds(left * arithmetic, left * work.weight_bytes, activations) + relayout,
        Path.DENSE: seconds(arithmetic, work.weight_bytes, activations),
    }
    alone = predicted[Path.DENSE] if dense_s is None else dense_s
    inside = alone + activations / roofline.layout_bytes_per_s + SWITCH_S
    dense = inside < CLEARLY * predicted[Path.DIRECT]
    bound = rates.alpha * x * arithmetic < predicted[Path.DIRECT]
    timed = "" if dense_s is None else f" (which was timed: {1e3 * dense_s:.3g} ms)"
    why = (
        f"{x:.1%} nonzero at alpha {rates.alpha:.2f}: dense is {predicted[Path.DIRECT] / inside:.1f}x faster{timed}"
        if dense
        else f"{x:.1%} nonzero at alpha {rates.alpha:.2f}: {alone / predicted[Path.DIRECT]:.1f}x "
        f"faster than dense{timed}{', bound by memory' if bound else ''}"
    )
    return LayerPlan(
        work.name, output, Path.DENSE if dense else Path.DIRECT, work, x, left, predicted,
        lower_bound(rates), upper_bound(work, rates, images), why, dense_s,
    )  # fmt: skip
