"""Pixel-lanes engine: a network for one image, neighbouring pixels of a row side by side."""

from collections.abc import Sequence

import numpy as np

from spokeshave.jit.code_cache import Arrays
from spokeshave.jit.executable_memory import aligned_zeros
from spokeshave.targets.cpu_sparse.compiled_convolution import CompiledConvolution, Planes
from spokeshave.targets.cpu_sparse.memory_plan import Value
from spokeshave.targets.cpu_sparse.native_engine import NativeEngine
from spokeshave.targets.cpu_sparse.network_steps import (
    Chain,
    Convolve,
    Flatten,
    Multiply,
    NetworkStep,
    NetworkSteps,
    Pool,
    Softmax,
)
from spokeshave.targets.cpu_sparse.pixel_lanes import RowShifts, row_copier, shifter
from spokeshave.targets.cpu_sparse.pooling import pixel_lanes_pooling
from spokeshave.targets.cpu_sparse.softmax import softmax_along_row
from spokeshave.targets.cpu_sparse.sparse_linear import PackedRows, gathering_product, pack_for_gathering
from spokeshave.targets.cpu_sparse.tile_choice import Outputs
from spokeshave.targets.cpu_sparse.windowed_rows import WindowedRows, fits, pack_windows, windowed_product


class PixelLanesEngine(NativeEngine):
    """Runs the steps of a network on one image."""

    def _lay_out(self, network: NetworkSteps) -> dict[str, Value]:
        self._inputs: list[list[tuple[np.ndarray, int]]] = []
        self._outputs: list[tuple[np.ndarray, int]] = []
        self._shifted: dict[str, Value] = {}
        values = {}
        for name in (*network.inputs, *(step.output for step in network.steps)):
            shape = network.shapes[name]
            if len(shape) == 3:
                planes = Planes(
                    shape[0] + self.spare_planes(name, network), shape[1], self._vectors(shape[2]), self.vectors
                )
            else:
                planes = Planes(1, 1, self._vectors(shape[0]), self.vectors)
            values[name] = Value(shape, planes)
        for step in network.steps:
            if isinstance(step, Convolve) and not self._reads_rows_as_they_are(step):
                channels, rows, _ = values[step.inputs[0]].shape
                columns = self._vectors(values[step.output].shape[2])
                planes = Planes(channels * step.weight.shape[3], rows + 2 * step.padding[0], columns, self.vectors)
                self._shifted[step.output] = Value((), planes, (step.padding[0], 0))
        return values

    def _vectors(self, pixels: int) -> int:
        return -(-pixels // self.vectors.lanes)

    @staticmethod
    def _reads_rows_as_they_are(step: Convolve) -> bool:
        return step.weight.shape[3] == 1 and step.stride[1] == 1 and step.padding == (0, 0)

    def _temporaries(self, step: NetworkStep) -> list[Value]:
        return [self._shifted[step.output]] if step.output in self._shifted else []

    def _extent(self, value: Value) -> tuple[int, int]:
        return (value.shape[1] if len(value.shape) == 3 else 1), value.planes.columns

    def _chain(self, step: Chain, value: Value) -> tuple[int, bool, np.ndarray]:
        planes, flat, scales = super()._chain(step, value)
        if len(value.shape) == 3:
            return planes, flat, scales
        padded = np.zeros((value.planes.columns * self.vectors.lanes, 2), np.float32)
        padded[: len(scales)] = scales
        return 1, True, padded.reshape(-1, self.vectors.lanes, 2).transpose(0, 2, 1)

    def _enter(self, value: Value) -> None:
        self._inputs.append([])
        if self._only_shifted(value):
            return  # the convolutions read what the caller gave
        channels, rows, columns = value.shape if len(value.shape) == 3 else (1, 1, value.shape[0])
        copier = row_copier(self.vectors, columns)
        ends = {"source_plane": 4 * rows * columns, "source_row": 4 * columns} | self.ends(target=value)
        self._inputs[-1].append((self.emit_patches(copier, channels, rows, **ends), copier.layout.place("source_at")))

    def _only_shifted(self, value: Value) -> bool:
        """Whether an input is read by convolutions alone, and by them as what they shift."""
        readers = [step for step in self.network.steps if any(self.values[name] is value for name in step.inputs)]
        return all(
            step.output in self._shifted and all(self.values[name] is not value for name in step.inputs[1:])
            for step in readers
        ) and not any(self.values[name] is value for name in self.network.outputs)

    def _leave(self, value: Value) -> None:
        channels, rows, columns = value.shape if len(value.shape) == 3 else (1, 1, value.shape[0])
        table = self.emit_patches(
            row_copier(self.vectors, columns),
            channels,
            rows,
            **self.ends(source=value),
            target_plane=4 * rows * columns,
            target_row=4 * columns,
        )
        self._outputs.append((table, row_copier(self.vectors, columns).layout.place("target_at")))

    def aim(self, inputs: Sequence[int], results: Sequence[int], images: int) -> None:
        """Say what the next run reads and writes; one image."""
        assert images == 1
        for readers, address in zip(self._inputs, inputs, strict=True):
            for table, place in readers:
                table[place] = address
        for (table, place), address in zip(self._outputs, results, strict=True):
            table[place] = address

    def _convolution(self, step: Convolve) -> CompiledConvolution:
        _, rows, columns = self.values[step.output].shape
        filters, planes, height, width = step.weight.shape

        def dense() -> np.ndarray:
            # The kernel's columns become planes: what is left to the routines is a kernel one column wide.
            return step.weight.dense().transpose(0, 1, 3, 2).reshape(filters, planes * width, height, 1)

        memory = self._shifted.get(step.output, self.values[step.inputs[0]]).planes
        strides, dilations = (step.stride[0], 1), (step.dilation[0], 1)
        outputs = Outputs(rows, self._vectors(columns), (height, 1), strides, dilations, memory.columns)
        return self.compiled(step, dense, planes * width, outputs, memory)

    def _convolve(self, step: Convolve) -> None:
        source, shifted = self.values[step.inputs[0]], self._shifted.get(step.output)
        if shifted is None:
            self.emit_convolution(step, self.at(source))
            return
        channels, rows, columns = source.shape
        shifts = RowShifts(
            columns,
            self.values[step.output].shape[2],
            step.weight.shape[3],
            step.stride[1],
            step.dilation[1],
            step.padding[1],
        )
        direct = step.inputs[0] in self.network.inputs and self._only_shifted(source)
        ends = self.ends(source=source, target=shifted) | {"target_at": self.at(shifted)}
        if direct:
            ends |= {"source_plane": 4 * rows * columns, "source_row": 4 * columns}
        operation = shifter(self.vectors, shifts, packed=direct)
        table = self.emit_patches(operation, channels, rows, **ends, border=step.padding[0])
        if direct:
            number = self.network.inputs.index(step.inputs[0])
            self._inputs[number].append((table, operation.layout.place("source_at")))
        self.emit_convolution(step, self.at(shifted))

    def _pool(self, step: Pool) -> None:
        target = self.values[step.output]
        inverse = aligned_zeros((target.shape[1], target.planes.columns * self.vectors.lanes))
        inverse[:, : target.shape[2]] = self.inverse(step)
        self._keep.append(inverse)
        self.emit_patches(
            pixel_lanes_pooling(self.vectors, step.mean, step.columns, step.rows.dilation),
            target.shape[0],
            target.shape[1],
            **self.ends(source=self.values[step.inputs[0]], target=target),
            row_ranges_at=self.keep(step.rows.ranges()),
            inverse_at=inverse.ctypes.data,
        )

    def _flatten(self, step: Flatten) -> None:
        source, target = self.values[step.inputs[0]], self.values[step.output]
        channels, rows, columns = source.shape
        ends = self.ends(source=source, target=target)
        ends |= {"target_plane": 4 * rows * columns, "target_row": 4 * columns}
        self.emit_patches(row_copier(self.vectors, columns), channels, rows, **ends)

    def _multiply(self, step: Multiply) -> None:
        packed = self.code[step.output]
        if isinstance(packed, WindowedRows):
            self.emit_product(step, windowed_product(step.rectify), len(packed.starts) - 1)
        else:
            operation = gathering_product(self.vectors, packed.values.itemsize, packed.columns.itemsize, step.rectify)
            self.emit_product(step, operation, len(packed.rows) // self.vectors.lanes)

    def _softmax(self, step: Softmax) -> None:
        ends = self.ends(source=self.values[step.inputs[0]], target=self.values[step.output])
        self.emit(softmax_along_row(self.vectors, *self.network.shapes[step.output]), 1, **ends)

    def _packed(self, step: Multiply) -> PackedRows | WindowedRows:
        if fits(step.weight, self.vectors):
            return pack_windows(step.weight)
        return pack_for_gathering(step.weight, self.vectors.lanes)

    def _rows(self, arrays: Arrays) -> PackedRows | WindowedRows:
        return WindowedRows.of(arrays) if "heads" in arrays else super()._rows(arrays)
