"""idx files: hand-made ones are read back, damaged ones are refused by name, the real MNIST has its known counts."""

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from spokeshave.data import load
from spokeshave.data.idx_files import read_idx, read_pair
from spokeshave.errors import DataError

WriteIdx = Callable[..., Path]


@pytest.mark.parametrize("name", ["some-idx3-ubyte", "some-idx3-ubyte.gz"])
def test_what_is_written_is_read(tmp_path: Path, write_idx: WriteIdx, images: np.ndarray, name: str) -> None:
    assert np.array_equal(read_idx(write_idx(tmp_path / name, images), 3).numpy(), images)


def test_a_folder_in_torchvisions_layout_is_loaded(mnist_like: Path, images: np.ndarray) -> None:
    splits = load("mnist", mnist_like)
    assert np.array_equal(splits.train.images[:, 0].numpy(), images[:8])
    assert splits.test.labels.tolist() == [9, 8, 0, 1]


@pytest.mark.parametrize("keep", [0, 3, 15, 16, 100, -1])
def test_a_truncated_file_is_refused_by_name(
    tmp_path: Path, write_idx: WriteIdx, images: np.ndarray, keep: int
) -> None:
    path = write_idx(tmp_path / "train-images-idx3-ubyte", images)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte.*(announces|expected).*again"):
        read_idx(path, 3)


@pytest.mark.parametrize("keep", [0, 5, 60, -1])
def test_a_truncated_gzip_is_refused_by_name(
    tmp_path: Path, write_idx: WriteIdx, images: np.ndarray, keep: int
) -> None:
    path = write_idx(tmp_path / "images.gz", images)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"images\.gz"):
        read_idx(path, 3)


def test_a_tampered_gzip_is_refused(tmp_path: Path, write_idx: WriteIdx, images: np.ndarray) -> None:
    path = write_idx(tmp_path / "images.gz", images)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match="not a whole gzip file"):
        read_idx(path, 3)


def test_a_plain_file_named_gz_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.gz").write_bytes(b"<html>404</html>")
    with pytest.raises(DataError, match="not a whole gzip file"):
        read_idx(tmp_path / "x.gz", 3)


def test_labels_in_place_of_images_are_refused(tmp_path: Path, write_idx: WriteIdx) -> None:
    path = write_idx(tmp_path / "labels", np.arange(30))
    with pytest.raises(DataError, match=r"expected magic number 0x00000803 .* got 0x00000801"):
        read_idx(path, 3)


def test_trailing_bytes_are_refused(tmp_path: Path, write_idx: WriteIdx, images: np.ndarray) -> None:
    path = write_idx(tmp_path / "images", images)
    path.write_bytes(path.read_bytes() + b"!")
    with pytest.raises(DataError, match="12x4x5 = 240 bytes of data, but 241 follow"):
        read_idx(path, 3)


def test_a_label_out_of_range_is_refused(tmp_path: Path, write_idx: WriteIdx, images: np.ndarray) -> None:
    labels = np.array([0, 1, 2, 3, 4, 10, 6, 7, 8, 9, 0, 1])
    pair = write_idx(tmp_path / "images", images), write_idx(tmp_path / "labels", labels)
    with pytest.raises(DataError, match=r"0\.\.9, got 10 at position 5"):
        read_pair(*pair, classes=10)


def test_images_and_labels_must_be_equally_many(tmp_path: Path, write_idx: WriteIdx, images: np.ndarray) -> None:
    pair = write_idx(tmp_path / "images", images), write_idx(tmp_path / "labels", np.arange(5))
    with pytest.raises(DataError, match=r"12 images and .* 5 labels"):
        read_pair(*pair, classes=10)


def test_no_images_are_refused(tmp_path: Path, write_idx: WriteIdx) -> None:
    pair = write_idx(tmp_path / "images", np.zeros((0, 4, 5))), write_idx(tmp_path / "labels", np.zeros(0))
    with pytest.raises(DataError, match="expected images"):
        read_pair(*pair, classes=10)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing-here\.gz cannot be read: No such file"):
        read_idx(tmp_path / "nothing-here.gz", 1)


def test_real_mnist_has_its_published_counts(real_data_dir: Path) -> None:
    splits = load("mnist", real_data_dir, download=False)
    train, test = splits.train, splits.test
    assert train.images.shape == (60000, 1, 28, 28)
    assert torch.bincount(train.labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert torch.bincount(test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    # 0.1307 is the mean that torchvision quotes.
    assert int(train.images.sum(dtype=torch.int64)) / (60000 * 784 * 255) == pytest.approx(0.1307, abs=1e-4)


def test_the_real_file_truncated_is_refused(real_data_dir: Path, tmp_path: Path) -> None:
    source = real_data_dir / "MNIST" / "raw" / "t10k-images-idx3-ubyte.gz"
    if not source.is_file():
        source = source.with_suffix("")
        content = gzip.compress(source.read_bytes())
    else:
        content = source.read_bytes()
    (tmp_path / "cut.gz").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"cut\.gz .* not a whole gzip file"):
        read_idx(tmp_path / "cut.gz", 3)
