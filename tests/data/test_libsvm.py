"""LIBSVM's text format, beside scikit-learn's reader, and RS130 from small files of it."""

import bz2
import gzip
import lzma
import re
from collections.abc import Callable
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_svmlight_file

from spokeshave.data import Batches, load, locate
from spokeshave.data.libsvm import FEATURES, Numbers, parse_line, read_libsvm
from spokeshave.errors import DataError

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}
TRAIN = ["0   21:1.00   42:1.00   63: .50", "2 1:0.2 357:1", "1", "0 2:0.1"]


def write(path: Path, lines: list[str] | bytes) -> Path:
    """Write lines, compressed as the name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = lines if isinstance(lines, bytes) else "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes(COMPRESS.get(path.suffix, bytes)(content))
    return path


def write_rs130(root: Path, train: list[str] = TRAIN, test: list[str] = TRAIN) -> Path:
    write(root / "rs130" / "protein.bz2", train)
    write(root / "rs130" / "protein.t", test)
    return root


def random_file(path: Path, blank_after_colon: bool = False) -> Path:
    """Numbers in every form that printf knows, with gaps between the indices and samples without any."""
    rng = np.random.default_rng(7)
    lines = []
    for _ in range(60):
        indices = np.flatnonzero(rng.random(30) < rng.random()) + 1
        forms = [
            f"{value:{form}}" for value, form in zip(rng.normal(size=30), [".2f", ".17g", ".3e"] * 10, strict=True)
        ]
        blank = " " if blank_after_colon else ""
        pairs = [f"{index}:{blank}{form}" for index, form in zip(indices, forms, strict=False)]
        lines.append("  ".join([str(rng.integers(-3, 4)), *pairs]) + rng.choice(["", " ", "\t"]))
    return write(path, lines)


@pytest.mark.parametrize("ending", COMPRESS)
def test_values_and_labels_are_those_of_scikit_learn(tmp_path: Path, ending: str) -> None:
    path = random_file(tmp_path / f"sample{ending}")
    values, labels = read_libsvm(path, 30)
    plain = random_file(tmp_path / "again").read_bytes()
    expected, expected_labels = load_svmlight_file(BytesIO(plain), n_features=30, zero_based=False)
    assert np.count_nonzero(values) > 400
    assert np.array_equal(values, expected.toarray())
    assert np.array_equal(labels, expected_labels)


def test_blanks_after_the_colon_change_nothing(tmp_path: Path) -> None:
    """As LIBSVM's own file has them; scikit-learn refuses it."""
    padded = read_libsvm(random_file(tmp_path / "padded", blank_after_colon=True), 30)
    for one, other in zip(padded, read_libsvm(random_file(tmp_path / "tight"), 30), strict=True):
        assert np.array_equal(one, other)


def test_forms_of_a_line(tmp_path: Path) -> None:
    path = tmp_path / "forms"
    path.write_bytes(b"+1 1:.5 3:-2. 5:+1e-2\r\n  -7\t2:\t4E1   4: 007 \r\n3\n0 0000005:1\n\n \n")
    values, labels = read_libsvm(path, 5)
    assert labels.tolist() == [1, -7, 3, 0]
    assert values.tolist() == [[0.5, 0, -2, 0, 0.01], [0, 40, 0, 7, 0], [0] * 5, [0, 0, 0, 0, 1]]


FAULTS = [
    ("1 2:abc", "value 2 must be a finite number, got 'abc'"),
    ("1 2:1.2.3 3:1", r"value 2 must be a finite number, got '1\.2\.3'"),
    ("1 2:0.5:7", "value 2 must be a finite number"),
    ("1 2:1_0", "value 2 must be a finite number, got '1_0'"),
    ("1 2:0x10", "value 2 must be a finite number"),
    ("1 1:0 2:nan", "value 2 must be a finite number, got 'nan'"),
    ("1 2:-inf 3:0", "value 2 must be a finite number, got '-inf'"),
    ("1 1:1 3:1e999", "value 3 must be a finite number, got '1e999'"),
    ("1 3: 4:5", "value 3 must be a finite number, got '4:5'"),
    ("1 0:0.5 2:1", r"indices must rise and be 1\.\.5, got 0 first"),
    ("1 -1:0.5", "expected index:value, got '-1:0.5'"),
    ("1 2:0.5 6:1", r"indices must rise and be 1\.\.5, got 6 after 2"),
    ("1 99999999999999999999:1", "expected index:value, got '99999"),
    ("1 999999999999999999:1", r"indices must rise and be 1\.\.5, got 999999999999999999 first"),
    ("1 4:1 3:1", r"indices must rise and be 1\.\.5, got 3 after 4"),
    ("1 1:1 4:1 3:1 5:1", r"indices must rise and be 1\.\.5, got 3 after 4"),
    ("1 1:1 2:1 2:1", r"indices must rise and be 1\.\.5, got 2 after 2"),
    ("1 2:1 7", "expected index:value, got '7'"),
    ("1 2:1 3:", "expected index:value, got '3:'"),
    ("1 2:1 :3", "expected index:value, got ':3'"),
    ("1 2 :1", "expected index:value, got '2'"),
    ("1 2 3:4 5:1 6 :7", "expected index:value, got '2'"),
    ("1 1.0:1", "expected index:value, got '1.0:1'"),
    ("1 2:1 # noted", "expected index:value, got '#'"),
    ("1.5 2:1", r"expected an integer label, got '1\.5'"),
    ("helix 2:1", "expected an integer label, got 'helix'"),
    ("1,2 2:1", "expected an integer label, got '1,2'"),
    ("1_0 2:1", "expected an integer label, got '1_0'"),
    ("9999999999999999999 2:1", "expected an integer label"),
    ("2:1", "expected an integer label, got '2:1'"),
    ("", "expected an integer label, got ''"),
    ("nan 2:1", "expected an integer label, got 'nan'"),
    ("1 2:" + "1" * 5000 + "x", r"value 2 must be a finite number, got '1{30}'"),
]


@pytest.mark.parametrize(("line", "said"), FAULTS)
def test_a_wrong_line_is_refused_with_file_number_and_reason(tmp_path: Path, line: str, said: str) -> None:
    path = write(tmp_path / "some.bz2", ["1 1:0.5", "2 5:1", line, "3 1:0", "x"])
    with pytest.raises(DataError, match=rf"some\.bz2: line 3: {said}.*; remove the file and copy or download"):
        read_libsvm(path, 5)


def taken_apart(line: str, features: int) -> tuple[int, list[int], list[float]] | None:
    """What a line means, read word by word from the definition of the format; None where it means nothing."""
    label, *pairs = re.sub(r":[ \t]+", ":", line).split() or [""]
    if not re.fullmatch(r"[-+]?[0-9]+", label) or any(pair.count(":") != 1 for pair in pairs):
        return None
    indices, values = zip(*(pair.split(":") for pair in pairs), strict=True) if pairs else ((), ())
    if not all(re.fullmatch("[0-9]+", index) and 1 <= int(index) <= features for index in indices):
        return None
    if any(int(after) <= int(before) for before, after in pairwise(indices)):
        return None
    try:
        return int(label), [int(index) for index in indices], [float(value) for value in values]
    except ValueError:
        return None


def test_lines_of_random_characters_mean_what_the_definition_says() -> None:
    rng, understood = np.random.default_rng(130), 0
    pieces = [" 1:1", " 2:.5", "\t3: -1", "  10:2e1", " 4:", ":", " ", "0", "1", ".", "-", "e", "x"]
    for _ in range(8_000):
        line = str(rng.integers(3)) + "".join(rng.choice(pieces, rng.integers(7)))
        expected = taken_apart(line, 10)
        try:
            label, indices, values = parse_line(line.encode(), 10, Numbers())
        except ValueError:
            assert expected is None, line
        else:
            assert (label, indices, values.tolist()) == expected, line
            understood += len(indices) > 0
    assert 500 < understood < 7_000


@pytest.mark.parametrize("content", [bytes(range(256)), b"\x00" * 40, b"\xff\xfe1\x00 \x00", bz2.compress(b"1 1:1\n")])
def test_binary_junk_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "protein"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"protein: line \d: expected an integer label") as caught:
        read_libsvm(path, 5)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("ending", COMPRESS)
@pytest.mark.parametrize("content", [b"", b"\n \r\n"])
def test_an_empty_file_is_refused(tmp_path: Path, ending: str, content: bytes) -> None:
    with pytest.raises(DataError, match=rf"some{ending} is empty"):
        read_libsvm(write(tmp_path / f"some{ending}", content), 5)


@pytest.mark.parametrize("ending", [".gz", ".bz2", ".xz"])
@pytest.mark.parametrize("keep", [5, 0.5, -8])
def test_a_truncated_stream_is_refused(tmp_path: Path, ending: str, keep: float) -> None:
    path = random_file(tmp_path / f"some{ending}")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole)) if keep == 0.5 else int(keep)])
    with pytest.raises(DataError, match=rf"some{ending} \(\d+ bytes\) is not a whole {ending} file: .*; remove"):
        read_libsvm(path, 30)


@pytest.mark.parametrize("ending", [".gz", ".bz2", ".xz"])
def test_what_is_not_compressed_is_refused(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"some{ending}"
    path.write_bytes(b"1 1:0.5\n" * 20)
    with pytest.raises(DataError, match=rf"is not a whole {ending} file"):
        read_libsvm(path, 5)


@pytest.mark.parametrize("ending", [".gz", ".bz2", ".xz"])
def test_a_byte_that_changed_is_noticed(tmp_path: Path, ending: str) -> None:
    path = random_file(tmp_path / f"some{ending}")
    whole = path.read_bytes()
    for position in range(20, len(whole) - 12, 97):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x55]) + whole[position + 1 :])
        with pytest.raises(DataError, match=rf"is not a whole {ending} file"):
            read_libsvm(path, 30)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere cannot be read: No such file"):
        read_libsvm(tmp_path / "nowhere", 5)


def test_features_land_row_by_row_and_the_last_pixels_are_0(tmp_path: Path) -> None:
    splits = load("rs130", write_rs130(tmp_path))
    assert (splits.name, splits.classes, splits.train.image_shape) == ("rs130", ("0", "1", "2"), (1, 19, 19))
    assert splits.train.labels.tolist() == [0, 2, 1, 0]
    first, second, empty, _ = splits.train.images[:, 0].numpy()
    expected = np.zeros((19, 19))
    expected[1, 1], expected[2, 3], expected[3, 5] = 255, 255, 128  # features 21, 42, 63; 127.5 goes to the even level
    assert np.array_equal(first, expected)
    assert (second[0, 0], second[18, 14]) == (51, 255)
    assert second[18, 15:].tolist() == [0, 0, 0, 0]
    assert not empty.any()


def test_images_are_those_of_scikit_learn(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    lines = [
        f"{n % 3} " + " ".join(f"{i + 1}:{v:.2f}" for i, v in enumerate(rng.random(FEATURES)) if v > 0.6)
        for n in range(20)
    ]
    splits = load("rs130", write_rs130(tmp_path, lines, lines[5:9]))
    content = "".join(f"{line}\n" for line in lines).encode()
    values, labels = load_svmlight_file(BytesIO(content), n_features=FEATURES, zero_based=False)
    levels = np.pad(np.round(255 * values.toarray()), ((0, 0), (0, 4))).reshape(20, 1, 19, 19)
    assert np.array_equal(splits.train.images.numpy(), levels)
    assert np.array_equal(splits.train.labels.numpy(), labels)
    assert np.array_equal(splits.test.images.numpy(), levels[5:9])
    images, _ = Batches(splits.train, 20, shuffle=False).batch(0, 0)
    assert np.abs(images.numpy().reshape(20, 361)[:, :FEATURES] - values.toarray()).max() <= 0.5 / 255 + 1e-6


def test_other_values_are_scaled_by_the_training_file_and_the_test_file_is_clipped(tmp_path: Path) -> None:
    train = ["0 1:-1 2:3", "1 1:1 2:-0.2", "2 3:2"]
    splits = load("rs130", write_rs130(tmp_path, train, ["1 1:-5 2:7 3:1"]))
    shown = splits.train.images.flatten(1)
    assert shown[:, :4].tolist() == [[0, 255, 64, 64], [128, 51, 64, 64], [64, 64, 191, 64]]  # (value + 1) * 255 / 4
    assert shown[:, 356:].tolist() == [[64, 0, 0, 0, 0]] * 3
    assert splits.test.images.flatten(1)[0, :4].tolist() == [0, 255, 128, 64]


def test_values_within_0_and_1_are_not_stretched(tmp_path: Path) -> None:
    train = ["0 1:0.2", "1 1:0.4", "2 1:0.6"]
    splits = load("rs130", write_rs130(tmp_path, train, ["0 1:1.5 2:-1 3:1"]))
    assert splits.train.images[:, 0, 0, 0].tolist() == [51, 102, 153]
    assert splits.test.images[0, 0, 0, :4].tolist() == [255, 0, 255, 0]


def test_the_largest_doubles_are_levels_too(tmp_path: Path) -> None:
    images = load("rs130", write_rs130(tmp_path, ["0 1:1.7e308", "1 1:-1.7e308", "2 1:5e-324"])).train.images
    assert images[:, 0, 0, :2].tolist() == [[255, 128], [0, 128], [128, 128]]


def test_one_value_everywhere_is_level_0(tmp_path: Path) -> None:
    line = " ".join(f"{index}:7" for index in range(1, FEATURES + 1))
    splits = load("rs130", write_rs130(tmp_path, [f"{label} {line}" for label in range(3)]))
    assert not splits.train.images.any()


@pytest.mark.parametrize("names", [(1, 2, 3), (-1, 0, 1), (3, 70, 1000)])
def test_any_three_labels_become_0_1_2_in_rising_order(tmp_path: Path, names: tuple[int, int, int]) -> None:
    train = [f"{names[which]} 1:1" for which in (2, 0, 1, 0)]
    splits = load("rs130", write_rs130(tmp_path, train, [f"{names[1]} 1:1"] * 2 + [f"{names[2]}"]))
    assert splits.train.labels.tolist() == [2, 0, 1, 0]
    assert splits.test.labels.tolist() == [1, 1, 2]


def test_a_test_label_that_the_training_file_lacks_is_refused(tmp_path: Path) -> None:
    root = write_rs130(tmp_path, ["1", "2", "4"], ["1 1:1", "3 1:1"])
    with pytest.raises(DataError, match=r"protein\.t: line 2: labels must be 1, 2, 4 as in protein\.bz2, got 3"):
        load("rs130", root)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([0, 1, 2, 0, 5, 5], "got 4: 0, 1, 2, 5, the last new one on line 5"),
        ([0, 1, 1], "got 2: 0, 1, the last new one on line 2"),
        (list(range(99, 0, -1)), "got 99: 1, 2, 3, 4, 5, 6, ..., the last new one on line 99"),
    ],
)
def test_the_training_file_must_have_three_labels(tmp_path: Path, labels: list[int], said: str) -> None:
    root = write_rs130(tmp_path, [f"{label} 1:1" for label in labels])
    with pytest.raises(DataError, match=rf"protein\.bz2: expected 3 different labels, {said}"):
        load("rs130", root)


@pytest.mark.parametrize("folder", ["rs130", "protein"])
@pytest.mark.parametrize("ending", COMPRESS)
def test_both_folders_and_all_forms_are_found(tmp_path: Path, folder: str, ending: str) -> None:
    for name in ("protein", "protein.t"):
        write(tmp_path / folder / f"{name}{ending}", TRAIN)
    assert locate("rs130", tmp_path) == tmp_path / folder
    assert len(load("rs130", tmp_path).test) == 4


@pytest.mark.parametrize("download", [True, False])
def test_where_it_is_missing_it_says_from_where_to_get_it_and_where_to_put_it(
    tmp_path: Path, no_other_data: Path, download: bool
) -> None:
    with pytest.raises(DataError) as caught:
        load("rs130", tmp_path, download)
    message = str(caught.value)
    for part in (
        "RS130",
        "https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/multiclass.html#protein",
        f"put them in {tmp_path / 'rs130'}",
        "rs130/ with protein.bz2, protein.t.bz2",
        "--data-dir",
        "SPOKESHAVE_DATA",
    ):
        assert part in message
    assert "switched off" not in message
    assert not list(tmp_path.iterdir())
    assert not no_other_data.exists()


def test_one_file_without_the_other_is_incomplete(tmp_path: Path) -> None:
    write(tmp_path / "rs130" / "protein.xz", TRAIN)
    with pytest.raises(
        DataError, match=r"incomplete: protein\.t or .*missing; complete the folder, or get .*csie"
    ) as e:
        load("rs130", tmp_path)
    assert "downloaded again" not in str(e.value)


def test_real_rs130_has_its_published_size(real_data_dir: Path) -> None:
    if locate("rs130", real_data_dir) is None:
        pytest.skip("RS130 is not among the data: it has to be got by hand")
    splits = load("rs130", real_data_dir)
    assert (len(splits.train), len(splits.test)) == (17766, 6621)
    assert set(splits.train.labels.tolist()) == {0, 1, 2}
