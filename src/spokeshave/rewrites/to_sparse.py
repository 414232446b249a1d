"""To sparse: a pruned network compiled for this CPU by direct sparse convolution (Park et al., ICLR 2017).

O(n, y, x) = sum over the nonzeros (c, r, s) of W(n, c, r, s) * I(c, y + r, x + s), with code generated for each layer's
own geometry, pattern and CPU; whole networks stay in one layout from end to end.

Departs from the paper: kernels are generated, not templates; the nonzeros of one 2-D kernel share the inputs they load.
"""

import dataclasses
import os
import warnings
from dataclasses import dataclass

import torch
from rich.table import Table
from torch import nn

from spokeshave.errors import InvalidArgument, JitRefused, NothingChanged
from spokeshave.jit.host_cpu import VectorSet, host_cpu
from spokeshave.rewrites.verification import worst_error
from spokeshave.structures.graph_tracing import as_inputs, trace
from spokeshave.structures.onnx_graph import load_onnx
from spokeshave.targets.cpu_sparse.network_steps import Convolve, Fallback, Multiply, NetworkSteps
from spokeshave.targets.cpu_sparse.sparse_network import SparseNetwork


@dataclass(frozen=True)
class SparseLayer:
    """How one layer runs.

    Attributes:
        name: of the module or node that the step ends with.
        kind: of work, such as 'Convolve'.
        native: True for generated code, False for torch.
        density: share of nonzero weights, 0 to 1; 1 where there are no weights.
        nonzeros: number of them.
        note: why torch runs it, '' where it is native.
    """

    name: str
    kind: str
    native: bool
    density: float = 1.0
    nonzeros: int = 0
    note: str = ""


@dataclass(frozen=True)
class SparseReport:
    """What `to_sparse` made of a network.

    Attributes:
        layers: every step, in order of execution.
        vectors: name of the set of instructions; '' where everything runs in torch.
        max_relative_error: largest max|new - old| / max|old| over the probes.
        notes: remarks.
    """

    layers: tuple[SparseLayer, ...]
    vectors: str
    max_relative_error: float
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """The report as plain dicts, lists, numbers and strings."""
        plain = dataclasses.asdict(self)
        return plain | {"layers": list(plain["layers"]), "notes": list(self.notes)}

    def table(self) -> Table:
        """The report as a table for the terminal, one row a step."""
        table = Table(title=f"sparse network, {self.vectors or 'torch'}", caption="\n".join(self.notes) or None)
        for heading in ("layer", "work", "runs as", "nonzeros", "density", "note"):
            table.add_column(heading, justify="right" if heading in ("nonzeros", "density") else "left")
        for layer in self.layers:
            counts = (f"{layer.nonzeros:,}", f"{layer.density:.3f}") if layer.nonzeros else ("", "")
            table.add_row(layer.name, layer.kind, "generated code" if layer.native else "torch", *counts, layer.note)
        return table


def to_sparse(
    model: object, example: object, *, vectors: VectorSet | None = None, tolerance: float = 1e-5
) -> tuple[SparseNetwork, SparseReport]:
    """Compile a network for this CPU; zero weights cost nothing.

    Args:
        model: any module that `torch.fx` can trace; it is not modified. Computes in float32, in eval mode. Or an ONNX
            network: the path of its file, or an `onnx.ModelProto`.
        example: input with its batch on axis 0, or a tuple of the arguments of forward. The batch size may differ.
        vectors: set of instructions; the widest that this CPU has if none is given.
        tolerance: largest max|new - old| / max|old| on the probes, above 0.

    Returns:
        the network, called like the model but for inference only, from any number of threads; and the report.

    Raises:
        NothingChanged: no layer is one that the engine knows.
        InexactRewrite: the new network does not match the original on the probes.
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
    if not tolerance > 0:
        raise InvalidArgument(f"tolerance: expected a number above 0, got {tolerance}")
    notes: list[str] = []
    if vectors is not None:
        host_cpu().require(vectors)
    vectors = vectors or host_cpu().widest()
    if vectors is None:
        notes.append(f"no kernels are generated for this CPU ({host_cpu().name}): everything runs in torch")
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        traced = trace(model, example)
        network = SparseNetwork.of(traced, vectors)
        if all(isinstance(piece, Fallback) for piece in network.pieces):
            raise NothingChanged(
                "no layer of this model is one that the engine knows: "
                + "; ".join(f"{step.layer}: {step.why}" for step in network.fallbacks)
            )
        inputs = as_inputs(example)
        try:
            error = worst_error(network, traced.reference, inputs, tolerance, notes)
        except JitRefused as refusal:
            warnings.warn(f"{refusal}; the network runs in torch", RuntimeWarning, stacklevel=2)
            notes.append(str(refusal))
            network = SparseNetwork.of(traced, None)
            error = worst_error(network, traced.reference, inputs, tolerance, notes)
    network.train(model.training)
    report = SparseReport(_layers(network), network.vectors.name if network.vectors else "", error, tuple(notes))
    return network, report


def _layers(network: SparseNetwork) -> tuple[SparseLayer, ...]:
    layers = []
    for piece in network.pieces:
        if isinstance(piece, NetworkSteps):
            for step in piece.steps:
                kind, native = type(step).__name__, not network.plain
                if isinstance(step, Convolve | Multiply):
                    weight = step.weight
                    layers.append(SparseLayer(step.layer, kind, native, weight.density, len(weight.values)))
                else:
                    layers.append(SparseLayer(step.layer, kind, native))
        else:
            layers.append(SparseLayer(piece.layer, "torch", False, note=piece.why))
    return tuple(layers)
