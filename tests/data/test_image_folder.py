"""Image folders: both layouts, sizes, grey and RGB, and files that are not what they seem."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from spokeshave.data import load_image_folder
from spokeshave.errors import DataError, InvalidArgument


def paint(path: Path, level: int | tuple[int, int, int], size: tuple[int, int] = (8, 8), mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, level).save(path)
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two classes, ten images each, told apart by their red level."""
    for number in range(10):
        paint(tmp_path / "shapes" / "cat" / f"{number}.png", (number, 0, 0))
        paint(tmp_path / "shapes" / "dog" / "deeper" / f"{number}.png", (100 + number, 0, 0))
    return tmp_path / "shapes"


def test_a_single_tree_is_cut_by_class(tree: Path) -> None:
    splits = load_image_folder(tree, size=8)
    assert splits.classes == ("cat", "dog")
    assert splits.name == "shapes"
    assert torch.bincount(splits.train.labels).tolist() == [8, 8]
    assert torch.bincount(splits.test.labels).tolist() == [2, 2]
    reds = torch.cat([splits.train.images, splits.test.images])[:, 0, 0, 0]
    labels = torch.cat([splits.train.labels, splits.test.labels])
    assert sorted(reds.tolist()) == [*range(10), *range(100, 110)]
    assert torch.equal(reds >= 100, labels == 1)


def test_the_cut_depends_on_the_seed_only(tree: Path) -> None:
    one, same, other = (load_image_folder(tree, size=8, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.test.images, same.test.images)
    assert not torch.equal(one.test.images, other.test.images)


@pytest.mark.parametrize("test_name", ["test", "val"])
def test_train_and_test_folders_are_kept_apart(tmp_path: Path, test_name: str) -> None:
    for part, level in (("train", 1), (test_name, 200)):
        for name in ("a", "b", "c"):
            paint(tmp_path / part / name / "x.png", (level, 0, 0))
    splits = load_image_folder(tmp_path, size=4)
    assert set(splits.train.images[:, 0].flatten().tolist()) == {1}
    assert set(splits.test.images[:, 0].flatten().tolist()) == {200}
    assert splits.test.labels.tolist() == [0, 1, 2]


def test_a_wide_image_is_cropped_in_the_middle_not_squeezed(tmp_path: Path) -> None:
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, 8:16] = 255
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(5):
            Image.fromarray(wide).save(tmp_path / name / f"{number}.png")
    splits = load_image_folder(tmp_path, size=(8, 8))
    assert (splits.train.images == 255).all()


def test_height_comes_before_width(tree: Path) -> None:
    assert load_image_folder(tree, size=(6, 10)).train.image_shape == (3, 6, 10)


def test_grey_images_get_equal_planes_and_grey_can_be_asked_for(tmp_path: Path) -> None:
    for name, level in (("a", 10), ("b", 20)):
        for number in range(5):
            paint(tmp_path / name / f"{number}.png", level, mode="L")
    rgb = load_image_folder(tmp_path, size=8)
    assert torch.equal(rgb.train.images[:, 0], rgb.train.images[:, 2])
    grey = load_image_folder(tmp_path, size=8, channels=1)
    assert grey.train.image_shape == (1, 8, 8)
    assert sorted(set(grey.train.images.flatten().tolist())) == [10, 20]


def test_a_corrupt_image_is_named(tree: Path) -> None:
    (tree / "cat" / "3.png").write_bytes(b"this is no image")
    with pytest.raises(DataError, match=r"cat.3\.png \(16 bytes\) cannot be read as an image"):
        load_image_folder(tree)


def test_a_truncated_image_is_named(tree: Path) -> None:
    path = paint(tree / "dog" / "big.jpg", (9, 9, 9), size=(200, 200))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"big\.jpg .* cannot be read"):
        load_image_folder(tree)


def test_sixteen_bit_images_are_refused(tree: Path) -> None:
    Image.fromarray(np.full((8, 8), 40000, np.uint16)).save(tree / "cat" / "deep.png")
    with pytest.raises(DataError, match=r"deep\.png: expected 8 bits"):
        load_image_folder(tree)


def test_other_files_and_hidden_ones_are_passed_over(tree: Path) -> None:
    (tree / "cat" / "notes.txt").write_text("x")
    (tree / "cat" / "._0.png").write_text("x")
    (tree / ".git").mkdir()
    assert len(load_image_folder(tree).train) == 16


@pytest.mark.parametrize("kept", [[], ["cat"]])
def test_fewer_than_two_classes_are_refused(tmp_path: Path, kept: list[str]) -> None:
    for name in kept:
        paint(tmp_path / name / "x.png", (0, 0, 0))
    with pytest.raises(DataError, match=r"two or more subfolders .* just above the class folders"):
        load_image_folder(tmp_path)


def test_a_test_class_that_training_lacks_is_refused(tmp_path: Path) -> None:
    for where in ("train/a", "train/b", "test/a", "test/zebra"):
        paint(tmp_path / where / "x.png", (0, 0, 0))
    with pytest.raises(DataError, match="training images lack: zebra"):
        load_image_folder(tmp_path)


def test_a_wrong_path_and_wrong_arguments_are_refused(tree: Path) -> None:
    with pytest.raises(DataError, match=r"the image folder is .* does not exist"):
        load_image_folder(tree / "nowhere")
    with pytest.raises(InvalidArgument, match="got 0"):
        load_image_folder(tree, size=0)
    with pytest.raises(InvalidArgument, match="got 4"):
        load_image_folder(tree, channels=4)
