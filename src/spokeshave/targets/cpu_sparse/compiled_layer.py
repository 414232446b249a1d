"""Compiled layer: one sparse layer as generated code, compiled when it is first met and found again by its weights.

The code of a layer depends on the nonzeros, on the layer's form and on the size of its input. What was compiled is
found by the identity of the weights' memory, which costs nothing, or else by a SHA-256 over the weights. It lives as
long as the weights do.
"""

import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable
from enum import Enum
from functools import cache
from threading import Lock
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from spokeshave.errors import InvalidArgument, JitRefused
from spokeshave.jit.host_cpu import host_cpu
from spokeshave.targets.cpu_sparse.network_steps import NetworkStep, NetworkSteps
from spokeshave.targets.cpu_sparse.segment import Segment
from spokeshave.targets.cpu_sparse.stored_weight import StoredWeight
from spokeshave.tensor_digest import digest

SIZES_OF_INPUT = 8
"""Sizes of input that the code of one layer is kept for; the least recently used goes first."""

INPUT, OUTPUT = "input", "output"
"""Names of the two values of a layer's step."""


class Kernel(Enum):
    """What computes a sparse layer; the values are what the operators take."""

    AUTO = 0
    """Generated code where it can be had (float32, a CPU that code is generated for); the reference elsewhere, and for
    weights that require gradients, whose every step would be compiled anew."""
    GENERATED = 1
    """Generated code, or an error."""
    REFERENCE = 2
    """The definition in plain torch."""


Weights = tuple[Tensor, Tensor, Tensor]
"""Values, places and bias of a layer."""


def stored(values: Tensor, places: Tensor, shape: list[int]) -> StoredWeight:
    """The nonzeros as the engine keeps them, after a look at the places, which generated code goes by unchecked.

    Args:
        values: float, [nonzeros].
        places: int32 or int64, [nonzeros], flat indices.
        shape: of the weight.

    Raises:
        InvalidArgument: the places are not those of distinct elements in ascending order.
    """
    count = int(np.prod(shape))
    where = places.detach().cpu().numpy().astype(np.int64)
    if len(where) != len(values):
        raise InvalidArgument(f"places: expected one for each of the {len(values)} values, got {len(where)}")
    if len(where) and (where[0] < 0 or where[-1] >= count or (np.diff(where) <= 0).any()):
        raise InvalidArgument(
            f"places: expected ascending flat indices below {count}, the elements of a weight of shape {tuple(shape)}; "
            "take them from SparseConv2d.of or SparseLinear.of"
        )
    kind = np.uint32 if count <= 1 << 32 else np.uint64
    return StoredWeight(tuple(shape), where.astype(kind), values.detach().cpu().numpy().astype(np.float32))


class _Code:
    """Segments of one set of weights, by form and size of input."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._segments: OrderedDict[Hashable, Segment] = OrderedDict()

    def segment(self, form: Hashable, make: Callable[[], Segment]) -> Segment:
        with self._lock:
            if form not in self._segments:
                self._segments[form] = make()
                while len(self._segments) > SIZES_OF_INPUT:
                    self._segments.popitem(last=False)
            self._segments.move_to_end(form)
            return self._segments[form]


class CompiledLayers:
    """What was compiled in this process."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._by_memory: dict[Hashable, tuple[Hashable, tuple[StorageWeakRef, ...], _Code]] = {}
        self._by_digest: WeakValueDictionary[str, _Code] = WeakValueDictionary()
        self.refused: JitRefused | None = None

    def __len__(self) -> int:
        """Sets of weights that are in memory."""
        with self._lock:
            self._forget()
            return len(self._by_digest)

    def code(self, weights: Weights) -> _Code:
        """What belongs to some weights."""
        memory, writes = _memory(weights)
        with self._lock:
            known = self._by_memory.get(memory)
        if known is not None and known[0] == writes:
            return known[2]
        name = digest(dict(zip(("values", "places", "bias"), weights, strict=True)))
        with self._lock:
            self._forget()
            code = self._by_digest.setdefault(name, _Code())
            if writes:
                references = tuple(StorageWeakRef(part.untyped_storage()) for part in weights)
                self._by_memory[memory] = writes, references, code
        return code

    def _forget(self) -> None:
        """Leave out what belongs to weights that are gone."""
        for memory, (_, references, _) in list(self._by_memory.items()):
            if any(reference.expired() for reference in references):
                del self._by_memory[memory]


def _memory(weights: Weights) -> tuple[Hashable, Hashable]:
    """Which memory holds the weights, and how often it was written; the latter is None where torch does not count.

    The references that are kept with it see to it that no other memory takes the same name.
    """
    memory = tuple(
        (part.untyped_storage()._cdata, part.storage_offset(), part.shape, part.stride(), part.dtype)
        for part in weights
    )
    if any(part.is_inference() for part in weights):
        return memory, None
    return memory, tuple(part._version for part in weights)


def remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    """Keep what the gradients of a layer need: its tensors, the output where it was cut at 0, and `ctx.form`.

    Args:
        ctx: of autograd.
        inputs: of the operator: x, values, places, bias, the form, whether the output is cut, the kernel.
        output: of the operator.
    """
    x, values, places, bias, *ctx.form, rectify, _ = inputs
    ctx.save_for_backward(x, values, places, bias, output if rectify else None)


@cache
def compiled_layers() -> CompiledLayers:
    """The process's own."""
    return CompiledLayers()


def run_layer(
    kernel: Kernel,
    x: Tensor,
    weights: Weights,
    form: Hashable,
    output: tuple[int, ...],
    make_step: Callable[[], NetworkStep],
    reference: Callable[[], Tensor],
) -> Tensor:
    """Run one layer by generated code or by its definition.

    Args:
        kernel: which of the two.
        x: input, [images, ...].
        weights: values, places and bias.
        form: all that the code depends on, beside the weights and the size of the input.
        output: shape of the output, [images, ...].
        make_step: gives the layer as a step from `INPUT` to `OUTPUT`.
        reference: computes the definition.

    Returns:
        the output, contiguous.

    Raises:
        InvalidArgument: generated code was asked for, but the input is not float32 on the CPU.
        JitRefused: generated code was asked for, but cannot be had.
    """
    layers, vectors = compiled_layers(), host_cpu().widest()
    fits = x.dtype == torch.float32 and all(part.device.type == "cpu" for part in (x, *weights))
    if kernel is Kernel.GENERATED and not fits:
        raise InvalidArgument(f"x: generated code needs float32 tensors on the CPU, got {x.dtype} on {x.device}")
    if kernel is Kernel.GENERATED and vectors is None:
        raise JitRefused(f"no kernels are generated for this CPU ({host_cpu().name}); use Kernel.AUTO")
    if kernel is Kernel.AUTO and (layers.refused or any(part.requires_grad for part in weights)):
        kernel = Kernel.REFERENCE
    if kernel is Kernel.REFERENCE or not fits or vectors is None:
        return reference().contiguous()
    if 0 in output:
        return x.new_empty(output)

    def make() -> Segment:
        shapes = {INPUT: tuple(x.shape[1:]), OUTPUT: output[1:]}
        return Segment(NetworkSteps([make_step()], shapes, [INPUT], [OUTPUT]), vectors)

    try:
        segment = layers.code(weights).segment((form, tuple(x.shape[1:]), vectors), make)
        (result,) = segment([x.detach().contiguous().numpy()])
    except JitRefused as refusal:
        if kernel is Kernel.GENERATED:
            raise
        layers.refused = refusal
        warnings.warn(f"{refusal}; sparse layers run in torch", RuntimeWarning, stacklevel=2)
        return reference().contiguous()
    return torch.from_numpy(result)
