"""MNIST-M from its file and from the authors' folders."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from spokeshave.data import load
from spokeshave.errors import DataError

IMAGES, LABELS = np.random.default_rng(0).integers(0, 256, (4, 28, 28, 3), dtype=np.uint8), np.array([3, 1, 4, 1])


def save(folder: Path, **changed: np.ndarray) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES[:2], "y_test": LABELS[:2]} | changed
    np.savez(folder / "mnist_m.npz", **arrays)
    return folder.parent


def test_both_forms_give_the_same_set(tmp_path: Path) -> None:
    packed = load("mnist-m", save(tmp_path / "a" / "mnist-m"))
    root = tmp_path / "b" / "mnist_m"
    for part, count in (("train", 4), ("test", 2)):
        (root / f"mnist_m_{part}").mkdir(parents=True)
        for number in range(count):
            Image.fromarray(IMAGES[number]).save(root / f"mnist_m_{part}" / f"{number:08}.png")
        lines = [f"{number:08}.png {LABELS[number]}" for number in range(count)]
        (root / f"mnist_m_{part}_labels.txt").write_text("\n".join(lines) + "\n")
    folders = load("mnist-m", tmp_path / "b")
    assert torch.equal(packed.train.images, folders.train.images)
    assert packed.train.images[2, :, 5, 7].tolist() == IMAGES[2, 5, 7].tolist()
    assert packed.train.labels.tolist() == folders.train.labels.tolist() == LABELS.tolist()
    assert len(folders.test) == 2
    (root / "mnist_m_test_labels.txt").write_text("00000000.png ten\n")
    with pytest.raises(DataError, match=r"expected lines 'name label' with labels 0\.\.9, got 00000000.png ten"):
        load("mnist-m", tmp_path / "b")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"x_train": IMAGES[:, :, :, 0]}, r"expected bytes of shape \(n, 28, 28, 3\)"),
        ({"y_train": LABELS[:2]}, "n labels"),
        ({"y_test": np.array([3, 12])}, r"labels 0\.\.9"),
        ({"y_test": np.array([0.5, 1.5])}, r"labels 0\.\.9"),
    ],
)
def test_wrong_arrays_are_refused(tmp_path: Path, changed: dict[str, np.ndarray], said: str) -> None:
    with pytest.raises(DataError, match=said):
        load("mnist-m", save(tmp_path / "mnist-m", **changed))


def test_real_mnist_m_has_mnists_labels(real_data_dir: Path) -> None:
    splits, grey = load("mnist-m", real_data_dir), load("mnist", real_data_dir)
    assert len(splits.train) == 60_000 and len(splits.test) == 10_000
    assert torch.equal(splits.test.labels, grey.test.labels)
