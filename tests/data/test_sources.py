"""The table of data sets: complete, and consistent with what is downloaded."""

from pathlib import Path

import pytest

from spokeshave.data import DATASETS, load
from spokeshave.data.sources import DatasetName, Source
from spokeshave.errors import InvalidArgument


def test_every_name_has_a_source_and_says_its_own_name() -> None:
    assert list(DATASETS) == list(DatasetName)
    assert all(source.name == name for name, source in DATASETS.items())


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidArgument, match=r"'mnits'; the names are digits, mnist, fashion-mnist, cifar10"):
        load("mnits")


@pytest.mark.parametrize("source", [s for s in DATASETS.values() if s.folders], ids=lambda s: s.name)
def test_a_set_is_downloaded_or_says_where_the_user_gets_it(source: Source) -> None:
    assert bool(source.remotes) != source.page.startswith("https://")


@pytest.mark.parametrize("source", [s for s in DATASETS.values() if s.remotes], ids=lambda s: s.name)
def test_what_is_downloaded_is_what_is_looked_for(source: Source) -> None:
    for remote in source.remotes:
        assert all(url.endswith(f"/{remote.name}") and url.startswith("http") for url in remote.urls)
        assert len(remote.md5) == 32
        assert int(remote.md5, 16) >= 0
    plain = {remote.name for remote in source.remotes if not remote.unpacks_to}
    packed = {remote.unpacks_to for remote in source.remotes if remote.unpacks_to}
    assert packed <= {source.folders[0]}
    assert packed or all(plain & set(choices) for choices in source.files)


def test_the_layout_names_folder_and_files() -> None:
    layout = DATASETS[DatasetName.SVHN].layout
    assert layout == "svhn/ with train_32x32.mat, test_32x32.mat"
    assert not Path(layout).is_absolute()
