"""RANC memory files: a grid of cores as RANC's FPGA design loads it, a line of bits for each neuron.

RANC (Mack et al., TCAD 2020; https://github.com/UA-RCL/RANC, hardware/IP/RANCNetwork): csram_NNN.mem of core
NNN = x + width * y has for each neuron, first bit first,

    connections of axon A-1 down to 0; V, R, weights, leak, positive and negative threshold, 9 bits each; reset mode, 1;
    dx, dy, 9 each; axon, log2 A; delivery tick, log2 slots; numbers are in two's complement

and tc_NNN.mem the type of each axon. Comments may stand between /* and */.
Departs from RANC: its potentials wrap around at 9 bits, ours do not. Its older format without a reset mode is refused.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch

from spokeshave.errors import DataError, InvalidArgument
from spokeshave.files import atomic_write
from spokeshave.targets.truenorth.core_grid import (
    MOST_DELAY,
    NOWHERE,
    CoreGrid,
    NegativeTest,
    Neurons,
    OutputBus,
    can_spike,
)
from spokeshave.targets.truenorth.ranc_json import read_bytes
from spokeshave.targets.truenorth.ranc_network import at, require_ranc, stray_neuron, without_strays

NUMBER_BITS = 9
"""Of a weight, a potential, an offset."""
_MOST_TYPE_BITS = 7
_COMMENT = re.compile(rb"/\*.*?\*/", re.DOTALL)


@dataclass(frozen=True)
class BitRows:
    """Lines of bits, as a file has them.

    Attributes:
        path: of the file.
        bits: zeros and ones, a line in each row.
        lines: number of each row's line in the file, from 1.
    """

    path: Path
    bits: np.ndarray
    lines: list[int]


def text_lines(path: Path) -> list[tuple[int, bytes]]:
    """(number from 1, content) of the lines that have any, without comments.

    Raises:
        DataError: the file is missing, or a comment has no end.
    """
    content = _COMMENT.sub(lambda found: b" " + b"\n" * found.group().count(b"\n"), read_bytes(path))
    if b"/*" in content:
        line = content.partition(b"/*")[0].count(b"\n") + 1
        raise DataError(f"{path} line {line}: the comment has no end")
    return [(number, line.strip()) for number, line in enumerate(content.split(b"\n"), 1) if line.strip()]


def bit_rows(path: Path, width: int | None = None, because: str = "") -> BitRows:
    """Read lines of bits.

    Args:
        path: of the file.
        width: bits of a line; None for as many as the first has.
        because: what the width comes from, for the message.

    Raises:
        DataError: names the line that has another width, or a character that is no bit.
    """
    found = text_lines(path)
    for number, line in found:
        width = len(line) if width is None else width
        if len(line) != width:
            raise DataError(f"{path} line {number}: expected {width} bits{because}, got {len(line)}")
    bits = np.frombuffer(b"".join(line for _, line in found), np.uint8).reshape(len(found), width or 0) - ord("0")
    if (bits > 1).any():
        row, column = np.argwhere(bits > 1)[0]
        number, line = found[row]
        raise DataError(f"{path} line {number}, column {column + 1}: expected 0 or 1, got {chr(line[column])!r}")
    return BitRows(path, bits, [number for number, _ in found])


def to_numbers(bits: np.ndarray, widths: list[int], signed: list[bool]) -> np.ndarray:
    """The numbers that stand side by side in rows of bits.

    Example:
        >>> to_numbers(np.array([[1, 1, 0, 1, 0]], np.uint8), [3, 2], [True, False]).tolist()
        [[-2, 2]]
    """
    ends = np.cumsum(widths)
    return np.stack(
        [
            bits[..., end - width : end].astype(np.int64) @ (1 << np.arange(width)[::-1])
            - ((bits[..., end - width].astype(np.int64) << width) if sign and width else 0)
            for end, width, sign in zip(ends, widths, signed, strict=True)
        ],
        -1,
    )


def to_bits(numbers: np.ndarray, widths: list[int]) -> np.ndarray:
    """Rows of bits in which numbers stand side by side, in two's complement.

    Example:
        >>> to_bits(np.array([[-2, 2]]), [3, 2]).tolist()
        [[1, 1, 0, 1, 0]]
    """
    return np.concatenate(
        [numbers[..., place, None] >> np.arange(width)[::-1] & 1 for place, width in enumerate(widths)], -1
    ).astype(np.uint8)


def index_bits(count: int) -> int:
    """Bits that tell so many things apart.

    Example:
        >>> index_bits(256), index_bits(250), index_bits(2)
        (8, 8, 1)
    """
    return (count - 1).bit_length()


@dataclass(frozen=True)
class _Layout:
    """What a line of a csram file holds."""

    axons: int
    types: int
    slots: int

    @property
    def names(self) -> list[str]:
        weights = [f"weights {kind}" for kind in range(self.types)]
        rest = ["leak", "positive_threshold", "negative_threshold", "reset_mode", "dx", "dy", "target_axon", "delay"]
        return ["potential", "reset_potential", *weights, *rest]

    @property
    def widths(self) -> list[int]:
        special = {"reset_mode": 1, "target_axon": index_bits(self.axons), "delay": index_bits(self.slots)}
        return [special.get(name, NUMBER_BITS) for name in self.names]

    @property
    def signed(self) -> list[bool]:
        return [name not in ("reset_mode", "target_axon", "delay") for name in self.names]

    @property
    def width(self) -> int:
        return self.axons + sum(self.widths)


def read_ranc_memory(
    folder: Path | str,
    width: int,
    height: int,
    output: OutputBus,
    negative_test: NegativeTest = NegativeTest.BELOW,
    slots: int = MOST_DELAY + 1,
    skip_inert: bool = True,
) -> CoreGrid:
    """Read the cores; how many axons and neurons they have, the files say.

    Args:
        folder: with csram_NNN.mem and tc_NNN.mem of every core but that in the output bus's place, which is not read.
        width: of the grid.
        height: of the grid.
        output: where spikes leave the chip.
        negative_test: BELOW is that of the FPGA design.
        slots: of the schedulers.
        skip_inert: leave out cores none of whose neurons ever spikes.

    Raises:
        DataError: a file is missing, cut off or of another width, or a neuron's spikes have no place to go to; names
            the file, the line and what is wrong there.
        InvalidArgument: the output bus is outside the grid.

    Example:
        >>> read_ranc_memory("tea_256", 4, 3, OutputBus(0, 2, 250)).cores  # doctest: +SKIP
        5
    """
    if not (0 <= output.x < width and 0 <= output.y < height):
        raise InvalidArgument(f"output bus: expected a place in {width} x {height}, got ({output.x}, {output.y})")
    folder = Path(folder)
    places = [(x, y) for y in range(height) for x in range(width) if (x, y) != (output.x, output.y)]
    paths = {kind: _paths(folder, kind, width, height) for kind in ("tc", "csram")}
    for x, y in places:
        for kind, found in paths.items():
            if x + width * y not in found:
                raise DataError(
                    f"{folder / f'{kind}_{x + width * y:03d}.mem'} is missing: core ({x}, {y}) of {width} x {height}"
                )
    if not places:
        raise DataError(f"{folder}: expected a core beside the output bus, got a grid of {width} x {height}")
    tc = _alike([bit_rows(paths["tc"][x + width * y]) for x, y in places])
    axons, type_bits = tc[0].bits.shape
    if type_bits > _MOST_TYPE_BITS:
        raise DataError(
            f"{tc[0].path} line 1: expected at most {_MOST_TYPE_BITS} bits of an axon type, got {type_bits}"
        )
    layout = _Layout(axons, 2**type_bits, slots)
    because = f" ({axons} axons, {layout.types} weights, {slots} slots)"
    csram = _alike([bit_rows(paths["csram"][x + width * y], layout.width, because) for x, y in places])
    types = to_numbers(np.stack([rows.bits for rows in tc]), [type_bits], [False])[..., 0]
    bits = np.stack([rows.bits for rows in csram])
    connections = torch.from_numpy(bits[..., :axons][..., ::-1].copy()).bool()
    neurons = _neurons(layout, to_numbers(bits[..., axons:], layout.widths, layout.signed))
    grid = CoreGrid(
        width, height, torch.tensor(places), torch.from_numpy(types.astype(np.uint8)), connections, neurons,
        output, negative_test, slots,
    )  # fmt: skip
    fault = stray_neuron(grid)
    if fault:
        rows = csram[fault.core]
        raise DataError(f"{rows.path} line {rows.lines[fault.number]}: {fault.why}")
    grid = without_strays(grid)
    return _without_inert(grid, folder) if skip_inert else grid


def _paths(folder: Path, kind: str, width: int, height: int) -> Mapping[int, Path]:
    """Number of a core -> its file."""
    found: dict[int, Path] = {}
    for path in sorted(folder.glob(f"{kind}_*.mem")):
        digits = path.stem.removeprefix(f"{kind}_")
        if not (digits.isascii() and digits.isdecimal()):
            continue
        number = int(digits)
        if number in found:
            raise DataError(f"{path}: core {number} is in {found[number].name} too")
        if number >= width * height:
            raise DataError(f"{path}: core {number} is beyond a grid of {width} x {height}: is it another grid's?")
        found[number] = path
    return found


def _alike(files: list[BitRows]) -> list[BitRows]:
    """The same, all of the form that most of them have."""
    shape = Counter(rows.bits.shape for rows in files).most_common(1)[0][0]
    usual = next(rows for rows in files if rows.bits.shape == shape)
    for rows in files:
        if rows.bits.shape[0] != shape[0]:
            where = f"{rows.path} line {rows.lines[-1] if rows.lines else 1}"
            raise DataError(
                f"{where}: expected {shape[0]} lines of bits, as {usual.path.name} has, got {len(rows.bits)}; cut off?"
            )
        if rows.bits.shape != shape:
            raise DataError(
                f"{rows.path} line {rows.lines[0]}: expected {shape[1]} bits, as {usual.path.name} has, "
                f"got {rows.bits.shape[1]}"
            )
    if not usual.lines:
        raise DataError(f"{usual.path}: expected lines of bits, got none")
    return files


def _neurons(layout: _Layout, numbers: np.ndarray) -> Neurons:
    columns = torch.from_numpy(numbers.astype(np.int32)).unbind(2)
    by_name = dict(zip(layout.names, columns, strict=True))
    cores, neurons, _ = numbers.shape
    inert = vars(Neurons.inert(cores, neurons, layout.types))
    given = {name: column.contiguous() for name, column in by_name.items() if name in inert}
    given["reset_mode"] = given["reset_mode"].to(torch.uint8)
    given["delay"] = given["delay"] + 1
    given["target"] = torch.stack([by_name["dx"], by_name["dy"]], 2)
    given["weights"] = torch.stack([by_name[f"weights {kind}"] for kind in range(layout.types)], 2)
    return Neurons(**(inert | given))


def _without_inert(grid: CoreGrid, folder: Path) -> CoreGrid:
    used = can_spike(grid).any(1)
    if not bool(used.any()):
        raise DataError(f"{folder}: no neuron of any core ever spikes; is it another grid's? Or skip_inert=False")
    kept = {item.name: getattr(grid.neurons, item.name)[used] for item in fields(Neurons)}
    return CoreGrid(
        grid.width, grid.height, grid.coordinates[used], grid.axon_types[used], grid.connections[used], Neurons(**kept),
        grid.output, grid.negative_test, grid.slots,
    )  # fmt: skip


def write_ranc_memory(grid: CoreGrid, folder: Path | str) -> None:
    """Write the files of every core; those without one in the grid are inert.

    Args:
        grid: the cores.
        folder: for the files; made where it is missing.

    Raises:
        InvalidArgument: the grid has what RANC lacks, or a number that does not fit its bits; names core and neuron.
        FileError: where they cannot be written.
    """
    grid, folder = require_ranc(grid), Path(folder)
    types = grid.neurons.weights.shape[2]
    for name, count in (("axon types", types), ("slots", grid.slots)):
        if count < 2 or count & (count - 1):
            raise InvalidArgument(f"{name}: expected a power of two, which its bits can count, got {count}")
    layout = _Layout(grid.axons_per_core, types, grid.slots)
    numbers = _numbers(grid, layout)
    connections = grid.connections.numpy()[..., ::-1].astype(np.uint8)
    lines = np.concatenate([connections, to_bits(numbers, layout.widths)], -1)
    axon_bits = to_bits(grid.axon_types.numpy()[..., None].astype(np.int64), [index_bits(types)])
    empty = CoreGrid.empty(1, grid.axons_per_core, grid.neurons_per_core, types, slots=grid.slots)
    none = to_bits(_numbers(empty, layout), layout.widths)[0]
    places = grid.places().flatten().tolist()
    digits = max(3, len(str(len(places))))
    for number, core in enumerate(places):
        inert = core == NOWHERE
        csram = np.pad(none, ((0, 0), (grid.axons_per_core, 0))) if inert else lines[core]
        tc = np.zeros_like(axon_bits[0]) if inert else axon_bits[core]
        atomic_write(folder / f"csram_{number:0{digits}d}.mem", text_of(csram) + b"\n")
        atomic_write(folder / f"tc_{number:0{digits}d}.mem", text_of(tc) + b"\n")


def text_of(bits: np.ndarray) -> bytes:
    """Rows of bits as lines; the last has no end."""
    text = np.full((len(bits), bits.shape[1] + 1), ord("\n"), np.uint8)
    text[:, :-1] = bits + ord("0")
    return text.tobytes()[:-1]


def _numbers(grid: CoreGrid, layout: _Layout) -> np.ndarray:
    """[cores, neurons, names of the layout], seen to fit their bits."""
    neurons = vars(grid.neurons) | {
        "delay": grid.neurons.delay - 1,
        "target_axon": grid.neurons.target_axon.clamp(min=0),
    }
    neurons |= {f"weights {kind}": weights for kind, weights in enumerate(grid.neurons.weights.unbind(2))}
    neurons |= dict(zip(("dx", "dy"), grid.neurons.target.unbind(2), strict=True))
    for name, bits, signed in zip(layout.names, layout.widths, layout.signed, strict=True):
        low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
        wrong = ((neurons[name] < low) | (neurons[name] > high)).nonzero()
        if len(wrong):
            core, neuron = wrong[0].tolist()
            raise InvalidArgument(
                f"{at(grid, core, neuron)}: {name}: expected {low}..{high}, which {bits} bits hold, "
                f"got {int(neurons[name][core, neuron])}"
            )
    return np.stack([neurons[name].numpy().astype(np.int64) for name in layout.names], -1)
