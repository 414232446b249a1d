"""Bit planes: runs a grid of neurosynaptic cores with one bit of a register for each image.

What every neuron adds up is written once as a plan of crosspoints, which `bit_plane_loops` follows: a weight of 5 is a
crosspoint in the group of ones and in that of fours; a negative weight adds the complement of the spike, and the
constant of the neuron makes up for it (-x = not(x) - 1). Same numbers as the torch version of `spike_simulator`, bit
for bit; nothing may be random.
"""

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from spokeshave.errors import InvalidArgument
from spokeshave.jit.host_cpu import VectorSet, host_cpu
from spokeshave.targets.truenorth.bit_plane_loops import CORE_FIELDS, GROUP_FIELDS, MOST_PLANES, ROW_FIELDS, tick_loops
from spokeshave.targets.truenorth.bit_plane_packing import aligned, from_planes, in_threads, to_planes
from spokeshave.targets.truenorth.core_grid import (
    NOWHERE,
    CoreGrid,
    NegativeTest,
    ResetMode,
    can_spike,
    parts_of,
    reach,
)

if TYPE_CHECKING:
    from spokeshave.targets.truenorth.spike_simulator import InputLines

_MOST_AXONS = (1 << 15) - 1
"""Crosspoints are numbers of 16 bits: of an axon, of the empty plane behind them, or of a complement."""


def why_not_bit_planes(grid: CoreGrid, device: torch.device) -> str:
    """Why a grid cannot be run by bit planes; empty where it can.

    Args:
        grid: of cores.
        device: that is asked for.
    """
    if device.type != "cpu":
        return f"they run on CPUs, not on {device}"
    if host_cpu().widest() is None:
        return f"no code can be generated for this CPU ({host_cpu().name})"
    if grid.neurons.random:
        return "its neurons draw random numbers"
    if bool(grid.neurons.leak_reversal.any()):
        return "leaks of its neurons change their sign with the potential"
    if grid.axons_per_core > _MOST_AXONS:
        return f"its cores have {grid.axons_per_core} axons, more than {_MOST_AXONS}"
    return ""


class BitPlanes:
    """A grid of cores as a plan for `tick_loops`; all its numbers fit 32 bits, as those of a grid are within 2**24.

    Args:
        grid: without random numbers and leak reversal.
        inputs: that fit it.
        vectors: set of instructions; the machine's widest by default.

    Raises:
        JitRefused: no code can be made or loaded on this machine.
    """

    def __init__(self, grid: CoreGrid, inputs: "InputLines", vectors: VectorSet | None = None) -> None:
        widest = vectors or host_cpu().widest()
        assert widest is not None and grid.output is not None
        self.vectors, self._grid = widest, grid
        self._loops = tick_loops(widest).function
        self._neurons = _Live(grid)
        self._lines, self._left_lines = inputs.count, grid.output.lines
        kept = inputs.delay < grid.slots
        plane = inputs.core[kept] * grid.axons_per_core + inputs.axon[kept]
        self._entries = _words(torch.stack([inputs.line[kept], plane, inputs.delay[kept] - 1], 1).cpu().numpy())
        self._slot_planes = grid.cores * grid.axons_per_core
        delays = [self._neurons.delay, inputs.delay[kept].cpu().numpy()]
        self._slots = 1 + max((int(one.max()) for one in delays if len(one)), default=1)
        self._groups, self._crosspoints, self._group_ends, self._taken = _crosspoint_lists(grid, self._neurons)
        ends = np.cumsum(np.bincount(self._neurons.core, minlength=grid.cores))
        first_plane = np.arange(grid.cores) * grid.axons_per_core
        columns = {"plane": first_plane, "first_row": np.concatenate([[0], ends[:-1]]), "last_row": ends}
        self._cores = _words(np.stack([columns[name] for name in CORE_FIELDS], 1))
        self._rows = cache(self._rows_for)

    @property
    def octets(self) -> int:
        """Bytes of a plane."""
        return self.vectors.bytes

    def run(self, spikes: Tensor, ticks: int) -> Tensor:
        """Spikes on the output bus, bool [images, ticks, lines].

        Args:
            spikes: bool [images, ticks, lines].
            ticks: to run.
        """
        planes = to_planes(spikes[:, :ticks].cpu().numpy(), self.octets)
        return torch.from_numpy(from_planes(self.run_planes(planes, ticks), len(spikes)))

    def run_planes(self, planes: np.ndarray, ticks: int) -> np.ndarray:
        """The same on planes: uint8 [blocks, ticks, lines, octets], in and out.

        Args:
            planes: a block has `8 * octets` images.
            ticks: to run, at least as many as those that are given.
        """
        blocks, given_ticks = planes.shape[:2]
        rows, state_planes = self._rows(1 << max(0, ticks - 1).bit_length())
        threads = min(blocks, torch.get_num_threads())
        left = aligned(blocks, ticks, self._left_lines, self.octets)
        sizes = 2 * (self._grid.axons_per_core + 1), self._slots * self._slot_planes, max(1, state_planes)
        scratch = [[aligned(size, self.octets) for size in sizes] for _ in range(threads)]

        def work(first: int) -> None:
            arrived, slots, state = (memory.ctypes.data for memory in scratch[first])
            for block in range(first, blocks, threads):
                self._loops(
                    self._cores.ctypes.data, len(self._cores), self._grid.axons_per_core, rows.ctypes.data,
                    self._groups.ctypes.data, self._crosspoints.ctypes.data, self._entries.ctypes.data,
                    len(self._entries), arrived, slots, self._slot_planes, self._slots, state,
                    planes[block].ctypes.data, self._lines, given_ticks, ticks, left[block].ctypes.data,
                    self._left_lines,
                )  # fmt: skip

        in_threads(work, threads)
        return left

    def _rows_for(self, ticks: int) -> tuple[np.ndarray, int]:
        """(table of the neurons, planes of all states) for runs of up to so many ticks."""
        live, low = self._neurons, self._grid.negative_test is NegativeTest.AT_OR_BELOW
        planes = live.planes(ticks)
        remembers = ~live.forgets
        state = np.where(remembers, np.cumsum(planes * remembers) - planes * remembers, NOWHERE)
        linear, keep = live.mode == ResetMode.LINEAR, live.mode == ResetMode.KEEP
        floor, restore = live.saturates, live.mode == ResetMode.RESTORE
        fields = {
            "planes": planes,
            "constant": live.leak - live.high - self._taken,
            "first_group": self._group_ends[:-1],
            "last_group": self._group_ends[1:],
            "target": np.maximum(0, live.target_core * self._grid.axons_per_core + live.target_axon),
            "delay": live.delay,
            "line": live.line,
            "state": state,
            "start": live.start,
            "keep": live.high,
            "test": live.high - live.low - low,
            "up_mask": -(linear | keep).astype(int),
            "up": np.select([linear, keep], [0 * live.high, live.high], live.restored),
            "down_mask": -((linear | keep) & ~floor).astype(int),
            "down": np.select([floor, restore, keep], [live.low, -live.restored, live.high], live.high - live.low),
        }
        rows = np.empty((len(planes), len(ROW_FIELDS)), np.int32)
        for number, name in enumerate(ROW_FIELDS):
            rows[:, number] = fields.pop(name)
        return rows, int((planes * remembers).sum())


class _Live:
    """The neurons whose spikes arrive somewhere, one number each."""

    def __init__(self, grid: CoreGrid) -> None:
        routes, neurons = grid.routes(), grid.neurons.to("cpu")
        arrives = (routes.core != NOWHERE) | (routes.line != NOWHERE)
        gain, loss = reach(grid)
        self.mask = (arrives & can_spike(grid)).cpu()
        take = lambda tensor: tensor.cpu()[self.mask].numpy().astype(np.int32)  # noqa: E731
        self.core = self.mask.nonzero()[:, 0].numpy()
        self.leak, self.high, self.low = (
            take(one) for one in (neurons.leak, neurons.positive_threshold, neurons.negative_threshold)
        )
        self.restored, self.start, self.mode = map(
            take, (neurons.reset_potential, neurons.potential, neurons.reset_mode)
        )
        self.saturates = take(neurons.saturates).astype(bool)
        self.target_core, self.target_axon, self.line = map(take, (routes.core, routes.axon, routes.line))
        self.delay = take(routes.delay)
        self.forgets = take(_forgetful(grid)).astype(bool)
        self.gain, self.loss = take(gain), take(loss)

    def planes(self, ticks: int) -> np.ndarray:
        """Bits that hold all numbers of each neuron exactly, for so many ticks."""
        ends = [abs(one.astype(np.int64)) for one in (self.high, self.low, self.restored, self.start)]
        rest = np.maximum.reduce(ends) + 1
        step = np.maximum(self.gain, self.loss).astype(np.int64) + abs(self.leak)
        # A restored potential is between the thresholds again; another may add up.
        bounded = (self.mode == ResetMode.RESTORE) | self.forgets
        most = rest + np.where(bounded, step, (step + ends[0] + ends[1]) * ticks)
        bits = np.ceil(np.log2(2 * most + 2)).astype(np.int64) + 1
        if bits.max(initial=0) > MOST_PLANES:
            raise InvalidArgument(
                f"ticks: after {ticks} ticks potentials may need {bits.max()} bits, more than the {MOST_PLANES} of bit "
                "planes; run fewer at a time, or use Engine.TORCH"
            )
        return bits


def _forgetful(grid: CoreGrid) -> Tensor:
    """Neurons whose potential is 0 after every tick: both thresholds meet, and both resets give 0."""
    neurons = grid.neurons
    meets = neurons.positive_threshold <= neurons.negative_threshold + (grid.negative_test is NegativeTest.AT_OR_BELOW)
    restores = (neurons.reset_mode == ResetMode.RESTORE) & (neurons.reset_potential == 0) & (neurons.potential == 0)
    return meets & restores & (~neurons.saturates | (neurons.negative_threshold == 0))


def _crosspoint_lists(grid: CoreGrid, live: _Live) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(groups, crosspoints, where each neuron's groups begin and end, what complements add too much)."""
    groups, taken, length, before = [], [], 0, 0
    bits = int(grid.neurons.weights.abs().max()).bit_length()
    # As much as there can be: what is not written takes no memory.
    most = int(torch.count_nonzero(grid.connections)) + 8 * int(live.mask.sum())
    crosspoints = np.empty(max(1, bits * most), np.uint16)
    for part in parts_of(grid.cores):
        chosen = live.mask[part]
        core, neuron = chosen.nonzero(as_tuple=True)
        on = grid.connections[part].cpu()[chosen].numpy()
        weights = grid.neurons.weights[part].cpu()[core, neuron].numpy()
        by_axon = np.take_along_axis(weights, grid.axon_types[part].cpu().long()[core].numpy(), 1) * on
        taken.append(-by_axon.clip(max=0).sum(1, dtype=np.int64))
        for bit in range(int(abs(by_axon).max(initial=0)).bit_length()):
            # Of each row all axons, then all complements, so that what is read lies in rising order.
            has = (np.abs(by_axon) >> bit) & 1 == 1
            rows, table, listed = _group_lists(np.concatenate([has & (by_axon > 0), has & (by_axon < 0)], 1))
            table[:, 1] += length
            groups.append(_words(np.concatenate([rows[:, None] + before, 0 * rows[:, None] + bit, table[:, 1:]], 1)))
            crosspoints[length : length + len(listed)] = listed
            length += len(listed)
        before += len(on)
    table = np.concatenate(groups) if groups else np.zeros((0, 1 + len(GROUP_FIELDS)), np.int32)
    table = table[np.argsort(table[:, 0], kind="stable")]
    ends = np.concatenate([[0], np.cumsum(np.bincount(table[:, 0], minlength=before))])
    return _words(table[:, 1:]), crosspoints, ends, np.concatenate(taken)


def _group_lists(found: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of a mask of [axons, complements] with any, their (count, first, sixteens, eights), and the crosspoints.

    Each row's crosspoints are filled up to eights with the number of the empty plane.
    """
    axons = found.shape[1] // 2
    counts = found.sum(1)
    eights = -(-counts // 8)
    ends = np.cumsum(8 * eights)
    first = ends - 8 * eights
    row, place = np.nonzero(found)
    crosspoints = np.full(int(ends[-1]) if len(ends) else 0, axons, np.uint16)
    crosspoints[np.arange(len(row)) + np.repeat(first - np.cumsum(counts) + counts, counts)] = place + (place >= axons)
    rows = np.flatnonzero(counts)
    return rows, np.stack([counts, first, eights // 2, eights % 2], 1)[rows], crosspoints


def _words(table: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(table, np.int32)
