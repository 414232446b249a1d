"""Finds a data set on this machine: in the folder given, in SPOKESHAVE_DATA, or in the user's cache, in that order."""

import os
from pathlib import Path

from spokeshave.data.sources import Source
from spokeshave.errors import DataError

ENVIRONMENT = "SPOKESHAVE_DATA"


def cache_folder() -> Path:
    """Give the folder that downloads go to when the user names none (it need not exist)."""
    import pooch  # brings in requests, which `import spokeshave` should not cost

    return Path(pooch.os_cache("spokeshave"))


def data_folders(data_dir: Path | str | None = None) -> tuple[Path, ...]:
    """List the folders to search, first to last.

    Args:
        data_dir: as given by the user; None where nothing was.

    Raises:
        DataError: where a folder that the user named (as `data_dir` or in SPOKESHAVE_DATA) is not there.
    """
    folders: list[Path] = []
    for value, origin in ((data_dir, "the data folder"), (os.environ.get(ENVIRONMENT), ENVIRONMENT)):
        if not value:
            continue
        folder = Path(value).expanduser()
        if not folder.is_dir():
            what = "is a file" if folder.exists() else "does not exist"
            raise DataError(
                f"{origin} is {folder}, which {what}: expected a folder with data sets in torchvision's layout; "
                f"correct the path, make the folder, or leave --data-dir and {ENVIRONMENT} away to use the cache"
            )
        folders.append(folder)
    return (*folders, cache_folder())


def locate_source(source: Source, data_dir: Path | str | None = None) -> Path | None:
    """Find the folder that holds a set's files.

    Args:
        source: the set.
        data_dir: searched first.

    Returns:
        The folder, or None where no place has any of the files.

    Raises:
        DataError: where a folder that the user named is not there, or a set is there in part.
    """
    for root in data_folders(data_dir):
        for place in source.folders:
            folder = root / place
            missing = [choices for choices in source.files if not any((folder / name).is_file() for name in choices)]
            own_folder = place != "." and folder.is_dir() and any(folder.iterdir())
            if not missing:
                return folder
            if own_folder or len(missing) < len(source.files):
                raise DataError(
                    f"{source.title} in {folder} is incomplete: {', '.join(' or '.join(m) for m in missing)} missing; "
                    f"complete the folder, or remove it to have the set downloaded again"
                )
    return None
