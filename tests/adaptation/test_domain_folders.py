"""Folders of two domains as users have them: with and without labels, damaged, grey among colour, of other classes."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spokeshave.adaptation.domain_folders import read_domain_folders
from spokeshave.errors import DataError


def write(folder: Path, count: int = 3, mode: str = "RGB", first: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        shape = (20, 24, 3) if mode == "RGB" else (20, 24)
        pixels = np.random.default_rng(number).integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for name in ("cat", "dog"):
        write(tmp_path / "source" / name)
    return tmp_path / "source"


def test_a_target_with_labels(tmp_path: Path, source: Path) -> None:
    write(tmp_path / "target" / "dog", 2)
    found = read_domain_folders(source, tmp_path / "target", 16)
    assert found.classes == ("cat", "dog") and found.target_labelled and not found.skipped
    assert found.source.image_shape == (3, 16, 16) and found.source.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert found.target.labels.tolist() == [1, 1]
    assert [file.name for file in found.target_files] == ["0.png", "1.png"]


def test_a_target_without(tmp_path: Path, source: Path) -> None:
    write(tmp_path / "target", 4)
    found = read_domain_folders(source, tmp_path / "target", 16, 1)
    assert not found.target_labelled and found.target.labels.tolist() == [0] * 4
    assert found.target.image_shape == (1, 16, 16)


def test_damaged_images_are_named_and_left_out(tmp_path: Path, source: Path) -> None:
    write(tmp_path / "target", 3)
    whole = (tmp_path / "target" / "1.png").read_bytes()
    (tmp_path / "target" / "1.png").write_bytes(whole[: len(whole) // 2])
    (source / "cat" / "2.png").write_bytes(b"no image")
    found = read_domain_folders(source, tmp_path / "target", 16)
    assert [file.name for file in found.target_files] == ["0.png", "2.png"]
    assert found.source.labels.tolist() == [0, 0, 1, 1, 1]
    assert len(found.skipped) == 2 and "cat/2.png" in found.skipped[0] and "target/1.png" in found.skipped[1]


def test_grey_images_are_counted(tmp_path: Path, source: Path) -> None:
    write(tmp_path / "target", 2, "L")
    write(tmp_path / "target", 3, first=2)
    assert read_domain_folders(source, tmp_path / "target", 16).grey == (0, 2)


def test_folders_that_do_not_fit_are_refused(tmp_path: Path, source: Path) -> None:
    write(tmp_path / "other" / "horse")
    with pytest.raises(DataError, match="no classes of the source: horse; the classes are cat, dog"):
        read_domain_folders(source, tmp_path / "other")
    write(tmp_path / "one" / "cat")
    with pytest.raises(DataError, match=r"two or more subfolders.*got \['cat'\]; give the folder just above"):
        read_domain_folders(tmp_path / "one", source)
    write(tmp_path / "few", 1)
    with pytest.raises(DataError, match="few: expected at least two images .*, got 1"):
        read_domain_folders(source, tmp_path / "few")
    write(tmp_path / "mixed" / "cat")
    write(tmp_path / "mixed", 1)
    with pytest.raises(DataError, match="holds both images and folders of images"):
        read_domain_folders(source, tmp_path / "mixed")
    with pytest.raises(DataError, match="the target folder is .*nowhere, which does not exist"):
        read_domain_folders(source, tmp_path / "nowhere")


def test_a_class_whose_images_are_all_damaged_is_named(tmp_path: Path, source: Path) -> None:
    write(tmp_path / "target", 2)
    for file in (source / "dog").iterdir():
        file.write_bytes(b"")
    with pytest.raises(DataError, match="no whole image is left of dog; .*0.png"):
        read_domain_folders(source, tmp_path / "target")
