"""Tiny ImageNet from shards and from the official folders, and the real half's counts."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from spokeshave.data import load
from spokeshave.errors import DataError


def picture(level: int) -> Image.Image:
    return Image.fromarray(np.full((64, 64, 3), level, np.uint8))


def encoded(level: int) -> np.ndarray:
    buffer = BytesIO()
    picture(level).save(buffer, "PNG")
    return np.frombuffer(buffer.getvalue(), np.uint8)


def shards(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "classes.txt").write_text("0\tn1\tdesk\n1\tn2\tlamp\n2\tn3\tnot here\n")
    for shard in range(2):
        parts = [encoded(100 * shard + 10 * number) for number in range(3)]
        np.savez(
            folder / f"shard{shard}.npz", jpeg=np.concatenate(parts), offsets=np.cumsum([0, *map(len, parts)]),
            label=np.full(3, shard, np.uint8), split=np.array([0, 1, 0], np.uint8),
        )  # fmt: skip


def test_shards(tmp_path: Path) -> None:
    shards(tmp_path / "tiny-imagenet-200")
    splits = load("tiny-imagenet", tmp_path)
    assert splits.classes == ("desk", "lamp")
    assert splits.train.labels.tolist() == [0, 0, 1, 1] and splits.test.labels.tolist() == [0, 1]
    assert splits.train.images[:, 0, 0, 0].tolist() == [0, 20, 100, 120]
    (tmp_path / "tiny-imagenet-200" / "shard0.npz").write_bytes(b"")
    with pytest.raises(DataError, match=r"shard0\.npz is not a whole"):
        load("tiny-imagenet", tmp_path)


def test_the_official_folders(tmp_path: Path) -> None:
    root = tmp_path / "tiny-imagenet-200"
    for number, name in enumerate(("n2", "n1")):
        (root / "train" / name / "images").mkdir(parents=True)
        picture(50 + number).save(root / "train" / name / "images" / f"{name}_0.JPEG")
    (root / "val" / "images").mkdir(parents=True)
    picture(90).save(root / "val" / "images" / "val_0.JPEG")
    (root / "wnids.txt").write_text("n2\nn1\n")
    (root / "words.txt").write_text("n1\tdesk\nn2\tlamp, light\n")
    (root / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn1\t0\t0\t9\t9\n")
    splits = load("tiny-imagenet", tmp_path)
    assert splits.classes == ("lamp, light", "desk")
    assert splits.train.labels.tolist() == [0, 1] and splits.test.labels.tolist() == [1]
    assert splits.train.images[:, 1, 9, 9].tolist() == [50, 51]
    (root / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn9\n")
    with pytest.raises(DataError, match=r"classes of wnids\.txt, got \['val_0.JPEG', 'n9'\]"):
        load("tiny-imagenet", tmp_path)


def test_the_real_half_has_a_hundred_classes(real_data_dir: Path) -> None:
    splits = load("tiny-imagenet", real_data_dir)
    assert len(splits.classes) == 100
    assert torch.bincount(splits.train.labels).tolist() == [500] * 100
    assert torch.bincount(splits.test.labels).tolist() == [50] * 100
