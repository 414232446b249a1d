"""Tuning: which tile and which passes are fastest for a convolution is measured once and kept for this CPU.

What the arithmetic of `tile_choice.py` prefers is timed beside the next best blocks, then beside variations of the
winner, in turns, until the time allowed is over. With several threads, each first writes its band of the input's rows
and afterwards its band of the output's, as the steps before and after do: what has to travel between the cores' caches
is part of the time. The choice is kept by CPU, geometry and sparsity, the code itself by
all that it depends on.
"""

import dataclasses
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from spokeshave.jit.code_cache import cached, code_key, generator
from spokeshave.jit.executable_memory import aligned_zeros
from spokeshave.jit.host_cpu import host_cpu
from spokeshave.jit.operation_loops import patch_items
from spokeshave.jit.operation_sequence import run_sequence
from spokeshave.targets.cpu_sparse.call_program import CutWeight, Tiling
from spokeshave.targets.cpu_sparse.compiled_convolution import CompiledConvolution, ConvolutionCode, Planes
from spokeshave.targets.cpu_sparse.plane_operations import elementwise
from spokeshave.targets.cpu_sparse.tap_shapes import Tile
from spokeshave.targets.cpu_sparse.tile_choice import (
    MOST_FILTERS,
    Choice,
    Density,
    Outputs,
    first_choice,
    other_blocks,
    taps_beside,
    variations,
)
from spokeshave.targets.cpu_sparse.tile_routines import Block
from spokeshave.targets.cpu_sparse.work_loop import work_loop
from spokeshave.user_cache import FactCache

TUNE_S = 0.3
"""Seconds that tuning may take for a network and layout, unless the caller says otherwise."""
OTHER_BLOCKS = 3
ROUNDS = 4
HOPELESS = 1.2
"""Choices this much slower than the best in the first timed turn get no more turns."""
_METHOD = 6
"""Number of the way of measuring: what another way found is not taken from the user's cache."""
MOST_BYTES = 256 << 20
"""Layers whose activations take more are not tuned: what tuning allocates would stand out in the memory of the run."""
_TILINGS = FactCache("tilings")


@dataclass(frozen=True, eq=False)
class ConvolutionWork:
    """A convolution and the memory that it works on, before anything that changes only its speed is chosen.

    Attributes:
        dense: makes the weight as the routines see it: float32, [filters, planes of a group, height, width].
        digest: of the weight.
        density: of the weight.
        bias: float32, [filters].
        groups: into which planes and filters fall.
        outputs: of the layer.
        source: memory of the input, its padding included.
        target: memory of the output.
        residual: memory of what is added to the output, if anything is.
        rectify: end with max(0, x).
        threads: that will run it.
    """

    dense: Callable[[], np.ndarray]
    digest: str
    density: Density
    bias: np.ndarray
    groups: int
    outputs: Outputs
    source: Planes
    target: Planes
    residual: Planes | None
    rectify: bool
    threads: int

    @property
    def vectors(self):
        """Set of instructions."""
        return self.source.vectors

    @cached_property
    def _cuts(self) -> dict[int, CutWeight]:
        return {}

    def cut(self, most_taps: int) -> CutWeight:
        """The weight cut into shapes of so many taps at the most, the same for every choice that has room for them."""
        if most_taps not in self._cuts:
            self._cuts[most_taps] = CutWeight.of(self.dense(), self.first.block.tile, most_taps)
        return self._cuts[most_taps]

    @cached_property
    def first(self) -> Choice:
        """The choice by arithmetic."""
        return first_choice(self.outputs, self.vectors, self.density, self.rectify, self.threads)

    @cached_property
    def _generated(self) -> dict[Choice, ConvolutionCode]:
        return {}

    def generate(self, choice: Choice) -> ConvolutionCode:
        """Code for a choice; the same again for one that was tried."""
        if choice not in self._generated:
            shape = (self.outputs.rows, self.outputs.columns)
            ends = (self.source, self.target, self.residual)
            cut = self.cut(taps_beside(choice.block.sums, self.vectors))
            code = ConvolutionCode.generate(cut, self.bias, self.groups, shape, choice.block, *ends, choice.tiling)
            self._generated[choice] = code
        return self._generated[choice]

    @property
    def geometry(self) -> str:
        """All that the speed depends on, but for the places of the nonzeros."""
        memory = [part and (part.planes, part.rows, part.columns) for part in (self.source, self.target, self.residual)]
        half_octave = round(2 * float(np.log2(self.density.taps)))
        facts = (self.density.filters, self.density.planes, half_octave, self.groups, self.outputs, memory)
        return f"{_METHOD} {host_cpu().name} {self.vectors.name} {self.threads} {self.rectify} {facts}"


def compiled(work: ConvolutionWork, budget_s: float) -> CompiledConvolution:
    """Code of a convolution, tuned.

    Args:
        work: the convolution.
        budget_s: seconds that tuning may take, where this geometry was not tuned before; 0 for none.
    """
    choice = tuned(work, budget_s)
    key = code_key(
        generator(work.vectors), work.digest, work.bias,
        work.groups, work.outputs, work.source, work.target, work.residual, choice,
    )  # fmt: skip
    return CompiledConvolution(ConvolutionCode(**cached(key, lambda: vars(work.generate(choice)))), work.threads)


def tuned(work: ConvolutionWork, budget_s: float) -> Choice:
    """The fastest choice known; measured where there is time.

    Args:
        work: the convolution.
        budget_s: seconds for measuring.
    """
    known = _decoded(_TILINGS.get(work.geometry), work)
    if known is not None:
        return known
    if budget_s <= 0 or sum(part.bytes for part in (work.source, work.target, work.residual) if part) > MOST_BYTES:
        return work.first
    best = _measured(work, time.monotonic() + budget_s)
    _TILINGS.keep({work.geometry: _encoded(best)})
    return best


class _Race:
    """Choices that run on the same memory in turns."""

    def __init__(self, work: ConvolutionWork, deadline: float) -> None:
        self.work, self.deadline = work, deadline
        parts = (work.source, work.target, work.residual)
        self._memory = [aligned_zeros((part.bytes // 4,)) if part else None for part in parts]
        self._runners: dict[Choice, tuple[np.ndarray, list[object]]] = {}
        self.times: dict[Choice, list[float]] = {}
        self._rewriting: list[np.ndarray] = []
        self._before = self._after = None
        if work.threads > 1:
            self._before, self._after = self._rewrite(work.source, 0), self._rewrite(work.target, 1)

    def _rewrite(self, planes: Planes, number: int) -> tuple[int, int]:
        """Operation by which each thread writes its band of rows again, as it is."""
        operation = elementwise(self.work.vectors, ())
        at = self._memory[number].ctypes.data  # type: ignore[union-attr]
        patches = patch_items(planes.planes, planes.rows, self.work.threads)
        ends = {"source_at": at, "source_plane": planes.plane_bytes, "source_row": planes.row_bytes}
        ends |= {"target_at": at, "target_plane": planes.plane_bytes, "target_row": planes.row_bytes}
        fields = dict.fromkeys(operation.layout.fields, 0) | ends | {"columns": planes.columns}
        self._rewriting.append(operation.layout.table(**fields | patches))
        return operation.address, self._rewriting[-1].ctypes.data

    def enter(self, choices: Iterable[Choice]) -> None:
        """Compile choices while time is left, then time them with the best so far."""
        for choice in choices:
            if self.times and time.monotonic() > self.deadline:
                break
            code = CompiledConvolution(self.work.generate(choice), self.work.threads)
            scratch = aligned_zeros((self.work.threads * code.scratch_bytes // 4 + 16,))
            source, target, residual = (0 if part is None else part.ctypes.data for part in self._memory)
            table = code.table(source, target, scratch.ctypes.data, residual)
            convolution = (work_loop().address, table.ctypes.data)
            steps = [convolution] if self._before is None else [self._before, convolution, self._after]
            self._runners[choice] = np.array(steps, np.int64), [code, scratch, table]
            self.times[choice] = []
        for turn in range(1 + ROUNDS):
            for choice, (steps, _) in self._runners.items():
                begin = time.perf_counter()
                run_sequence(steps, self.work.threads)
                if turn:  # the first brings code and weights into the caches
                    self.times[choice].append(time.perf_counter() - begin)
            if turn == 1:
                limit = HOPELESS * min(min(self.times[choice]) for choice in self._runners)
                self._runners = {c: kept for c, kept in self._runners.items() if min(self.times[c]) <= limit}
            if turn and time.monotonic() > self.deadline:
                break

    def best(self) -> Choice:
        """The choice with the shortest run; the others are dropped from further turns."""
        winner = min(self._runners, key=lambda choice: min(self.times[choice]))
        self._runners = {winner: self._runners[winner]}
        return winner


def _measured(work: ConvolutionWork, deadline: float) -> Choice:
    arguments = (work.outputs, work.vectors, work.density)
    race = _Race(work, deadline)
    race.enter([work.first, *other_blocks(*arguments, work.rectify, work.threads, OTHER_BLOCKS)])
    best = race.best()
    if time.monotonic() < deadline:
        race.enter(variations(best, *arguments, work.threads))
        best = race.best()
    return best


def _encoded(choice: Choice) -> dict[str, object]:
    tile, block = choice.block.tile, choice.block
    return {
        "tile": [tile.height, tile.width],
        "filters": block.filters,
        "tiling": dataclasses.asdict(choice.tiling),
    }


def _decoded(facts: object, work: ConvolutionWork) -> Choice | None:
    """A choice from the file, if it is one that this layer can have."""
    if facts is None:
        return None
    try:
        height, width = facts["tile"]  # type: ignore[index]
        tile = Tile(int(height), int(width), work.outputs.stride, work.outputs.dilation)
        block = Block(tile, int(facts["filters"]), work.rectify)  # type: ignore[index]
        tiling = Tiling(**{name: int(value) for name, value in facts["tiling"].items()})  # type: ignore[index]
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    sound = (
        1 <= tile.height <= work.outputs.rows
        and 1 <= tile.width <= work.outputs.columns
        and 1 <= block.filters <= MOST_FILTERS
        and taps_beside(block.sums, work.vectors) > 0
        and min(vars(tiling).values()) >= 1
    )
    return Choice(block, tiling) if sound else None
