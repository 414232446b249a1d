"""SVHN's MATLAB files, written by SciPy and damaged by hand."""

from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from spokeshave.data import load
from spokeshave.data.svhn import read_mat
from spokeshave.errors import DataError

PIXELS = np.random.default_rng(3).integers(0, 256, (6, 3, 32, 32), dtype=np.uint8)


def write(path: Path, pixels: np.ndarray, labels: list[int]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"X": pixels.transpose(2, 3, 1, 0), "y": np.array(labels, dtype=np.uint8)[:, None]})
    return path


@pytest.mark.parametrize("folder", ["svhn", "."])
def test_images_and_labels_are_read_and_ten_is_zero(tmp_path: Path, folder: str) -> None:
    write(tmp_path / folder / "train_32x32.mat", PIXELS[:4], [1, 10, 3, 9])
    write(tmp_path / folder / "test_32x32.mat", PIXELS[4:], [10, 2])
    splits = load("svhn", tmp_path)
    assert np.array_equal(splits.train.images.numpy(), PIXELS[:4])
    assert splits.train.labels.tolist() == [1, 0, 3, 9]
    assert splits.test.labels.tolist() == [0, 2]


@pytest.mark.parametrize("wrong", [0, 11])
def test_a_label_out_of_range_is_refused(tmp_path: Path, wrong: int) -> None:
    path = write(tmp_path / "train_32x32.mat", PIXELS[:2], [1, wrong])
    with pytest.raises(DataError, match=rf"1\.\.10 .* got {wrong} at 1"):
        read_mat(path)


def test_labels_must_be_as_many_as_images(tmp_path: Path) -> None:
    path = write(tmp_path / "train_32x32.mat", PIXELS[:3], [1, 2])
    with pytest.raises(DataError, match="expected y as 3 integers"):
        read_mat(path)


def test_another_array_is_refused(tmp_path: Path) -> None:
    savemat(tmp_path / "train_32x32.mat", {"X": np.zeros((28, 28, 5)), "y": np.ones(5, np.uint8)})
    with pytest.raises(DataError, match=r"uint8 of shape \(32, 32, 3, n\), got float64"):
        read_mat(tmp_path / "train_32x32.mat")


@pytest.mark.parametrize("keep", [0, 60, 130, 2000])
def test_a_truncated_file_is_refused_by_name(tmp_path: Path, keep: int) -> None:
    path = write(tmp_path / "train_32x32.mat", PIXELS, [1, 2, 3, 4, 5, 6])
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"train_32x32\.mat"):
        read_mat(path)


def test_one_file_without_the_other_is_incomplete(tmp_path: Path) -> None:
    write(tmp_path / "train_32x32.mat", PIXELS, [1, 2, 3, 4, 5, 6])
    with pytest.raises(DataError, match=r"SVHN in .* incomplete: test_32x32\.mat missing"):
        load("svhn", tmp_path)
