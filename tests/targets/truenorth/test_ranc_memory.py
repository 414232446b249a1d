"""RANC's memory files: both ways, bits by hand, the shipped network, and what is refused."""

import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ranc_grids import assert_same_grid, ranc_grid, tea_256
from spokeshave.errors import DataError, FileError, InvalidArgument
from spokeshave.targets.truenorth import ranc_memory
from spokeshave.targets.truenorth.core_grid import NOWHERE, CoreGrid, NegativeTest, OutputBus
from spokeshave.targets.truenorth.ranc_memory import (
    read_ranc_memory,
    to_bits,
    to_numbers,
    write_ranc_memory,
)

TEA_OUTPUT = OutputBus(0, 2, 250)


def sorted_by_place(grid: CoreGrid) -> CoreGrid:
    order = (grid.coordinates[:, 0] + grid.width * grid.coordinates[:, 1]).argsort()
    neurons = replace(grid.neurons, **{name: value[order] for name, value in vars(grid.neurons).items()})
    return replace(
        grid, coordinates=grid.coordinates[order], axon_types=grid.axon_types[order],
        connections=grid.connections[order], neurons=neurons,
    )  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000), axons=st.sampled_from([2, 5, 16]), neurons=st.sampled_from([3, 10]),
    types=st.sampled_from([2, 4, 8]), slots=st.sampled_from([2, 4, 16]), largest=st.sampled_from([9, 255]),
)  # fmt: skip
def test_round_trip(seed: int, slots: int, **sizes: int) -> None:
    grid = ranc_grid(seed, slots=slots, **sizes)
    assert grid.output is not None
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as other:
        write_ranc_memory(grid, folder)
        assert len(list(Path(folder).iterdir())) == 2 * 6
        again = read_ranc_memory(folder, 3, 2, grid.output, grid.negative_test, slots)
        assert_same_grid(again, sorted_by_place(grid))
        every = read_ranc_memory(folder, 3, 2, grid.output, grid.negative_test, slots, skip_inert=False)
        assert every.coordinates.tolist() == [[0, 0], [1, 0], [2, 0], [0, 1], [2, 1]]
        write_ranc_memory(every, other)
        for path in Path(folder).iterdir():
            assert (Path(other) / path.name).read_bytes() == path.read_bytes()


def one_core(folder: Path, csram: str, tc: str = "1\n0\n") -> Path:
    """Two axons, two weights, four slots."""
    (folder / "csram_000.mem").write_text(csram)
    (folder / "tc_000.mem").write_text(tc)
    return folder


def fields(
    connections: str, v: int, r: int, w: tuple[int, int], leak: int, high: int, low: int, mode: int,
    to: tuple[int, int], axon: int, late: int,
) -> str:  # fmt: skip
    def nine(value: int) -> str:
        return format(value % 512, "09b")

    numbers = "".join(nine(value) for value in (v, r, *w, leak, high, low))
    return f"{connections}{numbers}{mode}{nine(to[0])}{nine(to[1])}{axon}{late:02b}\n"


FIRST = fields("01", 5, -2, (7, -1), 1, 255, -256, 1, (1, 0), 1, 3)
SECOND = fields("10", 0, 0, (0, 0), 0, 1, 0, 0, (-1, -1), 1, 2)


def test_bits_by_hand(tmp_path: Path) -> None:
    assert FIRST == (
        "01" "000000101" "111111110" "000000111" "111111111" "000000001" "011111111" "100000000" "1"
        "000000001" "000000000" "1" "11\n"
    )  # fmt: skip
    grid = read_ranc_memory(one_core(tmp_path, FIRST + SECOND), 2, 1, OutputBus(1, 0, 2), slots=4)
    neurons = grid.neurons
    assert (grid.width, grid.height, grid.coordinates.tolist(), grid.slots) == (2, 1, [[0, 0]], 4)
    assert grid.negative_test is NegativeTest.BELOW
    assert grid.axon_types.tolist() == [[1, 0]]
    assert grid.connections.int().tolist() == [[[1, 0], [0, 1]]]  # the leftmost bit is the last axon
    assert neurons.weights.tolist() == [[[7, -1], [0, 0]]]
    for name, values in {
        "potential": [5, 0], "reset_potential": [-2, 0], "leak": [1, 0], "positive_threshold": [255, 1],
        "negative_threshold": [-256, 0], "reset_mode": [1, 0], "target_axon": [1, NOWHERE], "delay": [4, 1],
    }.items():  # fmt: skip
        assert getattr(neurons, name).tolist() == [values], name
    assert neurons.target.tolist() == [[[1, 0], [0, 0]]]


def test_comments_blank_lines_and_windows_line_ends(tmp_path: Path) -> None:
    plain = read_ranc_memory(one_core(tmp_path, FIRST + SECOND), 2, 1, OutputBus(1, 0, 2), slots=4)
    text = f"/*Memory organization:\n[Potential] [9 bits]*/\r\n{FIRST.strip()} /* one */\r\n\r\n{SECOND.strip()}\r\n"
    one_core(tmp_path, text, "/* types */1\n 0")
    assert_same_grid(read_ranc_memory(tmp_path, 2, 1, OutputBus(1, 0, 2), slots=4), plain)
    one_core(tmp_path, text.replace(SECOND.strip(), SECOND.strip()[:-1] + "x"))
    with pytest.raises(DataError, match=r"csram_000\.mem line 5, column 87: expected 0 or 1, got 'x'"):
        read_ranc_memory(tmp_path, 2, 1, OutputBus(1, 0, 2), slots=4)
    one_core(tmp_path, FIRST + "/* no end\n" + SECOND)
    with pytest.raises(DataError, match=r"csram_000\.mem line 2: the comment has no end"):
        read_ranc_memory(tmp_path, 2, 1, OutputBus(1, 0, 2), slots=4)


@pytest.mark.parametrize(("axons", "neurons", "width"), [(128, 3, 239), (256, 2, 368), (512, 4, 625)])
def test_widths_of_the_shipped_sets(tmp_path: Path, axons: int, neurons: int, width: int) -> None:
    grid = ranc_grid(0, axons=axons, neurons=neurons)
    assert grid.output is not None
    write_ranc_memory(grid, tmp_path)
    lines = (tmp_path / "csram_000.mem").read_text().splitlines()
    assert [len(line) for line in lines] == [width] * neurons
    assert_same_grid(read_ranc_memory(tmp_path, 3, 2, grid.output), sorted_by_place(grid))


def test_files_of_large_grids_have_four_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranc_memory, "atomic_write", Path.write_bytes)  # which need not wait for the disk
    grid = CoreGrid.empty(1, 2, 1, width=40, height=26, output=OutputBus(39, 25, 1))
    grid.neurons.leak[0, 0] = 1
    grid.neurons.target_axon[0, 0] = 0
    write_ranc_memory(grid, tmp_path)
    assert (tmp_path / "csram_1039.mem").is_file() and (tmp_path / "tc_0000.mem").is_file()
    assert read_ranc_memory(tmp_path, 40, 26, OutputBus(39, 25, 1)).cores == 1


def test_numbers_and_bits() -> None:
    numbers = np.array([[[-256, 255, 1, 3]], [[-1, 0, 0, 0]]])
    bits = to_bits(numbers, [9, 9, 1, 2])
    assert bits.shape == (2, 1, 21)
    assert to_numbers(bits, [9, 9, 1, 2], [True, True, False, False]).tolist() == numbers.tolist()
    assert to_numbers(np.zeros((1, 3), np.uint8), [3, 0], [True, True]).tolist() == [[0, 0]]


Change = Callable[[Path], object]


def edit(name: str, change: Callable[[list[str]], object]) -> Change:
    def apply(folder: Path) -> None:
        lines = (folder / name).read_text().splitlines()
        change(lines)
        (folder / name).write_text("\n".join(lines) + "\n")

    return apply


def put(number: int, change: Callable[[str], str]) -> Callable[[list[str]], None]:
    def apply(lines: list[str]) -> None:
        lines[number - 1] = change(lines[number - 1])

    return apply


WIDTH = 8 + 81 + 19 + 3 + 4  # of the six neurons of eight axons that follow
REFUSED: list[tuple[Change, str]] = [
    (edit("csram_002.mem", lambda lines: lines.pop()),
     r"csram_002\.mem line 5: expected 6 lines of bits, as csram_000\.mem has, got 5; cut off\?"),
    (edit("csram_002.mem", list.clear), r"csram_002\.mem line 1: expected 6 lines of bits.*got 0"),
    (edit("csram_002.mem", put(6, lambda line: line[:50])), rf"csram_002\.mem line 6: expected {WIDTH} bits.*got 50"),
    (edit("csram_002.mem", put(1, lambda line: line + "0")),
     rf"csram_002\.mem line 1: expected {WIDTH} bits \(8 axons, 4 weights, 16 slots\), got {WIDTH + 1}"),
    (edit("csram_003.mem", put(3, lambda line: line[:9] + "2" + line[10:])),
     r"csram_003\.mem line 3, column 10: expected 0 or 1, got '2'"),
    (edit("csram_003.mem", put(3, lambda line: line[:9] + "\xe9" + line[11:])), r"csram_003\.mem line 3, column 10"),
    (edit("tc_005.mem", lambda lines: lines.pop()),
     r"tc_005\.mem line 7: expected 8 lines of bits, as tc_000\.mem has"),
    (edit("tc_005.mem", put(4, lambda line: line + "0")), r"tc_005\.mem line 4: expected 2 bits, got 3"),
    (edit("tc_005.mem", lambda lines: [put(n, lambda line: "0")(lines) for n in range(1, 9)]),
     r"tc_005\.mem line 1: expected 2 bits, as tc_000\.mem has, got 1"),
    (edit("tc_005.mem", put(4, lambda line: "0x")), r"tc_005\.mem line 4, column 2: expected 0 or 1, got 'x'"),
    (lambda folder: (folder / "csram_003.mem").unlink(), r"csram_003\.mem is missing: core \(0, 1\) of 3 x 2"),
    (lambda folder: (folder / "tc_000.mem").unlink(), r"tc_000\.mem is missing: core \(0, 0\)"),
    (lambda folder: shutil.copy(folder / "tc_000.mem", folder / "tc_0000.mem"),
     r"tc_0000\.mem: core 0 is in tc_000\.mem too"),
    (lambda folder: shutil.copy(folder / "tc_000.mem", folder / "tc_006.mem"), r"tc_006.*beyond a grid of 3 x 2"),
    (lambda folder: [path.write_text("0" * 8 + "\n") for path in folder.glob("tc_*")],
     r"line 1: expected at most 7 bits"),
    (lambda folder: [path.write_text("") for path in folder.glob("csram_*")],
     r"csram_000\.mem: expected lines of bits, got none"),
    (edit("csram_003.mem", put(2, lambda line: line[:-25] + "100000000" + line[-16:])),
     r"csram_003\.mem line 2: it may spike and sends to axon \d at \(-256, 1\), but the grid has 3 x 2 cores"),
    (edit("csram_003.mem", put(2, lambda line: line[:-25] + "000000001" + "0" * 9 + "111" + line[-4:])),
     r"csram_003\.mem line 2: it may spike and sends to axon 7 at \(1, 1\), but the output bus there has 7 lines"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "words"), REFUSED, ids=[words[:40] for _, words in REFUSED])
def test_bad_files_are_refused_with_the_line(tmp_path: Path, change: Change, words: str) -> None:
    grid = ranc_grid(4)
    grid.neurons.leak[2, 1] = 1  # of the core at (0, 1): it spikes
    assert grid.output is not None
    write_ranc_memory(grid, tmp_path)
    read_ranc_memory(tmp_path, 3, 2, grid.output)
    change(tmp_path)
    with pytest.raises(DataError, match=words) as caught:
        read_ranc_memory(tmp_path, 3, 2, grid.output)
    assert str(caught.value).startswith(str(tmp_path))


def test_axons_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    """Five axons are counted by three bits, which hold 5, 6 and 7 as well."""
    grid = ranc_grid(4, axons=5)
    assert grid.output is not None
    for name, value in {"leak": 1, "target_axon": 4, "delay": 1}.items():
        getattr(grid.neurons, name)[2, 1] = value
    grid.neurons.target[2, 1] = 0
    write_ranc_memory(grid, tmp_path)
    edit("csram_003.mem", put(2, lambda line: line[:-7] + "101" + line[-4:]))(tmp_path)
    with pytest.raises(DataError, match=r"csram_003\.mem line 2: .*axon 5 at \(0, 1\), but a core has 5 axons"):
        read_ranc_memory(tmp_path, 3, 2, grid.output)


def test_the_older_format_without_a_reset_mode_is_refused(tmp_path: Path) -> None:
    older = FIRST[:65] + FIRST[66:]
    with pytest.raises(DataError, match=r"line 1: expected 87 bits.*, got 86"):
        read_ranc_memory(one_core(tmp_path, older * 2), 2, 1, OutputBus(1, 0, 2), slots=4)


def test_grids_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="output bus: expected a place in 2 x 1, got .2, 0."):
        read_ranc_memory(tmp_path, 2, 1, OutputBus(2, 0, 2))
    with pytest.raises(DataError, match="expected a core beside the output bus"):
        read_ranc_memory(tmp_path, 1, 1, OutputBus(0, 0, 2))
    one_core(tmp_path, SECOND * 2)
    with pytest.raises(DataError, match="no neuron of any core ever spikes"):
        read_ranc_memory(tmp_path, 2, 1, OutputBus(1, 0, 2), slots=4)
    assert read_ranc_memory(tmp_path, 2, 1, OutputBus(1, 0, 2), slots=4, skip_inert=False).cores == 1


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("weights", [0, 0, -257, 0], r"weights 2: expected -256\.\.255, which 9 bits hold, got -257"),
        ("weights", [256, 0, 0, 0], "weights 0"),
        ("leak", -300, "leak"),
        ("positive_threshold", 256, "positive_threshold"),
        ("negative_threshold", -257, "negative_threshold"),
        ("reset_potential", 256, "reset_potential"),
        ("potential", -257, r"potential: expected -256\.\.255, which 9 bits hold, got -257"),
    ],
)
def test_numbers_beyond_their_bits_are_refused(tmp_path: Path, name: str, value: object, words: str) -> None:
    grid = ranc_grid(4)
    getattr(grid.neurons, name)[1, 3] = torch.as_tensor(value, dtype=torch.int32)
    grid.neurons.target_axon[1, 3] = 0  # so that it may spike
    with pytest.raises(InvalidArgument, match=rf"core 1 at \(2, 0\), neuron 3: {words}"):
        write_ranc_memory(grid, tmp_path)
    assert not list(tmp_path.iterdir())


def test_sizes_that_bits_cannot_count_are_refused(tmp_path: Path) -> None:
    for grid, words in (
        (ranc_grid(0, types=3), "axon types: expected a power of two, which its bits can count, got 3"),
        (ranc_grid(0, types=1), "axon types: .* got 1"),
        (ranc_grid(0, slots=12), "slots: .* got 12"),
    ):
        with pytest.raises(InvalidArgument, match=words):
            write_ranc_memory(grid, tmp_path)


def test_what_ranc_lacks_is_refused(tmp_path: Path) -> None:
    grid = ranc_grid(0)
    grid.neurons.saturates[0, 1] = True
    with pytest.raises(InvalidArgument, match=r"core 0 at \(0, 0\), neuron 1: it has saturation"):
        write_ranc_memory(grid, tmp_path)


def test_folders_that_cannot_be_written_are_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match=r"csram_000\.mem"):
        write_ranc_memory(ranc_grid(0), tmp_path / "file")


def test_the_shipped_network(real_data_dir: Path, tmp_path: Path) -> None:
    folder = tea_256(real_data_dir)
    begun = time.perf_counter()
    grid = read_ranc_memory(folder, 4, 3, TEA_OUTPUT)
    assert time.perf_counter() - begun < 5  # it takes 30 ms
    assert grid.coordinates.tolist() == [[0, 0], [1, 0], [2, 0], [3, 0], [0, 1]]
    spiking = (grid.neurons.target_axon != NOWHERE).sum(1)
    assert spiking.tolist() == [64] * 4 + [250]
    assert grid.axon_types.tolist() == [[0, 1] * 128] * 5
    used = grid.neurons.target_axon != NOWHERE
    assert grid.neurons.weights[used].unique(dim=0).tolist() == [[1, -1, 1, -1]]
    assert grid.neurons.leak.unique().tolist() == [-1, 0, 1]
    write_ranc_memory(grid, tmp_path)
    written = sorted(path.name for path in tmp_path.iterdir())
    assert written == sorted(path.name for path in folder.glob("*.mem")) and len(written) == 24
    for name in written:
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes(), name


def test_a_shipped_file_that_was_cut_off(real_data_dir: Path, tmp_path: Path) -> None:
    for path in tea_256(real_data_dir).glob("*.mem"):
        shutil.copyfile(path, tmp_path / path.name)
    whole = (tmp_path / "csram_003.mem").read_bytes()
    for keep, words in (
        (50_000, r"csram_003\.mem line 136: expected 368 bits \(256 axons, 4 weights, 16 slots\), got 185"),
        (369 * 100, r"csram_003\.mem line 100: expected 256 lines of bits, as csram_000\.mem has, got 100"),
    ):
        (tmp_path / "csram_003.mem").write_bytes(whole[:keep])
        with pytest.raises(DataError, match=words):
            read_ranc_memory(tmp_path, 4, 3, TEA_OUTPUT)
