"""Labelled images as tensors: loading, splitting, normalising, augmenting and batching.

`load("mnist")` finds a set on this machine or downloads it; `Batches` turns a split into reproducible batches.
"""

from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from spokeshave.data.augmentation import Augmentation
from spokeshave.data.batches import Batches
from spokeshave.data.data_folders import existing_folder, locate_source
from spokeshave.data.image_folder import load_image_folder
from spokeshave.data.normalization import ImageStandardization, Normalization, normalization_of
from spokeshave.data.sources import DatasetName, Source
from spokeshave.data.splits import Split, Splits
from spokeshave.errors import InvalidArgument

__all__ = [
    "DATASETS",
    "Augmentation",
    "Batches",
    "DatasetName",
    "ImageStandardization",
    "Normalization",
    "Split",
    "Splits",
    "load",
    "load_image_folder",
    "locate",
    "normalization_of",
]


def _collect() -> dict[DatasetName, Source]:
    """Gather the `Source` objects that the files of this folder declare, in the order of `DatasetName`."""
    found: dict[DatasetName, Source] = {}
    for file in iter_modules(__path__):
        for value in vars(import_module(f"{__name__}.{file.name}")).values():
            if isinstance(value, Source):
                found[value.name] = value
    return {name: found[name] for name in DatasetName}


DATASETS: dict[DatasetName, Source] = _collect()


def _source(name: DatasetName | str) -> Source:
    try:
        return DATASETS[DatasetName(name)]
    except ValueError:
        raise InvalidArgument(
            f"no data set is called {name!r}; the names are {', '.join(DATASETS)}; use load_image_folder for your own"
        ) from None


def locate(name: DatasetName | str, data_dir: Path | str | None = None) -> Path | None:
    """Find a data set on this machine, without downloading.

    Args:
        name: of the set, as in "mnist".
        data_dir: searched first, then SPOKESHAVE_DATA, then the user's cache.

    Returns:
        The folder with its files; None where it was not found, and for an embedded set.

    Raises:
        DataError: where a folder that the user named is not there, or the set is there in part.
    """
    return locate_source(_source(name), data_dir)


def load(name: DatasetName | str, data_dir: Path | str | None = None, download: bool = True) -> Splits:
    """Load a data set by name.

    Args:
        name: one of `DatasetName`.
        data_dir: a folder in torchvision's layout, searched first, then SPOKESHAVE_DATA, then the user's cache.
        download: fetch a set that is nowhere; into `data_dir`, SPOKESHAVE_DATA or the cache, whichever comes first.

    Returns:
        Training and test split as uint8 tensors, and the class names.

    Raises:
        DataError: where the set is missing and cannot be downloaded, or a file is damaged.

    Example:
        >>> load("digits").train.images.shape
        torch.Size([1438, 1, 28, 28])
    """
    source = _source(name)
    if not source.folders:
        if data_dir is not None:
            existing_folder(data_dir, "the data folder")
        return source.read(Path())
    folder = locate_source(source, data_dir)
    if folder is None:
        from spokeshave.data.fetch import fetch

        folder = fetch(source, data_dir, download)
    return source.read(folder)
