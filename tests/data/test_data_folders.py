"""The search for data: its order, and paths that the user got wrong."""

import shutil
from pathlib import Path

import pytest

from spokeshave.data import load, locate
from spokeshave.data.data_folders import data_folders
from spokeshave.errors import DataError


def test_the_folder_given_comes_before_the_environment_and_the_cache(
    mnist_like: Path, no_other_data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for place in ("environment", "cache"):
        shutil.copytree(mnist_like / "MNIST", tmp_path / place / "MNIST")
    assert locate("mnist") == no_other_data / "MNIST" / "raw"
    monkeypatch.setenv("SPOKESHAVE_DATA", str(tmp_path / "environment"))
    assert locate("mnist") == tmp_path / "environment" / "MNIST" / "raw"
    assert locate("mnist", mnist_like) == mnist_like / "MNIST" / "raw"


def test_a_folder_without_the_set_is_passed_over(mnist_like: Path, no_other_data: Path, tmp_path: Path) -> None:
    shutil.move(mnist_like / "MNIST", no_other_data / "MNIST")
    (tmp_path / "empty").mkdir()
    assert locate("mnist", tmp_path / "empty") == no_other_data / "MNIST" / "raw"


@pytest.mark.usefixtures("no_other_data")
def test_nothing_found_is_none(tmp_path: Path) -> None:
    assert locate("mnist", tmp_path) is None
    assert locate("digits") is None


@pytest.mark.parametrize("name", ["mnist", "digits"])
def test_a_wrong_folder_is_said_and_nothing_is_downloaded(tmp_path: Path, no_other_data: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"the data folder is .*nowhere, which does not exist.*correct the path"):
        load(name, tmp_path / "nowhere")
    assert not no_other_data.exists()
    assert not (tmp_path / "nowhere").exists()


def test_a_wrong_environment_is_said(tmp_path: Path, no_other_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPOKESHAVE_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"SPOKESHAVE_DATA is .*nowhere, which does not exist"):
        load("mnist")
    assert not no_other_data.exists()


def test_a_file_in_place_of_a_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="which is a file"):
        list(data_folders(tmp_path / "file"))


def test_a_set_that_is_there_in_part_is_not_downloaded_over(mnist_like: Path) -> None:
    (mnist_like / "MNIST" / "raw" / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"incomplete: t10k-labels-idx1-ubyte or t10k-labels-idx1-ubyte\.gz missing"):
        load("mnist", mnist_like)


def test_a_folder_of_other_files_is_incomplete(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "readme.html").write_text("")
    with pytest.raises(DataError, match="data_batch_1, data_batch_2"):
        load("cifar10", tmp_path)


def test_the_home_folder_is_expanded(mnist_like: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(mnist_like.parent))
    assert locate("mnist", f"~/{mnist_like.name}") == mnist_like / "MNIST" / "raw"
