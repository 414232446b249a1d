"""Compiled convolution: one direct sparse convolution as machine code for one geometry, layout and CPU.

Direct sparse convolution (Park et al., ICLR 2017): O(n, y, x) += W(n, c, r, s) * I(c, y + r, x + s) for every nonzero
weight over a whole tile of outputs, without ever building the matrix of patches.

Memory is [groups of lanes, planes, rows, row vectors, lanes]. With batch lanes a vector holds one pixel of neighbouring
images, planes are channels. With pixel lanes it holds neighbouring outputs of a row; planes are (channel, kernel
column) pairs, each a copy shifted by that column, so that every load is aligned.
"""

from dataclasses import dataclass

import numpy as np

from spokeshave.jit.assembler import assemble_routines
from spokeshave.jit.executable_memory import ExecutableMemory, aligned_zeros
from spokeshave.jit.host_cpu import VectorSet
from spokeshave.targets.cpu_sparse.arm_instructions import ArmInstructions
from spokeshave.targets.cpu_sparse.call_program import CallProgram, CutWeight, Tiling, build_program
from spokeshave.targets.cpu_sparse.tile_routines import Block, Pitches, write_routines
from spokeshave.targets.cpu_sparse.work_loop import item_order, work_loop
from spokeshave.targets.cpu_sparse.x86_instructions import X86Instructions


@dataclass(frozen=True)
class Planes:
    """Memory of activations, without the axis of lane groups.

    Attributes:
        planes: how many.
        rows: of each plane.
        columns: vectors of a row.
        vectors: set of instructions, for the bytes of a vector.
    """

    planes: int
    rows: int
    columns: int
    vectors: VectorSet

    @property
    def row_bytes(self) -> int:
        """From one row to the next."""
        return self.columns * self.vectors.bytes

    @property
    def plane_bytes(self) -> int:
        """From one plane to the next."""
        return self.rows * self.row_bytes

    def place(self, row: int, column: int) -> int:
        """Distance of a vector from the start of its plane."""
        return row * self.row_bytes + column * self.vectors.bytes

    @property
    def bytes(self) -> int:
        """Of all planes."""
        return self.planes * self.plane_bytes

    def empty(self, groups: int) -> np.ndarray:
        """Zeros for some groups of lanes: [groups, planes, rows, columns, lanes]."""
        return aligned_zeros((groups, self.planes, self.rows, self.columns, self.vectors.lanes))


def starts(outputs: int, tile: int) -> list[int]:
    """First output of each tile along one axis; the last tile overlaps the one before where they do not fit.

    Example:
        >>> starts(13, 5)
        [0, 5, 8]
    """
    return [*range(0, outputs - tile, tile), outputs - tile]


@dataclass(frozen=True, eq=False)
class ConvolutionCode:
    """What was generated for a convolution: plain arrays, which can be kept on disk.

    Attributes:
        text: uint8, machine code.
        entries: int64, where the program of each share of the filters begins in it.
        stream: int32, weights and offsets that the programs read, one after another.
        ends: int64, where each share's part of the stream ends.
        tiles: int64, [tiles, 3]: offsets in input, output and residual.
        scratch_bytes: of memory that each thread needs, in an int64 of one element.
    """

    text: np.ndarray
    entries: np.ndarray
    stream: np.ndarray
    ends: np.ndarray
    tiles: np.ndarray
    scratch_bytes: np.ndarray

    @classmethod
    def generate(
        cls,
        weight: CutWeight,
        bias: np.ndarray,
        groups: int,
        outputs: tuple[int, int],
        block: Block,
        source: Planes,
        target: Planes,
        residual: Planes | None = None,
        tiling: Tiling | None = None,
    ) -> "ConvolutionCode":
        """Generate.

        Args:
            weight: [filters, planes of a group, height, width].
            bias: float32, [filters].
            groups: into which planes and filters fall.
            outputs: rows and vectors of a row of each output plane.
            block: what stays in registers.
            source: memory of the input, its padding included.
            target: memory of the output; `spare_planes` more planes than filters.
            residual: memory of what is added to the output, if anything is.
            tiling: choices that change the speed only.
        """
        vectors = source.vectors
        pitches = Pitches(
            source.row_bytes,
            target.row_bytes,
            target.plane_bytes,
            residual.row_bytes if residual else 0,
            residual.plane_bytes if residual else 0,
        )
        program: CallProgram = build_program(
            weight, bias, groups, block, pitches, source.plane_bytes, vectors.bytes, tiling or Tiling()
        )
        code = (ArmInstructions if vectors is VectorSet.NEON else X86Instructions)(vectors)
        labels = write_routines(code, block, pitches, program.shapes, program.macros)
        routines, places = assemble_routines(code.lines)
        where = np.array([places[label] for label in labels], np.int64)
        text, entries = bytearray(routines), []
        for share in program.shares:
            text += bytes(-len(text) % 64)
            entries.append(len(text))
            text += code.calls(where[share.calls], len(text))
        tile = block.tile
        tiles = [
            (
                y * tile.stride[0] * pitches.input_row + x * tile.stride[1] * vectors.bytes,
                y * pitches.output_row + x * vectors.bytes,
                y * pitches.residual_row + x * vectors.bytes,
            )
            for y in starts(outputs[0], tile.height)
            for x in starts(outputs[1], tile.width)
        ]
        streams = [share.stream for share in program.shares]
        scratch = (-(-len(bias) // block.filters) + 1) * block.sums * vectors.bytes
        return cls(
            np.frombuffer(bytes(text), np.uint8),
            np.array(entries, np.int64),
            np.concatenate(streams),
            np.cumsum([len(stream) for stream in streams]),
            np.array(tiles, np.int64),
            np.array([scratch], np.int64),
        )


class CompiledConvolution:
    """A convolution that reads and writes `Planes`, ready to run.

    Args:
        code: generated for this CPU.
        threads: that will run it, at the most.

    Raises:
        JitRefused: the system does not let this process run code that it made.

    Attributes:
        scratch_bytes: of memory that each thread needs.
        bytes: of machine code and stream.
    """

    def __init__(self, code: ConvolutionCode, threads: int = 1) -> None:
        self.memory = ExecutableMemory(code.text.tobytes())
        self._stream = aligned_zeros(code.stream.shape, np.int32)
        self._stream[...] = code.stream
        begins = self._stream.ctypes.data + 4 * np.insert(code.ends[:-1], 0, 0)
        shares = np.stack([self.memory.address + code.entries, begins], axis=1)
        tile, share = np.array(item_order(len(code.tiles), len(shares), threads)).T
        self._places = np.concatenate([code.tiles[tile], shares[share]], axis=1)
        self.scratch_bytes = int(code.scratch_bytes[0])
        self.bytes = self.memory.size + self._stream.nbytes

    def table(self, source: int, target: int, scratch: int, residual: int = 0) -> np.ndarray:
        """Arguments of the operation `work_loop`.

        Args:
            source: address of what output (0, 0) reads first.
            target: address of output (0, 0) of the first filter.
            scratch: address of `scratch_bytes` for each thread.
            residual: address of what is added to output (0, 0).
        """
        return work_loop().layout.table(
            len(self._places),
            places_at=self._places.ctypes.data,
            input_at=source,
            output_at=target,
            residual_at=residual,
            scratch_at=scratch,
            scratch_thread=self.scratch_bytes,
        )
