"""Batch-lanes engine: a network for as many images as a vector has lanes, side by side."""

from collections.abc import Sequence
from math import prod

import numpy as np

from spokeshave.jit.executable_memory import aligned_zeros
from spokeshave.targets.cpu_sparse.batch_lanes import few_pixels, packer, unpacker
from spokeshave.targets.cpu_sparse.borders import zero_border
from spokeshave.targets.cpu_sparse.compiled_convolution import CompiledConvolution, Planes
from spokeshave.targets.cpu_sparse.memory_plan import Value
from spokeshave.targets.cpu_sparse.native_engine import NativeEngine
from spokeshave.targets.cpu_sparse.network_steps import Convolve, Flatten, Multiply, NetworkSteps, Pool, Softmax
from spokeshave.targets.cpu_sparse.plane_operations import elementwise
from spokeshave.targets.cpu_sparse.pooling import batch_lanes_pooling
from spokeshave.targets.cpu_sparse.softmax import softmax_over_planes
from spokeshave.targets.cpu_sparse.sparse_linear import (
    ROWS_AN_ITEM,
    PackedRows,
    images_product,
    pack_for_images,
)
from spokeshave.targets.cpu_sparse.tile_choice import Outputs


class BatchLanesEngine(NativeEngine):
    """Runs the steps of a network on `vectors.lanes` images at once."""

    def _lay_out(self, network: NetworkSteps) -> dict[str, Value]:
        self._inputs: list[np.ndarray] = []
        self._outputs: list[np.ndarray] = []
        self._nowhere = np.zeros(1, np.float32)
        self._lane = np.arange(self.vectors.lanes)
        borders: dict[str, tuple[int, int]] = {}
        for step in network.steps:
            if isinstance(step, Convolve):
                known = borders.get(step.inputs[0], (0, 0))
                borders[step.inputs[0]] = (max(known[0], step.padding[0]), max(known[1], step.padding[1]))
        values = {}
        for name in (*network.inputs, *(step.output for step in network.steps)):
            shape, border = network.shapes[name], borders.get(name, (0, 0))
            if len(shape) == 3:
                rows, columns = shape[1] + 2 * border[0], shape[2] + 2 * border[1]
                planes = Planes(shape[0] + self.spare_planes(name, network), rows, columns, self.vectors)
            else:
                planes = Planes(shape[0], 1, 1, self.vectors)
            values[name] = Value(shape, planes, border)
        for step in network.steps:
            if isinstance(step, Flatten) and values[step.inputs[0]].border == (0, 0):
                values[step.output] = values[step.inputs[0]]  # planes without a border are features already
        return values

    def _extent(self, value: Value) -> tuple[int, int]:
        return value.shape[1:] if len(value.shape) == 3 else (1, 1)  # type: ignore[return-value]

    def _enter(self, value: Value) -> None:
        self._prepare(value)
        self._inputs.append(np.zeros(self.vectors.lanes, np.int64))
        self._exchange(True, value, self._inputs[-1])

    def _leave(self, value: Value) -> None:
        self._outputs.append(np.zeros(self.vectors.lanes, np.int64))
        self._exchange(False, value, self._outputs[-1])
        self._nowhere = aligned_zeros((max(len(self._nowhere), prod(value.shape)),))

    def _exchange(self, pack: bool, value: Value, images: np.ndarray) -> None:
        """Move a value between lanes and images; as one run of pixels where no border is in between."""
        shape = value.shape if len(value.shape) == 3 else (value.shape[0], 1, 1)
        if value.border == (0, 0):
            shape = (1, prod(shape), 1)
        channels, rows, columns = shape
        row = value.planes.row_bytes if value.border != (0, 0) else self.vectors.bytes
        if rows * columns < self.vectors.lanes:
            operation = few_pixels(self.vectors, pack)
        else:
            operation = (packer if pack else unpacker)(self.vectors)
        places = np.arange(rows)[:, None] * row + np.arange(columns) * self.vectors.bytes
        self.emit(
            operation,
            channels,
            images_at=images.ctypes.data,
            image_plane=4 * rows * columns,
            pixels=rows * columns,
            lanes_at=self.at(value) + value.inside,
            lanes_plane=value.planes.plane_bytes,
            places_at=self.keep(places.ravel().astype(np.int64)),
        )

    def aim(self, inputs: Sequence[int], results: Sequence[int], images: int) -> None:
        """Say what the next run reads and writes; up to `vectors.lanes` images."""
        lane = self._lane if images == len(self._lane) else np.minimum(self._lane, images - 1)
        for places, address, size in zip(self._inputs, inputs, self.input_bytes, strict=True):
            np.add(lane * size, address, out=places)
        for places, address, size in zip(self._outputs, results, self.output_bytes, strict=True):
            np.add(self._lane * size, address, out=places)
            places[images:] = self._nowhere.ctypes.data

    def _prepare(self, value: Value) -> None:
        if value.border != (0, 0):
            self.emit(
                zero_border(self.vectors),
                value.shape[0],
                target_at=self.at(value),
                target_plane=value.planes.plane_bytes,
                target_row=value.planes.row_bytes,
                rows=value.planes.rows,
                columns=value.planes.columns,
                above=value.border[0],
                beside=value.border[1],
            )

    def _convolution(self, step: Convolve) -> CompiledConvolution:
        _, rows, columns = self.values[step.output].shape
        kernel = (step.weight.shape[2], step.weight.shape[3])
        source = self.values[step.inputs[0]].planes
        outputs = Outputs(rows, columns, kernel, step.stride, step.dilation, source.columns)
        return self.compiled(step, step.weight.dense, step.weight.shape[1], outputs, source)

    def _convolve(self, step: Convolve) -> None:
        source = self.values[step.inputs[0]]
        corner = source.border[0] - step.padding[0], source.border[1] - step.padding[1]
        self.emit_convolution(step, self.at(source) + source.planes.place(*corner))

    def _pool(self, step: Pool) -> None:
        target = self.values[step.output]
        sizes = [(axis.window, axis.dilation) for axis in (step.rows, step.columns)]
        self.emit_patches(
            batch_lanes_pooling(self.vectors, step.mean, *zip(*sizes, strict=True)),
            target.shape[0],
            target.shape[1],
            **self.ends(source=self.values[step.inputs[0]], target=target),
            columns=target.shape[2],
            row_ranges_at=self.keep(step.rows.ranges()),
            column_ranges_at=self.keep(step.columns.ranges()),
            inverse_at=self.keep(self.inverse(step)),
        )

    def _flatten(self, step: Flatten) -> None:
        source, target = self.values[step.inputs[0]], self.values[step.output]
        if source is target:
            return
        channels, rows, columns = source.shape
        ends = self.ends(source=source, target=target)
        ends |= {"target_plane": rows * columns * self.vectors.bytes, "target_row": columns * self.vectors.bytes}
        self.emit_patches(elementwise(self.vectors, ()), channels, rows, **ends, columns=columns)

    def _multiply(self, step: Multiply) -> None:
        packed = self.code[step.output]
        operation = images_product(self.vectors, packed.values.itemsize, packed.columns.itemsize, step.rectify)
        self.emit_product(step, operation, -(-len(step.weight) // ROWS_AN_ITEM), packed.passes)

    def _softmax(self, step: Softmax) -> None:
        # A feature is a plane of one pixel, also where the value it comes from is planes that became features.
        ends = self.ends(source=self.values[step.inputs[0]], target=self.values[step.output])
        ends |= {"source_plane": self.vectors.bytes, "target_plane": self.vectors.bytes}
        (features,) = self.network.shapes[step.output]
        self.emit(softmax_over_planes(self.vectors), 1, **ends, planes=features, columns=1)

    def _packed(self, step: Multiply) -> PackedRows:
        return pack_for_images(step.weight, self.vectors.bytes)
