"""USPS from LIBSVM text and from idx files."""

import bz2
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from spokeshave.data import load
from spokeshave.data.usps import read_libsvm
from spokeshave.errors import DataError


def write(path: Path, lines: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bz2.compress("\n".join(lines).encode()))
    return path


def test_values_land_on_their_pixel_and_level(tmp_path: Path) -> None:
    path = write(tmp_path / "usps.bz2", ["10 1:-1 2:1 17:0.5", "1 256:0"])
    split = read_libsvm(path)
    assert split.labels.tolist() == [9, 0]
    first = np.zeros((16, 16))
    first[0, 1], first[1, 0] = 255, 191  # (0.5 + 1) * 127.5 = 191.25
    assert np.array_equal(split.images[0, 0].numpy(), first)
    assert int(split.images[1, 0, 15, 15]) == 128


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("1 300:0.5", "line 2 .*pixel 300"),
        ("1 3", "line 2"),
        ("one 3:0.5", "line 2"),
        ("11 3:0.5", r"labels 1\.\.10"),
        ("1 3:1.5", r"values -1\.\.1"),
        ("1 3:nan", r"values -1\.\.1"),
    ],
)
def test_a_wrong_line_is_refused(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(DataError, match=rf"usps\.bz2: .*{said}"):
        read_libsvm(write(tmp_path / "usps.bz2", ["2 1:0", line]))


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "usps.bz2", ["1 1:0"] * 100)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(DataError, match=r"usps\.bz2 is not a whole bzip2 text file"):
        read_libsvm(path)


def test_both_layouts_give_the_same_set(tmp_path: Path, write_idx: Callable[..., Path]) -> None:
    write(tmp_path / "a" / "usps.bz2", ["3 1:1", "4 2:1"])
    write(tmp_path / "a" / "usps.t.bz2", ["5 1:1"])
    image = np.zeros((3, 256), np.uint8)
    image[:, :] = 0
    image[0, 0] = image[1, 1] = image[2, 0] = 255
    for part, chosen, labels in (("train", slice(0, 2), [2, 3]), ("test", slice(2, 3), [4])):
        write_idx(tmp_path / "b" / "usps" / f"usps-{part}-images-idx3-ubyte.gz", image[chosen].reshape(-1, 16, 16))
        write_idx(tmp_path / "b" / "usps" / f"usps-{part}-labels-idx1-ubyte.gz", np.array(labels))
    text, idx = load("usps", tmp_path / "a"), load("usps", tmp_path / "b")
    assert torch.equal(text.train.images, idx.train.images)
    assert text.test.labels.tolist() == idx.test.labels.tolist() == [4]


def test_real_usps_has_its_standard_split(real_data_dir: Path) -> None:
    splits = load("usps", real_data_dir, download=False)
    assert torch.bincount(splits.train.labels).tolist() == [1194, 1005, 731, 658, 652, 556, 664, 645, 542, 644]
    assert torch.bincount(splits.test.labels).tolist() == [359, 264, 198, 166, 200, 160, 170, 147, 166, 177]
