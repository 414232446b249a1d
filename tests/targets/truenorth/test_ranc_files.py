"""RANC's JSON and text: both ways, a network by hand, what RANC's own simulator printed, and what is refused."""

import copy
import gzip
import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ranc_grids import assert_same_grid, assert_same_packets, ranc_grid, ranc_network
from spokeshave.errors import DataError, FileError, InvalidArgument
from spokeshave.targets.truenorth.core_grid import NOWHERE, CoreGrid, NegativeTest, Neurons, OutputBus
from spokeshave.targets.truenorth.ranc_files import (
    RancConfig,
    read_ranc,
    read_ranc_config,
    read_ranc_output,
    write_ranc,
    write_ranc_output,
)
from spokeshave.targets.truenorth.ranc_network import RancNetwork
from spokeshave.targets.truenorth.spike_simulator import Engine, SpikeSimulator

ENGINES = [Engine.TORCH, Engine.BIT_PLANES]
CASES = Path(__file__).parent / "ranc_cases.json.gz"
"""Networks, and what RANC's C++ simulator (MIT License) printed for them; the file says how it was made."""

CONFIG = {
    "num_neurons": 3, "num_axons": 4, "num_cores_x": 3, "num_cores_y": 1, "num_weights": 2, "max_tick_offset": 16,
    "neuron_block_trace_verbosity": 0, "core_controller_trace_verbosity": 0, "scheduler_trace_verbosity": 0,
    "neuron_reset_type": 1,
}  # fmt: skip
NEURON = {
    "reset_potential": 0, "weights": [2, -1], "leak": 0, "positive_threshold": 3, "negative_threshold": -9,
    "destination_core_offset": [1, 0], "destination_axon": 3, "destination_tick": 1, "current_potential": 0,
    "reset_mode": 1,
}  # fmt: skip
RELAY = NEURON | {"weights": [1], "positive_threshold": 1, "destination_axon": 1, "destination_tick": 0}


def packet(axon: int, late: int = 0, core: tuple[int, int] = (0, 0)) -> dict[str, Any]:
    return {"destination_core": list(core), "destination_axon": axon, "destination_tick": late}


TINY: dict[str, Any] = {
    "packets": [[packet(0)], [packet(0), packet(1), packet(0, 2)], [], []],
    "output_bus": {"coordinates": [2, 0], "num_outputs": 2},
    "cores": [
        {"axons": [0, 1], "neurons": [NEURON], "connections": [[1, 1]], "coordinates": [0, 0]},
        {"axons": [], "neurons": [RELAY], "connections": [[0, 0, 0, 1]], "coordinates": [1, 0]},
    ],
}
"""Core (0, 0) sums 2 for a spike on axon 0, -1 on axon 1, and at 3 sends one to axon 3 of (1, 0), which relays it."""


def files(folder: Path, content: Any = TINY, config: Any = CONFIG) -> tuple[Path, Path]:
    paths = folder / "input.json", folder / "config.json"
    for path, value in zip(paths, (content, config), strict=True):
        path.write_text(json.dumps(value))
    return paths


def run(network: RancNetwork, ticks: int, engine: Engine = Engine.TORCH) -> torch.Tensor:
    spikes = network.spikes()[:, :ticks]
    return SpikeSimulator(network.grid, network.inputs(), engine).run(spikes, ticks).outputs[0]


def test_a_network_by_hand(tmp_path: Path) -> None:
    network = read_ranc(*files(tmp_path))
    grid = network.grid
    assert (grid.cores, grid.neurons_per_core, grid.axons_per_core, grid.slots) == (2, 3, 4, 16)
    assert (grid.output, grid.negative_test) == (OutputBus(2, 0, 2), NegativeTest.AT_OR_BELOW)
    assert grid.axon_types.tolist() == [[0, 1, 0, 0], [0, 0, 0, 0]]
    assert grid.connections[1].int().tolist() == [[0, 0, 0, 1], [0] * 4, [0] * 4]
    assert grid.neurons.weights[:, :2].tolist() == [[[2, -1], [0, 0]], [[1, 0], [0, 0]]]
    assert grid.neurons.delay.tolist() == [[2, 1, 1], [1, 1, 1]]
    assert grid.neurons.target_axon.tolist() == [[3, NOWHERE, NOWHERE], [1, NOWHERE, NOWHERE]]
    # V of (0, 0): 2, then 2 + 2 - 1 = 3, a spike that leaves 0 and is with (1, 0) two ticks later; the late packet: 2.
    assert run(network, 6).int().tolist() == [[0, 0]] * 3 + [[0, 1]] + [[0, 0]] * 2


@pytest.mark.parametrize("engine", ENGINES)
def test_what_ranc_itself_printed(tmp_path: Path, engine: Engine) -> None:
    cases = json.loads(gzip.decompress(CASES.read_bytes()))["cases"]
    assert len(cases) == 13
    for case in cases:
        network = read_ranc(*files(tmp_path, case["input"], case["config"]))
        printed = "".join(" ".join(line) + " \n" for line in case["output"])
        (tmp_path / "output.txt").write_bytes(b"\xef\xbb\xbf" + printed.encode())
        expected = read_ranc_output(tmp_path / "output.txt")
        assert expected.shape == (39, case["input"]["output_bus"]["num_outputs"])
        assert torch.equal(run(network, 39, engine), expected), case["name"]
        write_ranc_output(expected, tmp_path / "again.txt")
        assert (tmp_path / "again.txt").read_bytes() == (tmp_path / "output.txt").read_bytes()


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000), axons=st.sampled_from([2, 5, 16]), neurons=st.sampled_from([3, 10]),
    types=st.sampled_from([1, 2, 4, 7]), slots=st.sampled_from([2, 3, 16]), ticks=st.integers(0, 6),
)  # fmt: skip
def test_round_trip(seed: int, ticks: int, **sizes: int) -> None:
    network = ranc_network(seed, ticks, **sizes)
    with tempfile.TemporaryDirectory() as folder:
        paths = Path(folder) / "input.json", Path(folder) / "config.json"
        write_ranc(network, *paths)
        texts = [path.read_text() for path in paths]
        again = read_ranc(*paths)
        assert_same_grid(again.grid, network.grid)
        assert_same_packets(again, network)
        write_ranc(again, *paths)
        assert [path.read_text() for path in paths] == texts


def test_the_names_are_those_that_ranc_reads(tmp_path: Path) -> None:
    paths = files(tmp_path)
    write_ranc(read_ranc(*paths), *paths)
    content, config = (json.loads(path.read_text()) for path in paths)
    assert config == CONFIG
    assert content["packets"] == TINY["packets"] and content["output_bus"] == TINY["output_bus"]
    first, second = content["cores"]
    assert first == {
        "axons": [0, 1, 0, 0], "neurons": [NEURON], "connections": [[1, 1, 0, 0]], "coordinates": [0, 0]
    }  # fmt: skip
    assert second["neurons"] == [RELAY | {"weights": [1, 0]}]


def test_inert_neurons_in_the_middle_are_written_out(tmp_path: Path) -> None:
    grid = CoreGrid.empty(1, 2, 3, 2, width=2, output=OutputBus(1, 0, 1))
    grid.neurons.leak[0, 1] = 1
    paths = tmp_path / "input.json", tmp_path / "config.json"
    with pytest.raises(InvalidArgument, match=r"core 0 at \(0, 0\), neuron 1: it may spike and sends to axon -1"):
        write_ranc(RancNetwork(grid), *paths)
    grid.neurons.target_axon[0, 1] = 1
    write_ranc(RancNetwork(grid), *paths)
    neurons = json.loads(paths[0].read_text())["cores"][0]["neurons"]
    assert [neuron["leak"] for neuron in neurons] == [0, 1]
    assert neurons[0] == NEURON | {
        "weights": [0, 0], "positive_threshold": 1, "negative_threshold": 0, "reset_mode": 0,
        "destination_core_offset": [0, 0], "destination_axon": 0, "destination_tick": 0,
    }  # fmt: skip
    assert_same_grid(read_ranc(*paths).grid, grid)
    grid.connections[0, 2, 1] = True  # of a neuron that is inert all the same
    write_ranc(RancNetwork(grid), *paths)
    assert_same_grid(read_ranc(*paths).grid, grid)


def test_a_core_in_the_place_of_the_bus_gives_way_to_it(tmp_path: Path) -> None:
    content = copy.deepcopy(TINY)
    content["cores"].insert(0, content["cores"][1] | {"coordinates": [2, 0], "neurons": []})
    assert_same_grid(read_ranc(*files(tmp_path, content)).grid, read_ranc(*files(tmp_path)).grid)
    content["cores"][2]["neurons"] = [RELAY | {"destination_axon": 2}]
    with pytest.raises(DataError, match=r"cores\[2\]\.neurons\[0\]: .* but the output bus there has 2 lines"):
        read_ranc(*files(tmp_path, content))


def test_neurons_that_never_spike_may_name_any_destination(tmp_path: Path) -> None:
    content = copy.deepcopy(TINY)
    quiet = NEURON | {"weights": [0, -1], "destination_core_offset": [-5, 0], "destination_axon": -1}
    content["cores"][0]["neurons"].append(quiet)
    content["cores"][0]["connections"].append([1, 1])
    grid = read_ranc(*files(tmp_path, content)).grid
    assert grid.neurons.target_axon[0].tolist() == [3, NOWHERE, NOWHERE]
    assert grid.neurons.target[0, 1].tolist() == [0, 0]


Change = Callable[[dict[str, Any]], object]


def neuron(name: str, value: object) -> Change:
    return lambda content: content["cores"][1]["neurons"][0].update({name: value})


def core(name: str, value: object) -> Change:
    return lambda content: content["cores"][1].update({name: value})


def sent(**changes: object) -> Change:
    return lambda content: content["packets"][1].append(packet(0) | changes)


REFUSED: list[tuple[Change, str]] = [
    (lambda c: c["cores"][1]["neurons"][0].pop("leak"), r"cores\[1\]\.neurons\[0\]\.leak is missing"),
    (neuron("leak", 1.5), r"cores\[1\]\.neurons\[0\]\.leak: expected an integer, got 1\.5"),
    (neuron("leak", "1"), r"neurons\[0\]\.leak: expected an integer, got '1'"),
    (neuron("leak", True), r"neurons\[0\]\.leak: expected an integer, got True"),
    (neuron("leak", None), r"neurons\[0\]\.leak: expected an integer, got None"),
    (neuron("leak", 2**31), r"neurons\[0\]\.leak: expected -1073741824\.\.1073741824"),
    (neuron("reset_mode", 2), r"neurons\[0\]\.reset_mode: expected 0\.\.1, got 2"),
    (neuron("destination_tick", 16), r"neurons\[0\]\.destination_tick: expected 0\.\.15, got 16"),
    (neuron("destination_core", [0, 0]), r"neurons\[0\]\.destination_core: this is an older format.*_offset"),
    (neuron("destination_core_offset", [1]), r"destination_core_offset: expected two integers, got \[1\]"),
    (neuron("destination_core_offset", [2, 0]), r"neurons\[0\]: .*axon 1 at \(3, 0\), but the grid has 3 x 1 cores"),
    (neuron("destination_core_offset", [-2, 0]), r"at \(-1, 0\), but the grid has 3 x 1 cores"),
    (neuron("destination_core_offset", [-1, 1]), r"at \(0, 1\), but the grid has 3 x 1 cores"),
    (neuron("destination_axon", 2), r"axon 2 at \(2, 0\), but the output bus there has 2 lines"),
    (neuron("destination_axon", -1), r"axon -1 at \(2, 0\), but there is no such axon"),
    (neuron("destination_axon", -2), r"neurons\[0\]\.destination_axon: expected -1\.\.1073741824, got -2"),
    (lambda c: c["cores"][0]["neurons"][0].update(destination_axon=4), r"cores\[0\]\.neurons\[0\].*core has 4 axons"),
    (neuron("weights", [1, 2, 3]), r"neurons\[0\]\.weights: expected at most 2 entries \(num_weights\), got 3"),
    (neuron("weights", [1, 0.5]), r"neurons\[0\]\.weights\[1\]: expected an integer, got 0\.5"),
    (core("neurons", [[]]), r"cores\[1\]\.neurons\[0\]: expected an object, got \[\]"),
    (core("neurons", [NEURON] * 4), r"cores\[1\]\.neurons: expected at most 3 entries \(num_neurons\), got 4"),
    (core("connections", [[]] * 4), r"cores\[1\]\.connections: expected at most 3 entries"),
    (core("connections", [[0] * 5]), r"cores\[1\]\.connections\[0\]: expected at most 4 entries \(num_axons\), got 5"),
    (core("connections", [[0, 2]]), r"cores\[1\]\.connections\[0\]\[1\]: expected 0\.\.1 \(on or off\), got 2"),
    (core("axons", [0, 0, 2]), r"cores\[1\]\.axons\[2\]: expected 0\.\.1 \(num_weights\), got 2"),
    (core("axons", [0] * 5), r"cores\[1\]\.axons: expected at most 4 entries"),
    (core("axons", 3), r"cores\[1\]\.axons: expected a list, got 3"),
    (lambda c: c["cores"][1].pop("axons"), r"cores\[1\]\.axons is missing"),
    (lambda c: c["cores"][1].pop("coordinates"), r"cores\[1\]\.coordinates is missing"),
    (core("coordinates", [0, 0]), r"cores\[1\]\.coordinates: expected a place of its own, got \(0, 0\), as cores\[0\]"),
    (core("coordinates", [3, 0]), r"cores\[1\]\.coordinates: expected a place in the grid of 3 x 1, got \(3, 0\)"),
    (core("coordinates", [0, -1]), r"cores\[1\]\.coordinates: expected a place in the grid"),
    (lambda c: c.update(cores=c["cores"] * 2), r"cores: expected at most 3 entries \(3 x 1 in the grid\), got 4"),
    (lambda c: c.update(cores=[]), "cores: expected at least one core beside the output bus"),
    (lambda c: c.update(cores=7), "cores: expected a list, got 7"),
    (lambda c: c.pop("cores"), r"input\.json: cores is missing"),
    (lambda c: c.pop("output_bus"), "output_bus is missing"),
    (lambda c: c["output_bus"].update(coordinates=[3, 0]), r"output_bus\.coordinates: expected a place in the grid"),
    (lambda c: c["output_bus"].update(num_outputs=0), r"output_bus\.num_outputs: expected 1\.\."),
    (lambda c: c.pop("packets"), "packets is missing"),
    (lambda c: c["packets"].append({}), r"packets\[4\]: expected a list"),
    (sent(destination_core=[3, 0]), r"packets\[1\]\[3\]: got \(3, 0\).*but the grid has 3 x 1 cores"),
    (sent(destination_core=[2, 0]), r"packets\[1\]\[3\]: .*straight to the output bus"),
    (sent(destination_axon=4), r"packets\[1\]\[3\]: .*a core has 4 axons"),
    (sent(destination_tick=16), r"packets\[1\]\[3\]: .*delivery tick is to be 0\.\.15"),
    (sent(destination_axon=0.0), r"packets\[1\]\[3\]\.destination_axon: expected an integer, got 0\.0"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "words"), REFUSED, ids=[words[:40] for _, words in REFUSED])
def test_bad_files_are_refused_with_the_place(tmp_path: Path, change: Change, words: str) -> None:
    content = copy.deepcopy(TINY)
    change(content)
    with pytest.raises(DataError, match=words) as caught:
        read_ranc(*files(tmp_path, content))
    assert str(caught.value).startswith(str(tmp_path / "input.json"))


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("num_axons", 0, r"num_axons: expected 1\.\.65536, got 0"),
        ("num_weights", 256, r"num_weights: expected 1\.\.255"),
        ("max_tick_offset", 1, r"max_tick_offset: expected 2\.\."),
        ("neuron_reset_type", 2, r"neuron_reset_type: expected 0\.\.1, got 2"),
        ("scheduler_trace_verbosity", 3, r"scheduler_trace_verbosity: expected 0\.\.2"),
        ("num_cores_x", 3.0, r"num_cores_x: expected an integer, got 3\.0"),
        ("num_neurons", None, "num_neurons: expected an integer"),
    ],
)
def test_bad_configurations_are_refused(tmp_path: Path, name: str, value: object, words: str) -> None:
    with pytest.raises(DataError, match=rf"config\.json: {words}"):
        read_ranc(*files(tmp_path, config=CONFIG | {name: value}))
    with pytest.raises(DataError, match=rf"config\.json: {name} is missing" if "trace" not in name else "input"):
        without = {key: other for key, other in CONFIG.items() if key != name}
        read_ranc(*files(tmp_path, {}, without))


def test_reset_types_both_ways(tmp_path: Path) -> None:
    for number, test in ((0, NegativeTest.BELOW), (1, NegativeTest.AT_OR_BELOW)):
        config = read_ranc_config(files(tmp_path, config=CONFIG | {"neuron_reset_type": number})[1])
        assert config.negative_test is test
        grid = replace(ranc_grid(0), negative_test=test)
        assert RancConfig.of(grid) == RancConfig(6, 8, 3, 2, 4, 16, number)


def test_grids_too_large_for_the_configuration_are_refused(tmp_path: Path) -> None:
    grid = CoreGrid.empty(1, 1, 1, width=5000, output=OutputBus(1, 0, 1))
    with pytest.raises(InvalidArgument, match=r"num_cores_x: expected 1\.\.4096, got 5000"):
        write_ranc(RancNetwork(grid), tmp_path / "input.json", tmp_path / "config.json")
    assert not list(tmp_path.iterdir())


def test_files_that_cannot_be_written_are_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    grid = CoreGrid.empty(1, 1, 1, width=2, output=OutputBus(1, 0, 1), neurons=Neurons.inert(1, 1))
    with pytest.raises(FileError, match=r"input\.json"):
        write_ranc(RancNetwork(grid), tmp_path / "file" / "input.json", tmp_path / "config.json")


def test_the_text_output(tmp_path: Path) -> None:
    path = tmp_path / "output.txt"
    spikes = torch.tensor([[True, False, True], [False, False, False]])
    write_ranc_output(spikes, path)
    assert path.read_bytes() == b"\xef\xbb\xbf0 0 0 \n1 0 1 \n0 0 0 \n"
    assert torch.equal(read_ranc_output(path), spikes)
    path.write_bytes(b"0 0\r\n1 0\r\n")  # no mark, no space at the end, lines as Windows ends them
    assert read_ranc_output(path).tolist() == [[True, False]]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"0 0 \n0 1 \n0 2 \n", "line 3: expected 0 or 1, parted by spaces, got '0 2'"),
        (b"0 0 \n01 \n", "line 2: expected 0 or 1, parted by spaces"),
        (b"0 0 \n0 -1 \n", "line 2: expected 0 or 1"),
        (b"0 0 \n0 1 0 \n", "line 2: expected 2 columns, got 3"),
        (b"0 0 \n\n0 \n", "line 3: expected 2 columns, got 1"),
        (b"0 0 \n0 \xff\n", "line 2: expected 0 or 1"),
        (b"0 1 \n0 0 \n", "line 1: expected zeros"),
        (b"", "expected at least one line"),
    ],
)
def test_bad_output_files_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "output.txt").write_bytes(b"\xef\xbb\xbf" + content)
    with pytest.raises(DataError, match=rf"output\.txt:? {words}"):
        read_ranc_output(tmp_path / "output.txt")
