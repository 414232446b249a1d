"""Finds a data set on this machine: in the folder given, in SPOKESHAVE_DATA, or in the user's cache, in that order."""

import os
from collections.abc import Iterator
from pathlib import Path

from spokeshave.data.sources import Source
from spokeshave.errors import DataError
from spokeshave.files import file_error
from spokeshave.user_cache import cache_folder

ENVIRONMENT = "SPOKESHAVE_DATA"
_WANTED = (
    "a folder with data sets in torchvision's layout; "
    f"correct the path, make the folder, or leave --data-dir and {ENVIRONMENT} away to use the cache"
)


def existing_folder(value: Path | str, origin: str, wanted: str = _WANTED) -> Path:
    """Give a folder that the user named, or say that it is not there: a wrong path is never passed over.

    Args:
        value: the path; ~ is expanded.
        origin: what named it, for the message.
        wanted: what should be there, and what to do, for the message.

    Raises:
        DataError: where it is not a folder.
    """
    folder = Path(value).expanduser()
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise DataError(f"{origin} is {folder}, which {what}: expected {wanted}")
    return folder


def data_folders(data_dir: Path | str | None = None) -> Iterator[Path]:
    """Go through the folders to search, first to last: the one given, SPOKESHAVE_DATA, the user's cache.

    Args:
        data_dir: as given by the user; None where nothing was.

    Raises:
        DataError: on reaching a folder that the user named and that is not there.
    """
    if data_dir is not None:
        yield existing_folder(data_dir, "the data folder")
    if from_environment := os.environ.get(ENVIRONMENT):
        yield existing_folder(from_environment, ENVIRONMENT)
    yield cache_folder()


def locate_source(source: Source, data_dir: Path | str | None = None) -> Path | None:
    """Find the folder that holds a set's files.

    Args:
        source: the set.
        data_dir: searched first.

    Returns:
        The folder, or None where no place has any of the files.

    Raises:
        DataError: where a folder that the user named is not there, or a set is there in part.
        FileError: where a folder may not be looked into.
    """
    for root in data_folders(data_dir):
        for place in source.folders:
            try:
                if holds(root / place, source, shared=place == "."):
                    return root / place
            except OSError as error:
                raise file_error(root / place, "looking into", error) from error
    return None


def holds(folder: Path, source: Source, shared: bool) -> bool:
    """Say whether a folder has all files of a set.

    Args:
        folder: need not exist.
        source: the set.
        shared: whether other sets' files may lie in this folder too, so that they do not count as remains of this one.

    Raises:
        DataError: where some files are there and others are missing.
    """
    missing = [choices for choices in source.files if not any((folder / name).is_file() for name in choices)]
    if not missing:
        return True
    begun = len(missing) < len(source.files) or (not shared and folder.is_dir() and any(folder.iterdir()))
    if begun:
        again = "remove it to have the set downloaded again" if source.remotes else f"get its files from {source.page}"
        raise DataError(
            f"{source.title} in {folder} is incomplete: {', '.join(' or '.join(choices) for choices in missing)} "
            f"missing; complete the folder, or {again}"
        )
    return False
