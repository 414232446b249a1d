"""Office-Caltech10 from folders, and the real one's counts."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from spokeshave.data import load
from spokeshave.data.office_caltech import CLASSES, read_office_caltech
from spokeshave.errors import DataError


def write(root: Path, classes: tuple[str, ...]) -> None:
    for number, name in enumerate(classes):
        folder = root / "office-caltech10" / "images" / "dslr" / name
        folder.mkdir(parents=True)
        Image.fromarray(np.full((30, 40, 3), 20 * number, np.uint8)).save(folder / "frame_0001.jpg", quality=95)


def test_a_domain_from_folders(tmp_path: Path) -> None:
    write(tmp_path, CLASSES)
    splits = load("dslr", tmp_path)
    assert splits.classes == CLASSES and splits.train.image_shape == (3, 64, 64)
    assert splits.train.labels.tolist() == list(range(10)) and splits.test is splits.train
    levels = splits.train.images[:, 0, 32, 32].tolist()
    assert all(abs(level - 20 * number) <= 2 for number, level in enumerate(levels))


def test_other_classes_are_refused(tmp_path: Path) -> None:
    write(tmp_path, (*CLASSES[:9], "screen"))
    with pytest.raises(DataError, match="classes that the training images lack: screen"):
        load("dslr", tmp_path)
    np.savez(
        tmp_path / "office_caltech10_256.npz", jpeg=np.zeros(1, np.uint8), offsets=np.array([0, 1]),
        domain=np.array([0]), label=np.array([0]), domain_names=np.array(["dslr"]), class_names=np.array(["cup"]),
    )  # fmt: skip
    with pytest.raises(DataError, match="expected classes backpack, .* got cup"):
        read_office_caltech(tmp_path, "dslr")


def test_real_domains_have_their_counts(real_data_dir: Path) -> None:
    counts = {"amazon": 958, "caltech10": 1123, "dslr": 157, "webcam": 295}
    for name, count in counts.items():
        splits = load(name, real_data_dir)
        assert len(splits.train) == count and len(torch.unique(splits.train.labels)) == 10
