"""RANC's test vectors: both ways, bits by hand, the shipped ones through both engines, and what is refused."""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ranc_grids import assert_same_packets, ranc_grid, ranc_network, tea_256
from spokeshave.data import DatasetName, load
from spokeshave.errors import DataError, InvalidArgument
from spokeshave.targets.truenorth.core_grid import CoreGrid, OutputBus
from spokeshave.targets.truenorth.ranc_memory import read_ranc_memory
from spokeshave.targets.truenorth.ranc_network import RancNetwork
from spokeshave.targets.truenorth.ranc_vectors import (
    INPUT_COUNTS,
    INPUTS,
    OUTPUT_COUNTS,
    OUTPUTS,
    RancVectors,
    read_ranc_vectors,
    write_ranc_vectors,
)
from spokeshave.targets.truenorth.spike_simulator import Engine, InputLines, SpikeSimulator

FILES = (INPUTS, INPUT_COUNTS, OUTPUTS, OUTPUT_COUNTS)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000), axons=st.sampled_from([2, 3, 16]), slots=st.sampled_from([2, 3, 16]),
    ticks=st.integers(1, 8), share=st.sampled_from([0.0, 0.1, 0.7]),
)  # fmt: skip
def test_round_trip(seed: int, axons: int, slots: int, ticks: int, share: float) -> None:
    network = ranc_network(seed, ticks, axons=axons, slots=slots)
    vectors = RancVectors(network, torch.rand(ticks + 1, axons - 1) < share)
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as other:
        write_ranc_vectors(vectors, folder)
        again = read_ranc_vectors(folder, network.grid)
        assert_same_packets(again.network, network)
        assert torch.equal(again.outputs, vectors.outputs)
        write_ranc_vectors(again, other)
        for name in FILES:
            assert (Path(other) / name).read_bytes() == (Path(folder) / name).read_bytes()


@pytest.fixture
def by_hand(tmp_path: Path) -> tuple[Path, CoreGrid]:
    """Cores of 8 axons, 7 lines; three packets in two ticks, and three spikes in the second of two."""
    packets = (
        "000000010" "000000000" "011" "0000\n"
        "000000000" "000000001" "111" "1111\n"
        "000000000" "000000000" "000" "0010"
    )  # fmt: skip
    (tmp_path / INPUTS).write_text(packets)
    (tmp_path / INPUT_COUNTS).write_text("1\n2\n")
    (tmp_path / OUTPUTS).write_text("\n110\n001\n001")
    (tmp_path / OUTPUT_COUNTS).write_text("0\n3\n")
    return tmp_path, ranc_grid(0)


def test_bits_by_hand(by_hand: tuple[Path, CoreGrid]) -> None:
    vectors = read_ranc_vectors(*by_hand)
    assert [rows.tolist() for rows in vectors.network.packets] == [[[2, 0, 3, 0]], [[0, 1, 7, 15], [0, 0, 0, 2]]]
    assert vectors.outputs.int().tolist() == [[0] * 7, [0, 1, 0, 0, 0, 0, 1]]  # two spikes on line 1 are one


Change = Callable[[list[str]], object]


def put(number: int, change: Callable[[str], str]) -> Change:
    def apply(lines: list[str]) -> None:
        lines[number - 1] = change(lines[number - 1])

    return apply


REFUSED: list[tuple[str, Change, str]] = [
    (INPUTS, lambda lines: lines.pop(), r"line 2: expected 3 lines, as tb_num_inputs\.txt has it, got 2; cut off\?"),
    (INPUTS, list.clear, r"line 1: expected 3 lines, as tb_num_inputs\.txt has it, got 0"),
    (INPUTS, put(3, lambda line: line[:-1]), r"line 3: expected 25 bits \(8 axons, 16 slots\), got 24"),
    (INPUTS, put(2, lambda line: "z" + line[1:]), r"line 2, column 1: expected 0 or 1, got 'z'"),
    (INPUTS, put(2, lambda line: "1" + line[1:]), r"line 2: got \(-256, 1\), axon 7.*but the grid has 3 x 2 cores"),
    (INPUTS, put(3, lambda line: "000000001" * 2 + line[18:]), "line 3: .*straight to the output bus"),
    (INPUT_COUNTS, put(2, lambda line: "-2"), "line 2: expected a count, got '-2'"),
    (INPUT_COUNTS, put(2, lambda line: "2.0"), "line 2: expected a count, got '2.0'"),
    (INPUT_COUNTS, put(1, lambda line: "9" * 30), "line 1: expected a count"),
    (INPUT_COUNTS, list.clear, "expected a count for each tick, got none"),
    (OUTPUTS, lambda lines: lines.pop(), r"line 3: expected 3 lines, as tb_num_outputs\.txt has it, got 2"),
    (OUTPUTS, put(2, lambda line: "111"), "line 2: expected a line below 7 of the output bus, got 7"),
    (OUTPUTS, put(2, lambda line: "0110"), r"line 2: expected 3 bits \(7 lines of the output bus\), got 4"),
    (OUTPUT_COUNTS, put(1, lambda line: "x"), "line 1: expected a count, got 'x'"),
]


@pytest.mark.parametrize(("name", "change", "words"), REFUSED, ids=[f"{row[0]} {row[2][:30]}" for row in REFUSED])
def test_bad_files_are_refused_with_the_line(
    by_hand: tuple[Path, CoreGrid], name: str, change: Change, words: str
) -> None:
    folder, grid = by_hand
    lines = (folder / name).read_text().split("\n")
    change(lines)
    (folder / name).write_text("\n".join(lines))
    with pytest.raises(DataError, match=words) as caught:
        read_ranc_vectors(folder, grid)
    where = INPUTS if name == INPUT_COUNTS and "lines" in words else name
    assert str(caught.value).startswith(str(folder / where))


@pytest.mark.parametrize("name", FILES)
def test_missing_files_are_refused(by_hand: tuple[Path, CoreGrid], name: str) -> None:
    (by_hand[0] / name).unlink()
    with pytest.raises(DataError, match=f"{name} is missing"):
        read_ranc_vectors(*by_hand)


def test_axons_beyond_a_core_are_refused(tmp_path: Path) -> None:
    network = RancNetwork(ranc_grid(0, axons=8), (torch.tensor([[0, 0, 6, 0]]),))
    write_ranc_vectors(RancVectors(network, torch.zeros(1, 7, dtype=torch.bool)), tmp_path)
    with pytest.raises(DataError, match=r"tb_input\.txt line 1: .*axon 6, delivery tick 0, but a core has 6 axons"):
        read_ranc_vectors(tmp_path, ranc_grid(0, axons=6))


def test_a_bus_of_one_line(tmp_path: Path) -> None:
    grid = replace(CoreGrid.empty(1, 2, 1), width=2, output=OutputBus(1, 0, 1))
    vectors = RancVectors(RancNetwork(grid, (torch.tensor([[0, 0, 1, 0]]),)), torch.tensor([[True], [False], [True]]))
    write_ranc_vectors(vectors, tmp_path)
    assert (tmp_path / OUTPUTS).read_text() == "0\n0"
    assert torch.equal(read_ranc_vectors(tmp_path, grid).outputs, vectors.outputs)


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    network, none = ranc_network(0), torch.zeros(2, 7, dtype=torch.bool)
    for vectors, words in (
        (RancVectors(network, none[:, 1:]), "outputs: expected 7 lines, got 6"),
        (RancVectors(RancNetwork(replace(network.grid, output=None)), none), "output bus"),
        (RancVectors(RancNetwork(replace(network.grid, width=257)), none), "at most 256 x 256 cores, got 257 x 2"),
    ):
        with pytest.raises(InvalidArgument, match=words):
            write_ranc_vectors(vectors, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("engine", [Engine.TORCH, Engine.BIT_PLANES])
def test_the_shipped_vectors_are_what_the_simulator_gives(real_data_dir: Path, tmp_path: Path, engine: Engine) -> None:
    folder = tea_256(real_data_dir)
    grid = read_ranc_memory(folder, 4, 3, OutputBus(0, 2, 250))
    vectors = read_ranc_vectors(folder, grid)
    counts = [len(rows) for rows in vectors.network.packets]
    assert (counts[:3], len(counts), sum(counts)) == ([104, 174, 55], 10, 1367)
    assert int(vectors.outputs.sum()) == 539
    network = vectors.network
    outputs = SpikeSimulator(grid, network.inputs(), engine).run(network.spikes(), 11).outputs[0]
    assert torch.equal(outputs[1:], vectors.outputs)  # through two layers
    write_ranc_vectors(vectors, tmp_path)
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes(), name


def test_shipped_vectors_that_were_cut_off(real_data_dir: Path, tmp_path: Path) -> None:
    folder = tea_256(real_data_dir)
    grid = read_ranc_memory(folder, 4, 3, OutputBus(0, 2, 250))
    for name in FILES:
        shutil.copyfile(folder / name, tmp_path / name)
    (tmp_path / INPUTS).write_bytes((folder / INPUTS).read_bytes()[:-10])
    with pytest.raises(DataError, match=r"tb_input\.txt line 1367: expected 30 bits \(256 axons, 16 slots\), got 20"):
        read_ranc_vectors(tmp_path, grid)


@pytest.mark.parametrize("engine", [Engine.TORCH, Engine.BIT_PLANES])
def test_the_shipped_network_reads_9404_of_mnist_s_10000_test_images(real_data_dir: Path, engine: Engine) -> None:
    """One image a tick, as RANC streams them; torch runs the first 2,000, with the bits of the other engine."""
    splits = load(DatasetName.MNIST, real_data_dir)
    grid = read_ranc_memory(real_data_dir / "ranc" / "tea_256", 4, 3, OutputBus(0, 2, 250))
    core = torch.stack([grid.places()[0, x] for x in range(4)]).repeat_interleave(256)
    line = torch.cat([torch.arange(first, first + 256) for first in (0, 176, 352, 528)])
    inputs = InputLines(784, line, core, torch.arange(256).repeat(4), torch.ones_like(line))
    # Streams of a hundred images: neurons forget, and an answer comes a tick after its image.
    pixels = (splits.test.images.flatten(1) > 127).view(100, 100, 784)
    streams = pixels if engine is Engine.BIT_PLANES else pixels[:20]
    outputs = SpikeSimulator(grid, inputs, engine).run(streams, 101).outputs[:, 1:].flatten(0, 1)
    votes = torch.stack([outputs[:, label::10].sum(1) for label in range(10)], 1)
    right = votes.argmax(1) == splits.test.labels[: len(votes)]
    if engine is Engine.BIT_PLANES:
        assert int(right.sum()) == 9404
    else:
        wanted = SpikeSimulator(grid, inputs, Engine.BIT_PLANES).run(streams, 101).outputs[:, 1:].flatten(0, 1)
        assert torch.equal(outputs, wanted)
