"""Native engine: a whole network as one list of operations over one arena, for either layout.

Every value has its place in the arena, shared by values that are not alive at the same time. The operations are machine
code, and so is the loop over them: nothing goes back to Python between the layers.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from math import prod
from typing import Any

import numpy as np
import torch

from spokeshave.errors import UnsupportedLayer
from spokeshave.jit.code_cache import Arrays, cached, code_key, generator
from spokeshave.jit.executable_memory import aligned_zeros
from spokeshave.jit.generated_operation import Operation
from spokeshave.jit.host_cpu import VectorSet
from spokeshave.jit.operation_loops import patch_items
from spokeshave.jit.operation_sequence import run_sequence_at
from spokeshave.jit.side_by_side import side_by_side
from spokeshave.targets.cpu_sparse.compiled_convolution import CompiledConvolution, Planes
from spokeshave.targets.cpu_sparse.memory_plan import Value, first_fit
from spokeshave.targets.cpu_sparse.network_steps import (
    Chain,
    Concatenate,
    Convolve,
    Flatten,
    Multiply,
    NetworkStep,
    NetworkSteps,
    Normalize,
    Pool,
    Softmax,
)
from spokeshave.targets.cpu_sparse.plane_operations import elementwise, response_normalization
from spokeshave.targets.cpu_sparse.softmax import softmax_over_planes
from spokeshave.targets.cpu_sparse.sparse_linear import PackedRows
from spokeshave.targets.cpu_sparse.tile_choice import MOST_FILTERS, Density, Outputs
from spokeshave.targets.cpu_sparse.tuning import ConvolutionWork, compiled
from spokeshave.targets.cpu_sparse.windowed_rows import WindowedRows
from spokeshave.targets.cpu_sparse.work_loop import work_loop

SPARE_PLANES = MOST_FILTERS - 1
"""Planes behind the last one of what a convolution writes: the last block of filters may write that many too many."""
ENTERING, LEAVING = "(entering)", "(leaving)"
"""What bringing images into the layout and results out of it is called where the steps are timed."""


def _products(step: Convolve, network: NetworkSteps) -> int:
    """Multiply-adds for one image."""
    return step.weight.nonzeros * prod(network.shapes[step.output][1:])


class NativeEngine(ABC):
    """Runs the steps of a network.

    Args:
        network: steps.
        vectors: set of instructions.
        threads: at most so many at a time.
        code: what another engine of the same class for the same network has compiled; it is shared, not made again.
        tune_s: seconds that tuning may take in all.

    Attributes:
        arena_bytes: of all values together.
        input_bytes: of each input, for one image.
        output_bytes: likewise.
        code: step's output -> its compiled convolution or packed matrix.
        seconds: where the time of each step is added up, by its output; none for one run without looking.
        sequence: address of the operations, and how many there are.
    """

    def __init__(
        self,
        network: NetworkSteps,
        vectors: VectorSet,
        threads: int,
        code: dict[str, Any] | None = None,
        tune_s: float = 0.0,
    ) -> None:
        self.network, self.vectors, self.threads, self._tune_s = network, vectors, threads, tune_s
        self._work = sum(_products(step, network) for step in network.steps if isinstance(step, Convolve))
        self.code: dict[str, Any] = {} if code is None else code
        self.input_bytes, self.output_bytes = (
            [4 * prod(network.shapes[name]) for name in names] for names in (network.inputs, network.outputs)
        )
        self._keep: list[object] = []
        self._program: list[tuple[Operation, np.ndarray]] = []
        self._convolutions: list[tuple[int, Convolve, int]] = []
        self._products: list[tuple[int, Multiply]] = []
        self._ends: list[tuple[str, int]] = []
        self.seconds: dict[str, float] | None = None
        self.values = self._lay_out(network)
        self.arena_bytes = self._place(network)
        self.arena = aligned_zeros((self.arena_bytes // 4,))
        for name in network.inputs:
            self._enter(self.values[name])
        self._ends.append((ENTERING, len(self._program)))
        for step in network.steps:
            self._add(step)
            self._ends.append((step.output, len(self._program)))
        for name in network.outputs:
            self._leave(self.values[name])
        self._ends.append((LEAVING, len(self._program)))
        self._pack_products()  # the other operations are translated meanwhile
        self._compile_convolutions()
        self._sequence = np.array([(one.address, table.ctypes.data) for one, table in self._program], np.int64)
        self.sequence = self._sequence.ctypes.data, len(self._sequence)

    @abstractmethod
    def _lay_out(self, network: NetworkSteps) -> dict[str, Value]:
        """Memory that each value needs; values that share memory are one object."""

    @staticmethod
    def spare_planes(name: str, network: NetworkSteps) -> int:
        """Planes behind the last one that a convolution may write or, where it adds this value to its sums, read."""
        convolutions = [step for step in network.steps if isinstance(step, Convolve)]
        touched = any(name in (step.output, *step.inputs[1:]) for step in convolutions)
        return SPARE_PLANES if touched else 0

    @abstractmethod
    def _enter(self, value: Value) -> None:
        """Bring an input into the arena."""

    @abstractmethod
    def _leave(self, value: Value) -> None:
        """Bring a result out of it."""

    @abstractmethod
    def aim(self, inputs: Sequence[int], results: Sequence[int], images: int) -> None:
        """Say what the next run reads and writes.

        Args:
            inputs: address of each input, float32, contiguous, [images, ...], in the order of the network's inputs.
            results: likewise of its outputs, which are written.
            images: as many as the layout takes at once, at the most.
        """

    def __call__(self, inputs: Sequence[np.ndarray], results: Sequence[np.ndarray]) -> None:
        """Compute, on arrays.

        Args:
            inputs: float32, contiguous, [images, ...], in the order of the network's inputs.
            results: likewise, in the order of its outputs: filled.
        """
        sources, targets = ([array.ctypes.data for array in arrays] for arrays in (inputs, results))
        self.aim(sources, targets, len(inputs[0]))
        self.run()

    @abstractmethod
    def _packed(self, step: Multiply) -> PackedRows | WindowedRows:
        """Matrix of a linear layer."""

    def _rows(self, arrays: Arrays) -> PackedRows | WindowedRows:
        """The matrix that `_packed` gave, from its arrays."""
        return PackedRows.of(arrays)

    @abstractmethod
    def _convolution(self, step: Convolve) -> CompiledConvolution:
        """Code of a convolution."""

    @abstractmethod
    def _convolve(self, step: Convolve) -> None:
        """Emit a convolution."""

    @abstractmethod
    def _pool(self, step: Pool) -> None:
        """Emit a pooling."""

    @abstractmethod
    def _flatten(self, step: Flatten) -> None:
        """Emit what makes features out of planes, if anything has to be done."""

    @abstractmethod
    def _multiply(self, step: Multiply) -> None:
        """Emit a linear layer."""

    @abstractmethod
    def _softmax(self, step: Softmax) -> None:
        """Emit a softmax over flat features."""

    @abstractmethod
    def _extent(self, value: Value) -> tuple[int, int]:
        """Rows, and vectors of a row, that hold pixels."""

    def _prepare(self, value: Value) -> None:  # noqa: B027 - most layouts have nothing to do
        """Emit what has to be done to the memory of a value before it is written."""

    def _temporaries(self, step: NetworkStep) -> list[Value]:
        """Memory that is needed during one step only."""
        return []

    def _place(self, network: NetworkSteps) -> int:
        """Give each value its place in the arena, by the steps during which it is needed; bytes in all."""
        end = len(network.steps)
        spans: dict[int, tuple[Value, int, int]] = {}

        def needed(value: Value, turn: int) -> None:
            _, first, last = spans.get(id(value), (value, turn, turn))
            spans[id(value)] = (value, min(first, turn), max(last, turn))

        for name in network.inputs:
            needed(self.values[name], -1)
        for turn, step in enumerate(network.steps):
            for value in (*(self.values[name] for name in (*step.inputs, step.output)), *self._temporaries(step)):
                needed(value, turn)
        for name in network.outputs:
            needed(self.values[name], end)
        offsets, size = first_fit([(value.planes.bytes, first, last) for value, first, last in spans.values()])
        for (value, _, _), offset in zip(spans.values(), offsets, strict=True):
            value.offset = offset
        return size

    def at(self, value: Value) -> int:
        """Address of the value's start."""
        return self.arena.ctypes.data + value.offset

    def seen_as(self, name: str) -> Value:
        """A value as its readers see it: features that share the memory of planes lie one behind the other."""
        value, shape = self.values[name], self.network.shapes[name]
        if len(shape) == len(value.shape):
            return value
        return replace(value, shape=shape, planes=Planes(shape[0], 1, 1, self.vectors))

    def ends(self, **values: Value) -> dict[str, int]:
        """Fields that say where values lie."""
        return {
            f"{what}_{part}": number
            for what, value in values.items()
            for part, number in (
                ("at", self.at(value) + value.inside),
                ("plane", value.planes.plane_bytes),
                ("row", value.planes.row_bytes),
            )
        }

    def emit(self, operation: Operation, items: int, **fields: int) -> np.ndarray:
        """Append an operation; fields that it does not have are left out, those not given are 0."""
        table = operation.layout.table(items, **{name: fields.get(name, 0) for name in operation.layout.fields})
        self._program.append((operation, table))
        return table

    def emit_patches(self, operation: Operation, planes: int, rows: int, **fields: int) -> np.ndarray:
        """Append an operation over planes; each thread begins with the same part of the rows in all of these."""
        return self.emit(operation, **patch_items(planes, rows, self.threads), **fields)

    def keep(self, array: np.ndarray) -> int:
        """Address of an array that lives as long as the engine."""
        array = np.ascontiguousarray(array)
        self._keep.append(array)
        return array.ctypes.data

    def inverse(self, step: Pool) -> np.ndarray:
        """What a mean is multiplied by: float32, [rows, columns]."""
        rows, columns = (axis.counted(step.include_padding) for axis in (step.rows, step.columns))
        count = np.full((len(rows), len(columns)), step.divisor) if step.divisor else rows[:, None] * columns
        return (1 / count).astype(np.float32)

    def compiled(
        self, step: Convolve, dense: Callable[[], np.ndarray], planes: int, outputs: Outputs, source: Planes
    ) -> CompiledConvolution:
        """Choose and generate the code of a convolution whose memory is known; `planes` are those of a group."""
        filters = len(step.weight)
        return compiled(
            ConvolutionWork(
                dense,
                step.weight.digest,
                Density(filters, planes, max(step.weight.nonzeros, 1) / max(1, filters * planes)),
                step.bias,
                step.groups,
                outputs,
                source,
                self.values[step.output].planes,
                self.values[step.inputs[1]].planes if len(step.inputs) > 1 else None,
                step.rectify,
                self.threads,
            ),
            self._tune_s * _products(step, self.network) / max(1, self._work),
        )

    def emit_convolution(self, step: Convolve, start: int) -> None:
        """Append a convolution that reads from `start`."""
        self._convolutions.append((len(self._program), step, start))
        self._program.append((work_loop(), np.zeros(0, np.int64)))

    def _pack_products(self) -> None:
        missing = [step for _, step in self._products if step.output not in self.code]
        for step, rows in zip(missing, side_by_side([partial(self._found, step) for step in missing]), strict=True):
            self.code[step.output] = rows
        for turn, step in self._products:
            self._multiply(step)
            self._program[turn] = self._program.pop()

    def _found(self, step: Multiply) -> PackedRows | WindowedRows:
        """Matrix of a linear layer, from the cache where it is there; from then on it alone holds the nonzeros."""
        key = code_key("rows", generator(self.vectors), type(self), step.weight.digest)
        rows = self._rows(cached(key, lambda: self._packed(step).arrays()))
        step.weight.release(partial(rows.unpacked, step.weight.shape))
        return rows

    def _compile_convolutions(self) -> None:
        for _, step, _ in self._convolutions:
            if step.output not in self.code:
                self.code[step.output] = self._convolution(step)
        most = max([0, *(self.code[step.output].scratch_bytes for _, step, _ in self._convolutions)])
        self.scratch = aligned_zeros((self.threads * most // 4 + 16,))
        for turn, step, start in self._convolutions:
            values = [self.values[name] for name in (step.output, *step.inputs[1:])]
            written, *added = (self.at(value) + value.inside for value in values)
            table = self.code[step.output].table(start, written, self.scratch.ctypes.data, *added)
            self._program[turn] = work_loop(), table

    def emit_product(self, step: Multiply, operation: Operation, items: int, passes: int = 1) -> None:
        """Append a linear layer."""
        bias = np.zeros(-(-len(step.weight) // self.vectors.lanes) * self.vectors.lanes, np.float32)
        bias[: len(step.bias)] = step.bias
        parts = {name: part for name, part in vars(self.code[step.output]).items() if isinstance(part, np.ndarray)}
        self.emit(
            operation,
            items,
            source_at=self.at(self.values[step.inputs[0]]),
            target_at=self.at(self.values[step.output]),
            bias_at=self.keep(bias),
            **{f"{name}_at": self.keep(part) for name, part in parts.items()},
            passes=passes,
            height=len(step.weight),
        )

    def _add(self, step: NetworkStep) -> None:
        target = self.values[step.output]
        self._prepare(target)
        sources = [self.seen_as(name) for name in step.inputs]
        rows, columns = self._extent(target)
        match step:
            case Convolve():
                self._convolve(step)
            case Pool():
                self._pool(step)
            case Flatten():
                self._flatten(step)
            case Multiply():
                self._products.append((len(self._program), step))
                self._program.append((work_loop(), np.zeros(0, np.int64)))
            case Normalize():
                operation = response_normalization(self.vectors, step.size, step.alpha, step.beta, step.k)
                ends = self.ends(source=sources[0], target=target)
                self.emit(operation, rows, **ends, planes=target.shape[0], columns=columns)
            case Softmax() if len(self.network.shapes[step.output]) == 3:
                ends = self.ends(source=sources[0], target=target)
                self.emit(softmax_over_planes(self.vectors), rows, **ends, planes=target.shape[0], columns=columns)
            case Softmax():
                self._softmax(step)
            case Chain():
                planes, flat, scales = self._chain(step, target)
                ends = self.ends(source=sources[0], other=sources[-1], target=target)
                operation = elementwise(self.vectors, step.steps, flat)
                self.emit_patches(operation, planes, rows, **ends, columns=columns, scales_at=self.keep(scales))
            case Concatenate():
                first = 0
                for source in sources:
                    ends = self.ends(source=source, target=target)
                    ends["target_at"] += first * target.planes.plane_bytes
                    self.emit_patches(elementwise(self.vectors, ()), source.shape[0], rows, **ends, columns=columns)
                    first += source.shape[0]
            case _:
                raise UnsupportedLayer(f"{step.layer}: {type(step).__name__} is not known to the native engine")

    def _chain(self, step: Chain, value: Value) -> tuple[int, bool, np.ndarray]:
        """Planes that an elementwise step works on, whether they are flat features side by side, and its scales."""
        return value.shape[0], False, np.zeros((1, 2), np.float32) if step.scales is None else step.scales

    def run(self) -> None:
        """Run every operation once, on no more threads than torch may use."""
        threads = min(self.threads, torch.get_num_threads())
        if self.seconds is None:
            run_sequence_at(*self.sequence, threads)
            return
        first = 0
        for name, end in self._ends:
            begin = time.perf_counter()
            run_sequence_at(self.sequence[0] + first * self._sequence.strides[0], end - first, threads)
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begin
            first = end
