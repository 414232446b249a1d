"""Layer paths: what each layer takes dense, squeezed and direct sparse, measured in turns beside what was predicted.

Direct sparse is timed in place, in the network that runs; torch runs all layers one after another, like a network does,
so that a layer's weights are as cold as they would be there. The predictions are the planner's (Park et al., ICLR 2017,
section 2.2).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from spokeshave.cpu_benchmark.dense_paths import Activations, TorchPaths, TorchStep, WeightedStep
from spokeshave.targets.cpu_sparse.layer_profile import StepTime, Timing, summarize, watched_run
from spokeshave.targets.cpu_sparse.network_steps import Convolve, Multiply
from spokeshave.targets.cpu_sparse.planner import LayerPlan, Path
from spokeshave.targets.cpu_sparse.roofline import BYTES_A_NONZERO
from spokeshave.targets.cpu_sparse.sparse_network import SparseNetwork

FEWEST = 5
"""Rounds that are made even where the time is over."""


@dataclass(frozen=True)
class LayerPaths:
    """One layer, for one batch.

    Attributes:
        layer: its name.
        kind: 'convolution' or 'linear'.
        plan: what was decided and predicted, and why.
        images: in the batch.
        dense: torch's time, in the faster of its two orders of memory.
        channels_last: whether that is channels-last.
        squeezed: torch's time without the zero rows and columns; none where there are none.
        direct: of generated code, in place.
    """

    layer: str
    kind: str
    plan: LayerPlan
    images: int
    dense: Timing
    channels_last: bool
    squeezed: Timing | None
    direct: Timing

    @property
    def measured(self) -> dict[Path, Timing]:
        """Path -> time, of those that were measured."""
        known = {Path.DENSE: self.dense, Path.SQUEEZED: self.squeezed, Path.DIRECT: self.direct}
        return {path: timing for path, timing in known.items() if timing is not None}

    @property
    def fastest(self) -> Path:
        """The path that was measured fastest, each on its own."""
        return min(self.measured, key=lambda path: self.measured[path].median_s)

    @property
    def speedup(self) -> float:
        """Dense time over direct sparse time."""
        return self.dense.median_s / self.direct.median_s

    @property
    def flops(self) -> float:
        """Of the dense layer, for the batch."""
        return self.images * self.plan.work.flops_per_image

    @property
    def sparse_flops_per_s(self) -> float:
        """Rate of direct sparse code, counted on nonzeros."""
        return self.plan.x * self.flops / self.direct.median_s

    @property
    def effective_flops_per_s(self) -> float:
        """Rate that a dense layer would need to be as fast."""
        return self.flops / self.direct.median_s

    @property
    def flops_per_byte(self) -> float:
        """Arithmetic intensity of direct sparse code: FLOPs on nonzeros over bytes of activations and nonzeros."""
        work = self.plan.work
        moved = self.images * work.activation_bytes + BYTES_A_NONZERO * self.plan.x * work.weight_bytes
        return self.plan.x * self.flops / moved

    def to_dict(self) -> dict[str, object]:
        """The layer as plain dicts, numbers and strings; times in seconds."""
        plan = self.plan
        return {
            "layer": self.layer,
            "kind": self.kind,
            "density": plan.x,
            "left_when_squeezed": plan.left,
            "flops_per_image": plan.work.flops_per_image,
            "activation_bytes_per_image": plan.work.activation_bytes,
            "weight_bytes": plan.work.weight_bytes,
            "planned": plan.path.value,
            "why": plan.why,
            "fastest": self.fastest.value,
            "predicted_s": {path.value: seconds for path, seconds in plan.predicted_s.items()},
            "measured": {path.value: vars(timing) for path, timing in self.measured.items()},
            "dense_channels_last": self.channels_last,
            "speedup_predicted": plan.predicted_speedup,
            "speedup_measured": self.speedup,
            "sparse_flops_per_s": self.sparse_flops_per_s,
            "effective_flops_per_s": self.effective_flops_per_s,
            "flops_per_byte": self.flops_per_byte,
            "lower_bound": plan.lower_bound,
            "upper_bound": plan.upper_bound,
        }


def seconds_of(run: Callable[[], object]) -> float:
    """Time one call."""
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def time_layer_paths(
    network: SparseNetwork, inputs: tuple[object, ...], images: int, repeats: int, budget_s: float
) -> tuple[list[LayerPaths], tuple[StepTime, ...]]:
    """Time every convolution and linear layer on each of its paths, and every step of the network in place.

    Args:
        network: of generated code.
        inputs: a batch.
        images: in it.
        repeats: rounds, at least 1; in each, every path of every layer has one turn.
        budget_s: seconds after which no more rounds are begun, once `FEWEST` are done.

    Returns:
        the layers; and the steps of the network as planned, which is what a user runs.
    """
    direct = network.direct()
    steps = [step for step in network.network.steps if isinstance(step, Convolve | Multiply)]
    paths = [TorchPaths.of(step, network.network) for step in steps]
    activations = Activations(network.network, images)
    runs: list[dict[str, float]] = []
    direct_runs = runs if direct is network else []
    samples: dict[tuple[str, str], list[float]] = {}

    def torch_turn(path: str, last: bool) -> None:
        for step, forms in zip(steps, paths, strict=True):
            form: TorchStep | None = getattr(forms, path)
            if form is not None:
                values = activations.of(step, last)
                elapsed = seconds_of(lambda form=form, values=values: form(*values))
                samples.setdefault((step.output, path), []).append(elapsed)

    turns: list[Callable[[], None]] = [
        lambda: runs.append(watched_run(network, inputs)),
        lambda: torch_turn("dense", False),
        lambda: torch_turn("dense_last", True),
        lambda: torch_turn("squeezed", False),
    ]
    if direct is not network:
        turns.append(lambda: direct_runs.append(watched_run(direct, inputs)))
    with torch.inference_mode():
        for turn in turns:
            turn()
        for kept in (runs, direct_runs, *samples.values()):  # that was to warm up
            kept.clear()
        begin = time.perf_counter()
        for round_ in range(repeats):
            for turn in turns if round_ % 2 == 0 else reversed(turns):
                turn()
            if round_ + 1 >= FEWEST and time.perf_counter() - begin > budget_s:
                break
    timed = {key: Timing.of(times) for key, times in samples.items()}
    in_place = {step.output: step.time for step in summarize(direct, direct_runs)}
    plans = {plan.output: plan for plan in network.plans}
    return [_layer(step, plans[step.output], images, timed, in_place) for step in steps], summarize(network, runs)


def _layer(
    step: WeightedStep,
    plan: LayerPlan,
    images: int,
    timed: dict[tuple[str, str], Timing],
    in_place: dict[str, Timing],
) -> LayerPaths:
    dense, last = timed[step.output, "dense"], timed.get((step.output, "dense_last"))
    faster = last is not None and last.median_s < dense.median_s
    return LayerPaths(
        step.layer,
        "convolution" if isinstance(step, Convolve) else "linear",
        plan,
        images,
        last if last is not None and faster else dense,
        faster,
        timed.get((step.output, "squeezed")),
        in_place[step.output],
    )
