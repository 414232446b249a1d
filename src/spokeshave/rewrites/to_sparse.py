"""To sparse: a pruned network compiled for this CPU by direct sparse convolution (Park et al., ICLR 2017).

O(n, y, x) = sum over the nonzeros (c, r, s) of W(n, c, r, s) * I(c, y + r, x + s), with code generated for each layer's
own geometry, pattern and CPU; whole networks stay in one layout from end to end.

Departs from the paper: kernels are generated, not templates; the nonzeros of one 2-D kernel share the inputs they load.
"""

import dataclasses
import os
import warnings
from dataclasses import dataclass
from enum import Enum
from functools import partial

import torch
from rich.table import Table
from torch import nn

from spokeshave.errors import InexactRewrite, InvalidArgument, JitRefused, NothingChanged
from spokeshave.jit.host_cpu import VectorSet, host_cpu
from spokeshave.jit.side_by_side import side_by_side
from spokeshave.rewrites.verification import relative_error, worst_error
from spokeshave.structures.example_inputs import as_inputs, batch_of
from spokeshave.structures.graph_tracing import TracedNetwork, trace
from spokeshave.structures.onnx_graph import load_onnx
from spokeshave.targets.cpu_sparse.batch_lanes_engine import BatchLanesEngine
from spokeshave.targets.cpu_sparse.dense_layer import DenseLayer
from spokeshave.targets.cpu_sparse.lowering import lower
from spokeshave.targets.cpu_sparse.network_steps import Convolve, Fallback, Multiply, NetworkSteps
from spokeshave.targets.cpu_sparse.pixel_lanes_engine import PixelLanesEngine
from spokeshave.targets.cpu_sparse.sparse_network import SparseNetwork
from spokeshave.targets.cpu_sparse.step_fusion import fuse
from spokeshave.targets.cpu_sparse.tuning import TUNE_S
from spokeshave.user_cache import FactCache


class RunsAs(Enum):
    """What runs a step."""

    GENERATED = "generated code"
    DENSE = "dense, torch"
    TORCH = "torch"


class LinearValues(Enum):
    """How the weights of linear layers are kept; where a layer is bound by memory, their bytes are its time."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


@dataclass(frozen=True)
class SparseLayer:
    """How one layer runs.

    Attributes:
        name: of the module or node that the step ends with.
        kind: of work, such as 'Convolve'.
        runs_as: generated code, or torch: by the planner's choice, or because the engine does not know it.
        density: share of nonzero weights, 0 to 1; 1 where there are no weights.
        nonzeros: number of them.
        speedup: over the dense layer, as the roofline predicts it for direct sparse code; 0 where nothing is predicted.
        note: why it runs that way, '' where nothing is to be said.
    """

    name: str
    kind: str
    runs_as: RunsAs
    density: float = 1.0
    nonzeros: int = 0
    speedup: float = 0.0
    note: str = ""


@dataclass(frozen=True)
class SparseReport:
    """What `to_sparse` made of a network.

    Attributes:
        layers: every step, in order of execution.
        vectors: name of the set of instructions; '' where everything runs in torch.
        max_relative_error: largest max|new - old| / max|old| over the probes; with rounded weights, old is the original
            with these.
        notes: remarks.
    """

    layers: tuple[SparseLayer, ...]
    vectors: str
    max_relative_error: float
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """The report as plain dicts, lists, numbers and strings."""
        layers = [dataclasses.asdict(layer) | {"runs_as": layer.runs_as.value} for layer in self.layers]
        return dataclasses.asdict(self) | {"layers": layers, "notes": list(self.notes)}

    def table(self) -> Table:
        """The report as a table for the terminal, one row a step."""
        table = Table(title=f"sparse network, {self.vectors or 'torch'}", caption="\n".join(self.notes) or None)
        for heading in ("layer", "work", "runs as", "nonzeros", "density", "predicted", "note"):
            right = heading in ("nonzeros", "density", "predicted")
            table.add_column(heading, justify="right" if right else "left")
        for layer in self.layers:
            counts = (f"{layer.nonzeros:,}", f"{layer.density:.3f}") if layer.nonzeros else ("", "")
            speedup = f"{layer.speedup:.1f}x" if layer.speedup else ""
            table.add_row(layer.name, layer.kind, layer.runs_as.value, *counts, speedup, layer.note)
        return table


def to_sparse(
    model: object,
    example: object,
    *,
    vectors: VectorSet | None = None,
    tolerance: float = 1e-5,
    tune_s: float = TUNE_S,
    batch: int | None = None,
    linear_values: LinearValues = LinearValues.FLOAT32,
) -> tuple[SparseNetwork, SparseReport]:
    """Compile a network for this CPU; zero weights cost nothing.

    Args:
        model: any module that `torch.fx` can trace; it is not modified. Computes in float32, in eval mode. Or an ONNX
            network: the path of its file, or an `onnx.ModelProto`.
        example: input with its batch on axis 0, or a tuple of the arguments of forward. The batch size may differ.
        vectors: set of instructions; the widest that this CPU has if none is given.
        tolerance: largest max|new - old| / max|old| on the probes, above 0.
        tune_s: seconds that measuring the fastest tiles may take for each layout; 0 for none. What was found is kept
            in the user's cache.
        batch: images in a usual batch, for which the planner decides what runs dense; the example's if none is given.
        linear_values: BFLOAT16 rounds the weights of linear layers to 8 significant bits, after batch normalization has
            become part of them: two bytes less for each nonzero, where `docs/sparse.md` does not say otherwise. A note
            says what that changes on the example.

    Returns:
        the network, called like the model but for inference only, from any number of threads; and the report.

    Raises:
        NothingChanged: no layer is one that the engine knows.
        InexactRewrite: the new network does not match the original on the probes, or rounding changes it by a tenth.
        UnsupportedLayer: the model cannot be traced, does not run on the example, or has an ONNX operator that is not
            known.
        FileError: the ONNX file cannot be read.
        CheckpointError: it is damaged.
        InvalidArgument: an argument is out of range.

    Source:
        Park et al., ICLR 2017, section 2.1.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
        >>> fast, report = to_sparse(net, torch.zeros(1, 1, 8, 8))
        >>> tuple(fast(torch.zeros(5, 1, 8, 8)).shape), report.layers[0].kind
        ((5, 2, 6, 6), 'Convolve')
    """
    if isinstance(model, str | os.PathLike) or type(model).__name__ == "ModelProto":
        model = load_onnx(model)
    if not isinstance(model, nn.Module):
        raise InvalidArgument(f"model: expected a torch.nn.Module or an ONNX network, got {type(model).__name__}")
    if not tune_s >= 0:
        raise InvalidArgument(f"tune_s: expected seconds of at least 0, got {tune_s}")
    if batch is not None and batch < 1:
        raise InvalidArgument(f"batch: expected at least 1 image, got {batch}")
    if not isinstance(linear_values, LinearValues):
        raise InvalidArgument(f"linear_values: expected one of {[*map(str, LinearValues)]}, got {linear_values!r}")
    if not tolerance > 0:
        raise InvalidArgument(f"tolerance: expected a number above 0, got {tolerance}")
    notes: list[str] = []
    if vectors is not None:
        host_cpu().require(vectors)
    vectors = vectors or host_cpu().widest()
    if vectors is None:
        notes.append(f"no kernels are generated for this CPU ({host_cpu().name}): everything runs in torch")
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        traced, inputs = trace(model, example, inference=True), as_inputs(example)
        images = batch or batch_of(inputs)
        # Nothing is measured yet that could be disturbed. The model's own code runs in the caller's thread.
        answer, steps = side_by_side([lambda: _answer(traced.reference, inputs), lambda: _steps(traced, linear_values)])
        assert isinstance(steps, NetworkSteps)
        rounded = linear_values is LinearValues.BFLOAT16
        original = _Original(traced.reference, inputs, answer, tolerance)
        check = partial(_check_rounded if rounded else _check, original)
        try:
            network = SparseNetwork.of(traced, vectors, tune_s, images, steps)
            _require_native(network)
            with network.weights_at_hand():
                error = check(network, notes)
        except JitRefused as refusal:
            warnings.warn(f"{refusal}; the network runs in torch", RuntimeWarning, stacklevel=2)
            notes.append(str(refusal))
            network = SparseNetwork.of(traced, None, steps=steps)
            _require_native(network)
            error = check(network, notes)
    network.train(model.training)
    report = SparseReport(_layers(network), network.vectors.name if network.vectors else "", error, tuple(notes))
    return network, report


def _require_native(network: SparseNetwork) -> None:
    if not any(isinstance(piece, NetworkSteps) for piece in network.pieces):
        raise NothingChanged(
            "no layer of this model would run as generated code: "
            + "; ".join(f"{layer.name}: {layer.note}" for layer in _layers(network))
            + ". Prune it first, or keep it as it is"
        )


@torch.no_grad()
def _steps(traced: TracedNetwork, linear_values: LinearValues) -> NetworkSteps:
    """The network lowered, with the digests of its weights, which everything that is kept is found by."""
    steps = fuse(lower(traced))
    if linear_values is LinearValues.BFLOAT16:
        steps.steps = [
            dataclasses.replace(step, weight=step.weight.rounded()) if isinstance(step, Multiply) else step
            for step in steps.steps
        ]
    weights = [step.weight for step in steps.steps if isinstance(step, Convolve | Multiply)]
    side_by_side([lambda weight=weight: weight.digest for weight in weights])
    return steps


@torch.no_grad()
def _answer(reference: nn.Module, inputs: tuple[object, ...]) -> object:
    """What the original gives for the example."""
    return reference(*inputs)


@dataclass(frozen=True)
class _Original:
    """What a sparse network is held to: a network, its answer to the example, and how far another may be from it."""

    reference: nn.Module
    inputs: tuple[object, ...]
    answer: object
    tolerance: float


def _check_rounded(original: _Original, network: SparseNetwork, notes: list[str]) -> float:
    """As `_check`, against the definition of the steps with rounded weights, which has to resemble the original."""
    definition = network.definition()
    rounded = _answer(definition, original.inputs)
    change = relative_error(rounded, original.answer)
    if not change <= MOST_ROUNDED:
        raise InexactRewrite(
            f"weights of linear layers rounded to bfloat16 change the result on the example by {change:.1e} of its "
            f"largest entry, expected at most {MOST_ROUNDED:g}: keep them in float32"
        )
    notes.append(
        f"weights of linear layers are rounded to bfloat16: on the example this changes the result by {change:.1e} of "
        "its largest entry"
    )
    held_to = dataclasses.replace(original, reference=definition, answer=rounded)
    return _check(held_to, network, notes, "rounded")


def _check(original: _Original, network: SparseNetwork, notes: list[str], against: str = "") -> float:
    """Largest error on the probes; on the example alone where this very network was checked on this machine before."""
    key, said = network.digest(), len(notes)
    key = key and key + against
    tolerance = original.tolerance
    before = _VERIFIED.get(key) if key else None
    known = before if isinstance(before, float) and before <= tolerance else None
    runs = [lambda *probe, layout=layout: network.run(probe, layout) for layout in _LAYOUTS]
    runs = runs if known is None else runs[:1]
    worst = worst_error(runs, original.reference, original.inputs, tolerance, notes, [original.answer])
    if key and len(notes) == said and known is None:
        _VERIFIED.keep({key: worst})
    return max(worst, known or 0.0)


MOST_ROUNDED = 0.1
"""Most that rounded weights may change the result on the example, as a part of its largest entry."""
_LAYOUTS = (PixelLanesEngine, BatchLanesEngine, BatchLanesEngine, PixelLanesEngine)
"""Layout that each probe goes through, so that both are checked."""
_VERIFIED = FactCache("verified")


def _layers(network: SparseNetwork) -> tuple[SparseLayer, ...]:
    layers, plans = [], {plan.output: plan for plan in network.plans}
    for piece in network.pieces:
        if isinstance(piece, Fallback):
            layers.append(SparseLayer(piece.layer, "torch", RunsAs.TORCH, note=piece.why))
            continue
        dense = isinstance(piece, DenseLayer)
        runs_as = RunsAs.DENSE if dense else RunsAs.TORCH if network.plain else RunsAs.GENERATED
        for step in [piece.step] if dense else piece.steps:
            kind, plan = type(step).__name__, plans.get(step.output)
            if isinstance(step, Convolve | Multiply):
                density, count = step.weight.density, step.weight.nonzeros
                said = (plan.predicted_speedup, plan.why) if plan else (0.0, "")
                layers.append(SparseLayer(step.layer, kind, runs_as, density, count, *said))
            else:
                layers.append(SparseLayer(step.layer, kind, runs_as))
    return tuple(layers)
