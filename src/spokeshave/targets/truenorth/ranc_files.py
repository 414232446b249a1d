"""RANC files: networks as the JSON that RANC's C++ simulator reads, and the text that it writes.

RANC (Mack et al., TCAD 2020; https://github.com/UA-RCL/RANC, simulator/src/decode.hpp): an input file has packets, an
output bus and cores; a configuration has their sizes. What is read is checked whole, and a file that RANC would crash
on is refused with the place of the fault.
Departs from RANC: the three trace verbosities are checked and forgotten, and written as 0. A neuron that never spikes
may name a destination that does not exist; it is read as none.
"""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as short
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from spokeshave.errors import DataError, InvalidArgument
from spokeshave.files import atomic_write
from spokeshave.targets.truenorth.core_grid import CoreGrid, NegativeTest, Neurons, OutputBus, ResetMode
from spokeshave.targets.truenorth.ranc_json import LARGEST, JsonFile, read_bytes
from spokeshave.targets.truenorth.ranc_network import (
    Packets,
    RancNetwork,
    packet_fault,
    require_ranc,
    stray_neuron,
    without_strays,
)

_FIELDS = {
    "reset_potential": "reset_potential",
    "leak": "leak",
    "positive_threshold": "positive_threshold",
    "negative_threshold": "negative_threshold",
    "current_potential": "potential",
    "reset_mode": "reset_mode",
    "destination_axon": "target_axon",
    "destination_tick": "delay",
}
"""Of a neuron, single numbers: in RANC's file -> of `Neurons`."""
_RESET_TYPES = {0: NegativeTest.BELOW, 1: NegativeTest.AT_OR_BELOW}
_SEPARATOR = ",\n"
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class RancConfig:
    """Sizes of a grid, as RANC's configuration file names them.

    Attributes:
        num_neurons: of a core.
        num_axons: of a core.
        num_cores_x: width of the grid.
        num_cores_y: height of the grid.
        num_weights: of a neuron, which is how many axon types there are.
        max_tick_offset: slots of a scheduler.
        neuron_reset_type: 0 for `NegativeTest.BELOW`, 1 for `NegativeTest.AT_OR_BELOW`.
        neuron_block_trace_verbosity: of RANC's trace file.
        core_controller_trace_verbosity: likewise.
        scheduler_trace_verbosity: likewise.
    """

    num_neurons: int
    num_axons: int
    num_cores_x: int
    num_cores_y: int
    num_weights: int
    max_tick_offset: int
    neuron_reset_type: int
    neuron_block_trace_verbosity: int = 0
    core_controller_trace_verbosity: int = 0
    scheduler_trace_verbosity: int = 0

    @classmethod
    def of(cls, grid: CoreGrid) -> "RancConfig":
        """The sizes of a grid."""
        reset_type = next(number for number, test in _RESET_TYPES.items() if test is grid.negative_test)
        return cls(
            grid.neurons_per_core, grid.axons_per_core, grid.width, grid.height,
            grid.neurons.weights.shape[2], grid.slots, reset_type,
        )  # fmt: skip

    @property
    def negative_test(self) -> NegativeTest:
        """What the reset type means."""
        return _RESET_TYPES[self.neuron_reset_type]


_BOUNDS = {
    "num_neurons": (1, 2**16), "num_axons": (1, 2**16), "num_cores_x": (1, 2**12), "num_cores_y": (1, 2**12),
    "num_weights": (1, 2**8 - 1), "max_tick_offset": (2, 2**16), "neuron_reset_type": (0, 1),
    "neuron_block_trace_verbosity": (0, 2), "core_controller_trace_verbosity": (0, 1),
    "scheduler_trace_verbosity": (0, 2),
}  # fmt: skip
"""Least and most of each number of a configuration."""


def read_ranc_config(config_json: Path | str) -> RancConfig:
    """Read a configuration.

    Args:
        config_json: the file.

    Raises:
        DataError: names the file and the number that is missing or out of range.
    """
    file = JsonFile(Path(config_json))
    content = file.parsed()
    for field in dataclasses.fields(RancConfig):
        if field.default is not dataclasses.MISSING:
            content.setdefault(field.name, field.default)
    return RancConfig(**{name: file.integer(file.member(content, name, ""), name, *_BOUNDS[name]) for name in _BOUNDS})


def read_ranc(input_json: Path | str, config_json: Path | str) -> RancNetwork:
    """Read a network; axons, neurons and connections that the file leaves out are of type 0, inert and off.

    A core in the output bus's place is left out, as RANC does.

    Args:
        input_json: packets, output bus and cores.
        config_json: their sizes.

    Raises:
        DataError: names the file, the place in it and what is wrong there.
    """
    config = read_ranc_config(config_json)
    file = JsonFile(Path(input_json))
    content = file.parsed()
    width, height = config.num_cores_x, config.num_cores_y
    bus = file.member(content, "output_bus", "")
    x, y = file.place(bus, "coordinates", "output_bus", width, height)
    lines = file.integer(file.member(bus, "num_outputs", "output_bus"), "output_bus.num_outputs", 1, 2**24)
    listed = file.items(file.member(content, "cores", ""), "cores", width * height, f"{width} x {height} in the grid")
    taken: dict[tuple[int, int], int] = {}
    for number, core in enumerate(listed):
        place = file.place(core, "coordinates", f"cores[{number}]", width, height)
        if place in taken:
            raise file.wrong(
                f"cores[{number}].coordinates", "a place of its own", f"{place}, as cores[{taken[place]}] has"
            )
        taken[place] = number
    kept = {place: number for place, number in taken.items() if place != (x, y)}
    if not kept:
        raise file.wrong("cores", "at least one core beside the output bus", "none")
    grid = _grid(file, config, kept, [listed[number] for number in kept.values()], OutputBus(x, y, lines))
    fault = stray_neuron(grid)
    if fault:
        number = list(kept.values())[fault.core]
        raise DataError(f"{file.path}: cores[{number}].neurons[{fault.number}]: {fault.why}")
    packets = _packets(file, content)
    fault = packet_fault(grid, packets)
    if fault:
        raise DataError(f"{file.path}: packets[{fault.core}][{fault.number}]: {fault.why}")
    return RancNetwork(without_strays(grid), packets)


def _grid(
    file: JsonFile, config: RancConfig, kept: Mapping[tuple[int, int], int], cores: list[Any], output: OutputBus
) -> CoreGrid:
    shape = (len(cores), config.num_neurons)
    inert = Neurons.inert(1, 1, config.num_weights)
    single = [int(getattr(inert, name)) for name in _FIELDS.values()]
    columns = np.tile(np.array(single + [0] * (2 + config.num_weights)), (*shape, 1))
    axon_types = np.zeros((len(cores), config.num_axons), np.uint8)
    connections = np.zeros((*shape, config.num_axons), np.uint8)
    for row, (core, number) in enumerate(zip(cores, kept.values(), strict=True)):
        where = f"cores[{number}]"
        given = file.member(core, "axons", where)
        types = file.small(given, f"{where}.axons", config.num_axons, config.num_weights, "num_weights")
        axon_types[row, : len(types)] = types
        neurons = file.member(core, "neurons", where)
        for place, neuron in enumerate(file.items(neurons, f"{where}.neurons", config.num_neurons, "num_neurons")):
            columns[row, place] = _neuron(file, neuron, f"{where}.neurons[{place}]", config)
        rows = file.member(core, "connections", where)
        for place, bits in enumerate(file.items(rows, f"{where}.connections", config.num_neurons, "num_neurons")):
            bits = file.small(bits, f"{where}.connections[{place}]", config.num_axons, 2, "on or off")
            connections[row, place, : len(bits)] = bits
    numbers = torch.from_numpy(columns.astype(np.int32))
    others = Neurons.inert(*shape, config.num_weights)
    fields = {name: numbers[:, :, place].contiguous() for place, name in enumerate(_FIELDS.values())}
    fields["reset_mode"] = fields["reset_mode"].to(torch.uint8)
    target, weights = numbers[:, :, len(single) : len(single) + 2], numbers[:, :, len(single) + 2 :]
    fields |= {"target": target.contiguous(), "weights": weights.contiguous()}
    return CoreGrid(
        config.num_cores_x, config.num_cores_y, torch.tensor(list(kept)), torch.from_numpy(axon_types),
        torch.from_numpy(connections).bool(), dataclasses.replace(others, **fields),
        output, config.negative_test, config.max_tick_offset,
    )  # fmt: skip


def _neuron(file: JsonFile, neuron: Any, where: str, config: RancConfig) -> list[int]:
    """Numbers in the order of `_FIELDS`, then the destination's offset and the weights."""
    if isinstance(neuron, dict) and "destination_core" in neuron:
        raise DataError(
            f"{file.path}: {where}.destination_core: this is an older format of RANC; use destination_core_offset, "
            "relative to the neuron's own core"
        )
    bounds = {
        "reset_mode": (int(ResetMode.RESTORE), int(ResetMode.LINEAR)), "destination_axon": (-1, LARGEST),
        "destination_tick": (0, config.max_tick_offset - 1),
    }  # fmt: skip
    single = [
        file.integer(file.member(neuron, name, where), f"{where}.{name}", *bounds.get(name, (-LARGEST, LARGEST)))
        for name in _FIELDS
    ]
    single[-1] += 1
    offset = file.pair(neuron, "destination_core_offset", where)
    given = file.items(file.member(neuron, "weights", where), f"{where}.weights", config.num_weights, "num_weights")
    weights = [file.integer(weight, f"{where}.weights[{kind}]") for kind, weight in enumerate(given)]
    return [*single, *offset, *weights, *[0] * (config.num_weights - len(weights))]


def _packets(file: JsonFile, content: Any) -> Packets:
    ticks = []
    for tick, given in enumerate(file.items(file.member(content, "packets", ""), "packets")):
        rows = []
        for number, packet in enumerate(file.items(given, f"packets[{tick}]")):
            where = f"packets[{tick}][{number}]"
            axon, delivery = (
                file.integer(file.member(packet, name, where), f"{where}.{name}")
                for name in ("destination_axon", "destination_tick")
            )
            rows.append([*file.pair(packet, "destination_core", where), axon, delivery])
        ticks.append(torch.tensor(rows, dtype=torch.int64).view(-1, 4))
    return tuple(ticks)


def write_ranc(network: RancNetwork, input_json: Path | str, config_json: Path | str) -> None:
    """Write a network for RANC's simulator; each file is whole or absent.

    Args:
        network: cores and packets.
        input_json: packets, output bus and cores. Inert neurons after the last other one are left out.
        config_json: their sizes.

    Raises:
        InvalidArgument: the grid has what RANC lacks; names the first core and neuron.
        FileError: where they cannot be written.
    """
    grid = require_ranc(network.grid)
    config = RancConfig.of(grid)
    for name, (low, high) in _BOUNDS.items():
        if not low <= getattr(config, name) <= high:
            raise InvalidArgument(f"{name}: expected {low}..{high}, got {getattr(config, name)}")
    assert grid.output is not None
    ticks = [
        _listed(
            f'{{"destination_core":[{x},{y}],"destination_axon":{axon},"destination_tick":{delivery}}}'
            for x, y, axon, delivery in packets.tolist()
        )
        for packets in network.packets
    ]
    bus = {"coordinates": [grid.output.x, grid.output.y], "num_outputs": grid.output.lines}
    cores = [_core(grid, core) for core in range(grid.cores)]
    text = f'{{"packets":{_listed(ticks)},\n"output_bus":{json.dumps(bus)},\n"cores":{_listed(cores)}}}\n'
    atomic_write(input_json, text)
    atomic_write(config_json, json.dumps(dataclasses.asdict(config), indent=4) + "\n")


def _core(grid: CoreGrid, core: int) -> str:
    neurons, axons = grid.neurons, grid.axons_per_core
    names = [*_FIELDS, "destination_core_offset", "weights"]
    columns = [getattr(neurons, name)[core] - int(name == "delay") for name in _FIELDS.values()]
    columns += [neurons.target[core], neurons.weights[core]]
    inert = [0, 0, 1, *[0] * 5, [0, 0], [0] * neurons.weights.shape[2]]
    rows = list(zip(*(column.tolist() for column in columns), strict=True))
    used = grid.connections[core].any(1).tolist()
    count = max((place + 1 for place, row in enumerate(rows) if used[place] or list(row) != inert), default=0)
    written = [json.dumps(dict(zip(names, row, strict=True)), separators=(",", ":")) for row in rows[:count]]
    bits = np.full((count, 2 * axons - 1), ord(","), np.uint8)
    bits[:, ::2] = grid.connections[core, :count].numpy() + ord("0")
    connections = [f"[{row.tobytes().decode()}]" for row in bits]
    return (
        f'{{"coordinates":{grid.coordinates[core].tolist()},\n"axons":{grid.axon_types[core].tolist()},\n'
        f'"neurons":{_listed(written)},\n"connections":{_listed(connections)}}}'
    )


def _listed(items: Iterable[str]) -> str:
    return f"[{_SEPARATOR.join(items)}]"


def read_ranc_output(path: Path | str) -> Bool[Tensor, "ticks lines"]:
    """Read what RANC's simulator wrote; its first line comes before the first tick and is left out.

    Args:
        path: the text file.

    Returns:
        spikes on the output bus in the tick in which they were sent, as `SpikeSimulator` gives them; what RANC sent in
        its last tick it never prints.

    Raises:
        DataError: names the line that is not one of zeros and ones, or is longer or shorter than the first.
    """
    path, rows = Path(path), []
    for number, line in _lines(read_bytes(path).removeprefix(_BOM)):
        row = np.frombuffer(line, np.uint8)
        if np.any(row[1::2] != ord(" ")) or np.any(row[::2] >> 1 != ord("0") >> 1):
            raise DataError(
                f"{path} line {number}: expected 0 or 1, parted by spaces, got {short(line.decode(errors='replace'))}"
            )
        rows.append(row[::2] == ord("1"))
        if len(rows[-1]) != len(rows[0]):
            raise DataError(f"{path} line {number}: expected {len(rows[0])} columns, got {len(rows[-1])}")
    if not rows:
        raise DataError(f"{path}: expected at least one line, got none")
    if rows[0].any():
        raise DataError(f"{path} line 1: expected zeros, since nothing was sent before the first tick, got a spike")
    return torch.from_numpy(np.array(rows)[1:])


def write_ranc_output(spikes: Bool[Tensor, "ticks lines"], path: Path | str) -> None:
    """Write what RANC's simulator would in a tick more.

    Args:
        spikes: on the output bus, in the tick in which they were sent.
        path: of the text file.

    Raises:
        FileError: where it cannot be written.
    """
    rows = np.zeros((len(spikes) + 1, spikes.shape[1]), np.uint8)
    rows[1:] = spikes.cpu().numpy()
    text = np.full((len(rows), 2 * rows.shape[1] + 1), ord(" "), np.uint8)
    text[:, -1] = ord("\n")
    text[:, :-1:2] = rows + ord("0")
    atomic_write(path, _BOM + text.tobytes())


def _lines(content: bytes) -> Iterator[tuple[int, bytes]]:
    for number, line in enumerate(content.split(b"\n"), 1):
        if line.strip():
            yield number, line.strip()
