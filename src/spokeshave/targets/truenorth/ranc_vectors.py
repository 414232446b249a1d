"""RANC vectors: the packets and the expected spikes with which RANC's FPGA design is tested.

RANC (Mack et al., TCAD 2020; https://github.com/UA-RCL/RANC, hardware/IP/RANCNetwork/src/simulations): tb_input.txt
has a packet in each line, dx, dy (9 bits each), axon (log2 A), delivery tick (log2 slots); tb_num_inputs.txt how many
belong to each tick; tb_correct.txt the output bus's line of each expected spike, tb_num_outputs.txt how many come.
Departs from RANC: two spikes on one line in one tick are one; a tick's spikes are written in the order of their lines.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from spokeshave.errors import DataError, InvalidArgument
from spokeshave.files import atomic_write
from spokeshave.targets.truenorth.core_grid import CoreGrid, OutputBus
from spokeshave.targets.truenorth.ranc_memory import (
    NUMBER_BITS,
    BitRows,
    bit_rows,
    index_bits,
    text_lines,
    text_of,
    to_bits,
    to_numbers,
)
from spokeshave.targets.truenorth.ranc_network import RancNetwork, packet_fault

INPUTS, INPUT_COUNTS = "tb_input.txt", "tb_num_inputs.txt"
OUTPUTS, OUTPUT_COUNTS = "tb_correct.txt", "tb_num_outputs.txt"
_DIGITS = 9
"""Of a count: more than any file has."""


@dataclass(frozen=True)
class RancVectors:
    """What a chip is given, and what it is expected to answer.

    Attributes:
        network: cores and packets.
        outputs: expected spikes, from the tick on in which the first inputs have come through. The files do not say
            which it is: for L layers one after the other, tick L - 1 of the simulator. RANC's own tools leave out
            ticks without spikes for some networks.
    """

    network: RancNetwork
    outputs: Bool[Tensor, "ticks lines"]


def read_ranc_vectors(folder: Path | str, grid: CoreGrid) -> RancVectors:
    """Read packets and expected spikes.

    Args:
        folder: with the four files.
        grid: the cores that they are for, as `read_ranc_memory` gives them.

    Raises:
        DataError: names the file, the line and what is wrong there.
        InvalidArgument: the grid has no output bus.
    """
    folder, bus = Path(folder), _bus(grid)
    counts = _counts(folder / INPUT_COUNTS)
    widths = [NUMBER_BITS, NUMBER_BITS, index_bits(grid.axons_per_core), index_bits(grid.slots)]
    because = f" ({grid.axons_per_core} axons, {grid.slots} slots)"
    rows = bit_rows(folder / INPUTS, sum(widths), because)
    _check_sum(rows, counts, INPUT_COUNTS)
    packets = torch.from_numpy(to_numbers(rows.bits, widths, [True, True, False, False])).split(counts)
    fault = packet_fault(grid, packets)
    if fault:
        line = rows.lines[sum(counts[: fault.core]) + fault.number]
        raise DataError(f"{rows.path} line {line}: {fault.why}")
    counts = _counts(folder / OUTPUT_COUNTS)
    width = max(1, index_bits(bus.lines))
    rows = bit_rows(folder / OUTPUTS, width, f" ({bus.lines} lines of the output bus)")
    _check_sum(rows, counts, OUTPUT_COUNTS)
    lines = to_numbers(rows.bits, [width], [False])[:, 0]
    if (lines >= bus.lines).any():
        row = int(np.argmax(lines >= bus.lines))
        raise DataError(
            f"{rows.path} line {rows.lines[row]}: expected a line below {bus.lines} of the output bus, got {lines[row]}"
        )
    outputs = torch.zeros(len(counts), bus.lines, dtype=torch.bool)
    outputs[np.repeat(np.arange(len(counts)), counts), lines] = True
    return RancVectors(RancNetwork(grid, packets), outputs)


def write_ranc_vectors(vectors: RancVectors, folder: Path | str) -> None:
    """Write packets and expected spikes.

    Args:
        vectors: to be written.
        folder: for the files; made where it is missing.

    Raises:
        InvalidArgument: the output bus has another number of lines than the spikes, or the grid is too large.
        FileError: where they cannot be written.
    """
    folder, grid, bus = Path(folder), vectors.network.grid, _bus(vectors.network.grid)
    if vectors.outputs.shape[1] != bus.lines:
        raise InvalidArgument(f"outputs: expected {bus.lines} lines, got {vectors.outputs.shape[1]}")
    if max(grid.width, grid.height) > 1 << NUMBER_BITS - 1:
        raise InvalidArgument(
            f"expected at most {1 << NUMBER_BITS - 1} x {1 << NUMBER_BITS - 1} cores, got {grid.width} x {grid.height}"
        )
    widths = [NUMBER_BITS, NUMBER_BITS, index_bits(grid.axons_per_core), index_bits(grid.slots)]
    packets = [rows.cpu().long() for rows in vectors.network.packets]
    given = torch.cat([torch.zeros(0, 4, dtype=torch.int64), *packets]).numpy()
    atomic_write(folder / INPUTS, text_of(to_bits(given, widths)))
    atomic_write(folder / INPUT_COUNTS, "".join(f"{len(rows)}\n" for rows in packets))
    expected = vectors.outputs.cpu().nonzero()[:, 1:].numpy()
    atomic_write(folder / OUTPUTS, text_of(to_bits(expected, [max(1, index_bits(bus.lines))])))
    atomic_write(folder / OUTPUT_COUNTS, "".join(f"{count}\n" for count in vectors.outputs.sum(1).tolist()))


def _bus(grid: CoreGrid) -> OutputBus:
    if grid.output is None:
        raise InvalidArgument("RANC needs an output bus, and the grid has none")
    return grid.output


def _counts(path: Path) -> list[int]:
    counts = []
    for number, line in text_lines(path):
        if not line.isdigit() or len(line) > _DIGITS:
            raise DataError(f"{path} line {number}: expected a count, got {line[:40].decode(errors='replace')!r}")
        counts.append(int(line))
    if not counts:
        raise DataError(f"{path}: expected a count for each tick, got none")
    return counts


def _check_sum(rows: BitRows, counts: list[int], counted: str) -> None:
    if len(rows.lines) != sum(counts):
        last, found = rows.lines[-1] if rows.lines else 1, len(rows.lines)
        raise DataError(
            f"{rows.path} line {last}: expected {sum(counts)} lines, as {counted} has it, got {found}; cut off?"
        )
