"""Sparse network: a network whose native parts run as generated code, and the rest in torch.

Direct sparse convolution (Park et al., ICLR 2017) for whole networks. The plain version of every step stands in
`reference_steps.py`; `SparseNetwork.plain` forces it.
"""

import copy
import math
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg
from torch.nn.modules import module
from torch.utils import _pytree as pytree

from spokeshave.errors import InvalidArgument
from spokeshave.jit.code_cache import code_key, generator
from spokeshave.jit.host_cpu import VectorSet
from spokeshave.structures.graph_tracing import TracedNetwork
from spokeshave.structures.own_costs import OwnCost
from spokeshave.targets.cpu_sparse.dense_layer import DenseLayer, dense_seconds
from spokeshave.targets.cpu_sparse.lowering import lower
from spokeshave.targets.cpu_sparse.network_steps import (
    Chain,
    Convolve,
    Fallback,
    Multiply,
    NetworkStep,
    NetworkSteps,
)
from spokeshave.targets.cpu_sparse.planner import CloserLook, Path, plan_network
from spokeshave.targets.cpu_sparse.reference_steps import run_plainly
from spokeshave.targets.cpu_sparse.roofline import measure_roofline, with_thin_layers
from spokeshave.targets.cpu_sparse.segment import Layout, Segment
from spokeshave.targets.cpu_sparse.step_fusion import fuse
from spokeshave.targets.cpu_sparse.stored_weight import StoredWeight
from spokeshave.targets.cpu_sparse.tuning import TUNE_S

_BYTES_OF_VALUE_AND_PLACE = 8

Piece = NetworkSteps | DenseLayer | Fallback


def cut(network: NetworkSteps, dense: Collection[str] = ()) -> list[Piece]:
    """Runs of native steps, with what each reads from outside and what the outside reads of it, and what torch runs.

    Args:
        network: steps.
        dense: names of the values whose layers run dense.
    """
    runs: list[list[NetworkStep] | DenseLayer | Fallback] = []
    for step in network.steps:
        if isinstance(step, Fallback):
            runs.append(step)
        elif step.output in dense and isinstance(step, Convolve | Multiply):
            runs.append(DenseLayer(step))
        elif runs and isinstance(runs[-1], list):
            runs[-1].append(step)
        else:
            runs.append([step])
    pieces: list[Piece] = []
    wanted = set(network.outputs)
    for run in reversed(runs):
        if not isinstance(run, list):
            wanted.update(run.inputs)
            pieces.append(run)
            continue
        made = {step.output for step in run}
        read = dict.fromkeys(name for step in run for name in step.inputs if name not in made)
        outputs = [step.output for step in run if step.output in wanted]
        pieces.append(replace(network, steps=run, inputs=list(read), outputs=outputs))
        wanted.update(read)
    return pieces[::-1]


@dataclass(frozen=True)
class Slot:
    """Place of a value in what forward returns.

    Attributes:
        name: of the value.
    """

    name: str


class SparseNetwork(nn.Module):
    """A network compiled for this CPU; called like a module, in inference only.

    Args:
        network: steps.
        result: what forward returns, with a `Slot` in place of each value.
        vectors: set of instructions; none where no code can be generated: everything then runs plainly.
        tune_s: seconds that tuning may take for each native part, layout and number of threads.
        images: in the batches that the choice between sparse and dense layers is made for.
        planned: false for generated code in every layer, whatever the planner says.

    Attributes:
        pieces: runs of native steps, and what torch runs, in order.
        plans: for each convolution and linear layer, in order; empty where no code is generated.
        plain: True to run the definition of every step in torch instead of generated code.
    """

    def __init__(
        self,
        network: NetworkSteps,
        result: object,
        vectors: VectorSet | None,
        tune_s: float = TUNE_S,
        images: int = 1,
        planned: bool = True,
    ) -> None:
        super().__init__()
        self.network, self.result, self.vectors = network, result, vectors
        self.plain, self.images = vectors is None, images
        timed = partial(dense_seconds, shapes=network.shapes, images=images)
        closer = CloserLook(with_thin_layers, timed) if planned else None
        self.plans = plan_network(network, measure_roofline(images=images), images, closer) if vectors else []
        self.pieces = cut(network, {plan.output for plan in self.plans if planned and plan.path is Path.DENSE})
        self._tune_s = tune_s
        self._segments = [self.segment_of(piece) for piece in self.pieces]
        self._whole = self._shortcut()
        self._called = nn.ModuleDict()
        self._attributes: dict[str, object] = {}

    @classmethod
    def of(
        cls,
        traced: TracedNetwork,
        vectors: VectorSet | None,
        tune_s: float = TUNE_S,
        images: int = 1,
        steps: NetworkSteps | None = None,
    ) -> "SparseNetwork":
        """Lower a traced network; modules that torch runs are copied from it.

        Args:
            traced: the network with its shapes, in eval mode.
            vectors: set of instructions, or none.
            tune_s: as in the constructor.
            images: likewise.
            steps: of the network, where it has been lowered already.
        """
        steps = steps or fuse(lower(traced))
        output = next(node for node in traced.graph.graph.nodes if node.op == "output")
        result = map_arg(output.args[0], lambda node: cast(Any, Slot(steps.aliases.get(node.name, node.name))))
        network = cls(steps, result, vectors, tune_s, images)
        modules, copies = dict(traced.graph.named_modules()), {}
        for step in network.fallbacks:
            if step.node.op == "call_module":
                network._called[step.output] = copy.deepcopy(modules[str(step.node.target)], copies)
            elif step.node.op == "get_attr":
                value: object = traced.graph
                for part in str(step.node.target).split("."):
                    value = getattr(value, part)
                network._attributes[step.output] = copy.deepcopy(value, copies)
        return network

    def direct(self) -> "SparseNetwork":
        """The same network with generated code in every layer, whatever the planner said; itself where it is so."""
        if not any(isinstance(piece, DenseLayer) for piece in self.pieces):
            return self
        network = SparseNetwork(self.network, self.result, self.vectors, self._tune_s, self.images, planned=False)
        network._called, network._attributes = self._called, self._attributes
        return network

    def definition(self) -> "SparseNetwork":
        """The same network with every step run by its definition, in torch."""
        network = SparseNetwork(self.network, self.result, None)
        network._called, network._attributes = self._called, self._attributes
        return network

    def segment_of(self, piece: Piece) -> Segment | None:
        """What runs a piece as generated code; none where torch runs it."""
        if isinstance(piece, NetworkSteps) and self.vectors is not None:
            return Segment(piece, self.vectors, self._tune_s)
        return None

    @contextmanager
    def weights_at_hand(self) -> Iterator[None]:
        """Meanwhile positions and values of nonzeros stay in memory, for both layouts to be made from."""
        weights = [step.weight.arrays() for step in self.network.steps if isinstance(step, Convolve | Multiply)]
        yield
        del weights

    @property
    def segments(self) -> list[Segment]:
        """What runs as generated code."""
        return [segment for segment in self._segments if segment is not None]

    def train(self, mode: bool = True) -> "SparseNetwork":
        """Remember the flag; the network computes as in eval mode, whatever it says."""
        self.training = mode
        return self

    def digest(self) -> str:
        """SHA-256 over what the network computes and on which kind of machine; '' where torch runs a part of it."""
        if self.fallbacks or self.vectors is None:
            return ""
        network = self.network
        dense = [piece.output for piece in self.pieces if isinstance(piece, DenseLayer)]
        parts: list[object] = [generator(self.vectors), dense, network.inputs, network.outputs, repr(self.result)]
        for step in network.steps:
            parts += [type(step).__name__, network.shapes[step.output]]
            for value in vars(step).values():
                parts.append(value.digest if isinstance(value, StoredWeight) else value)
        return code_key(*parts)

    def own_costs(self) -> list[OwnCost]:
        """What steps keep and compute: nonzeros, where generated code runs them, and the whole weight where torch does.

        Of what torch alone knows how to run, modules are counted by torch; a parameter that it reads is added here.
        """
        found: dict[tuple[str, str], OwnCost] = {}
        for piece, segment in zip(self.pieces, self._segments, strict=True):
            if isinstance(piece, Fallback):
                continue
            generated = segment is not None and not self.plain
            for step in piece.steps if isinstance(piece, NetworkSteps) else [piece.step]:
                cost, key = self._cost(step, generated), (step.layer, type(step).__name__)
                if cost and key in found:  # one layer that is called again
                    cost = replace(found[key], flops=found[key].flops + cost.flops)
                found |= {key: cost} if cost else {}
        read = {id(value): (name, value) for name, value in self._attributes.items() if isinstance(value, Tensor)}
        return [*found.values(), *(_cost_of(name, value) for name, value in read.values())]

    def _cost(self, step: NetworkStep, generated: bool) -> OwnCost | None:
        kind = type(step).__name__
        if isinstance(step, Chain) and step.scales is not None:
            count = int(np.count_nonzero(step.scales))
            return OwnCost(step.layer, kind, count, count, step.scales.nbytes, 0)
        if not isinstance(step, Convolve | Multiply):
            return None
        nonzeros, size = step.weight.nonzeros, math.prod(step.weight.shape)
        count = nonzeros + int(np.count_nonzero(step.bias))
        flops = 2 * (nonzeros if generated else size) * math.prod(self.network.shapes[step.output][1:])
        kept = _BYTES_OF_VALUE_AND_PLACE * nonzeros + step.bias.nbytes
        return OwnCost(step.layer, kind, count, count, kept, flops, seen_by_torch=not generated)

    @property
    def fallbacks(self) -> list[Fallback]:
        """What runs in torch."""
        return [piece for piece in self.pieces if isinstance(piece, Fallback)]

    def __call__(self, *inputs: object, **named: object) -> object:
        """`forward`, without what torch does around it where nobody asked for it."""
        plain = not (named or self._forward_hooks or self._forward_pre_hooks or self._compiled_call_impl)
        if plain and len(inputs) == 1 and type(inputs[0]) is Tensor and not _hooks_of_all():
            return self.forward(*inputs)
        return super().__call__(*inputs, **named)  # tracers look for this call, too

    def forward(self, *inputs: object) -> object:
        """Compute.

        Args:
            inputs: as the original takes them; tensors have the images on axis 0, as many as you like, on the CPU.

        Returns:
            what the original returns; it has no gradient.

        Raises:
            InvalidArgument: an input is missing, or has another shape, dtype or device than the example had.
        """
        whole = self._whole
        if whole is not None and len(inputs) == 1 and not self.plain:
            (x,), (wanted, segment, shape) = inputs, whole
            if type(x) is Tensor and x.dtype is torch.float32 and x.is_cpu and not x.is_neg():
                images, *size = x.shape or (0,)
                if size == wanted:
                    x = x.contiguous()
                    result = torch.empty((images, *shape), dtype=torch.float32, device="cpu")
                    segment.run_at([x.data_ptr()], [result.data_ptr()], images)
                    return result
        return self.run(inputs)

    def _shortcut(self) -> tuple[list[int], Segment, tuple[int, ...]] | None:
        """Shape of the input, native part, shape of the result, where a network is one part with one of each.

        Such a network of small layers takes less time than what is done around a call of it in general.
        """
        network, result = self.network, self.result
        if len(self.pieces) != 1 or len(network.inputs) != 1 or not isinstance(result, Slot):
            return None
        segment = self._segments[0]
        if segment is None or segment.network.inputs != network.inputs or segment.network.outputs != [result.name]:
            return None
        return list(network.shapes[network.inputs[0]]), segment, network.shapes[result.name]

    @torch.no_grad()
    def run(
        self, inputs: tuple[object, ...], layout: Layout | None = None, seconds: dict[str, float] | None = None
    ) -> object:
        """Compute, in one layout throughout where one is given: `forward` takes what is fastest for the batch.

        Args:
            inputs: as `forward` takes them.
            layout: for all images, or none.
            seconds: where the time of each step is added up, by its output; none for one run without looking.
        """
        self._check(inputs)
        known: dict[str, object] = dict(zip(self.network.inputs, inputs, strict=False))
        for piece, segment in zip(self.pieces, self._segments, strict=True):
            values: list[Any] = [known[name] for name in piece.inputs]
            if isinstance(piece, NetworkSteps):
                if segment is None or self.plain:
                    results = run_plainly(piece, values)
                else:
                    arrays = [_array(value) for value in values]
                    results = [torch.from_numpy(result) for result in segment(arrays, layout, seconds)]
                known.update(zip(piece.outputs, results, strict=True))
                continue
            begin = time.perf_counter()
            known[piece.output] = piece(values) if isinstance(piece, DenseLayer) else self._fall_back(piece, known)
            if seconds is not None:
                seconds[piece.output] = time.perf_counter() - begin
        return pytree.tree_map(lambda leaf: known[leaf.name] if isinstance(leaf, Slot) else leaf, self.result)

    def _reader(self, known: dict[str, object]) -> Callable[[fx.Node], Any]:
        return lambda node: known[self.network.aliases.get(node.name, node.name)]

    def _check(self, inputs: tuple[object, ...]) -> None:
        if len(inputs) > len(self.network.inputs):
            raise InvalidArgument(f"expected at most {len(self.network.inputs)} inputs, got {len(inputs)}")
        if len(inputs) < len(self.network.inputs):
            read = {*self.network.outputs, *(name for piece in self.pieces for name in piece.inputs)}
            if missing := [name for name in self.network.inputs[len(inputs) :] if name in read]:
                raise InvalidArgument(f"expected {len(self.network.inputs)} inputs: {', '.join(missing)} missing")
        for name, value in zip(self.network.inputs, inputs, strict=False):
            if name not in self.network.shapes:
                continue
            if not isinstance(value, Tensor):
                raise InvalidArgument(f"{name}: expected a torch.Tensor, got {type(value).__name__}")
            wanted = self.network.shapes[name]
            if tuple(value.shape[1:]) != wanted or value.device.type != "cpu":
                raise InvalidArgument(
                    f"{name}: expected a CPU tensor of shape (images, {', '.join(map(str, wanted))}), for which this "
                    f"network was compiled, got {tuple(value.shape)} on {value.device}; resize the input, or compile "
                    "again with an example of the new size"
                )
            if value.dtype != torch.float32 and value.is_floating_point() and not self.plain:
                raise InvalidArgument(f"{name}: expected float32, got {value.dtype}; call .float() on it")

    def _fall_back(self, step: Fallback, known: dict[str, object]) -> object:
        node, read = step.node, self._reader(known)
        if node.op == "get_attr":
            return self._attributes[step.output]
        arguments = map_arg(node.args, read)
        named = map_arg(node.kwargs, read)
        if node.op == "call_module":
            return self._called[step.output](*arguments, **named)
        if node.op == "call_method":
            return getattr(arguments[0], str(node.target))(*arguments[1:], **named)
        return node.target(*arguments, **named)  # type: ignore[operator]


def _cost_of(name: str, value: Tensor) -> OwnCost:
    """Of a tensor of the network that torch reads; a buffer has no parameters."""
    count, nonzeros = (value.numel(), int(value.count_nonzero())) if isinstance(value, nn.Parameter) else (0, 0)
    return OwnCost(name, "Tensor", count, nonzeros, value.numel() * value.element_size(), 0)


def _hooks_of_all() -> bool:
    """Whether somebody registered a hook for every module."""
    return bool(module._global_forward_hooks or module._global_forward_pre_hooks)


def _array(value: object) -> np.ndarray:
    assert isinstance(value, Tensor)
    return value.detach().contiguous().resolve_neg().numpy()
