"""CIFAR batches: layout of planes and labels, damaged ones refused, the real CIFAR-10 has its known counts."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from spokeshave.data import load
from spokeshave.data.cifar import read_batch
from spokeshave.errors import DataError

PIXELS = np.random.default_rng(3).integers(0, 256, (30, 32, 32, 3), dtype=np.uint8)


def rows(pixels: np.ndarray) -> np.ndarray:
    """Lay images (n, h, w, rgb) out as the format says: a red plane, a green, a blue, each row by row."""
    return np.stack([np.concatenate([image[:, :, c].ravel() for c in range(3)]) for image in pixels])


def dump(path: Path, **content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps({key.encode(): value for key, value in content.items()}, protocol=2))
    return path


@pytest.fixture
def cifar10(tmp_path: Path) -> Path:
    folder = tmp_path / "cifar-10-batches-py"
    for number in range(5):
        part = PIXELS[5 * number : 5 * number + 5]
        dump(folder / f"data_batch_{number + 1}", data=rows(part), labels=[number] * 5)
    dump(folder / "test_batch", data=rows(PIXELS[25:]), labels=[5, 6, 7, 8, 9])
    dump(folder / "batches.meta", label_names=[f"class {i}".encode() for i in range(10)])
    return tmp_path


def test_planes_rows_and_labels_land_where_they_belong(cifar10: Path) -> None:
    splits = load("cifar10", cifar10)
    assert np.array_equal(splits.train.images.permute(0, 2, 3, 1).numpy(), PIXELS[:25])
    assert splits.train.labels.tolist() == [i for i in range(5) for _ in range(5)]
    assert splits.test.labels.tolist() == [5, 6, 7, 8, 9]
    assert splits.classes[3] == "class 3"


def test_cifar100_takes_the_fine_labels(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-100-python"
    dump(folder / "train", data=rows(PIXELS[:2]), fine_labels=[99, 0], coarse_labels=[1, 2])
    dump(folder / "test", data=rows(PIXELS[2:3]), fine_labels=[42], coarse_labels=[3])
    dump(folder / "meta", fine_label_names=[f"c{i}" for i in range(100)], coarse_label_names=["x"] * 20)
    splits = load("cifar100", tmp_path)
    assert splits.train.labels.tolist() == [99, 0]
    assert splits.classes[42] == "c42"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"labels": [1]}, r"'data' as uint8 of shape \(n, 3072\), got NoneType"),
        ({"data": np.zeros((1, 3000), np.uint8), "labels": [1]}, r"got shape \(1, 3000\)"),
        ({"data": np.zeros((1, 3072), np.uint8)}, "list of integers under 'labels', got NoneType"),
        ({"data": np.zeros((1, 3072), np.uint8), "labels": [1.5]}, "list of integers"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [1]}, "2 images and 1 labels"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [1, 10]}, r"0\.\.9, got 10 at position 1"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [-1, 1]}, r"0\.\.9, got -1 at position 0"),
    ],
)
def test_a_malformed_batch_is_refused_by_name(tmp_path: Path, content: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=rf"data_batch_2: .*{said}"):
        read_batch(dump(tmp_path / "data_batch_2", **content), "labels", 10)


def test_missing_class_names_are_refused(cifar10: Path) -> None:
    dump(cifar10 / "cifar-10-batches-py" / "batches.meta", label_names=[b"only one"])
    with pytest.raises(DataError, match=r"batches\.meta: expected 10 class names .* got 1 of them"):
        load("cifar10", cifar10)


def test_a_truncated_batch_is_refused(cifar10: Path) -> None:
    path = cifar10 / "cifar-10-batches-py" / "data_batch_3"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"data_batch_3 .* not a whole pickle"):
        load("cifar10", cifar10)


def test_a_missing_batch_is_named(cifar10: Path) -> None:
    (cifar10 / "cifar-10-batches-py" / "data_batch_4").unlink()
    with pytest.raises(DataError, match=r"CIFAR-10 in .* is incomplete: data_batch_4 missing"):
        load("cifar10", cifar10)


def test_real_cifar10_has_its_published_counts(real_data_dir: Path) -> None:
    splits = load("cifar10", real_data_dir, download=False)
    assert splits.train.images.shape == (50000, 3, 32, 32)
    assert torch.bincount(splits.train.labels).tolist() == [5000] * 10
    assert torch.bincount(splits.test.labels).tolist() == [1000] * 10
    assert torch.bincount(splits.train.labels[:10000]).tolist() == [
        1005,
        974,
        1032,
        1016,
        999,
        937,
        1030,
        1001,
        1025,
        981,
    ]
    assert splits.classes[0] == "airplane"
    mean = splits.train.images.sum((0, 2, 3), dtype=torch.int64) / (50000 * 1024 * 255)
    assert torch.allclose(mean, torch.tensor([0.4914, 0.4822, 0.4465]), atol=1e-3)
