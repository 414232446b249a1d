"""What the package knows about a data set: its name, its files, where they are downloaded, and how they are read.

Each file that reads a format declares its sets as `Source` objects; `spokeshave.data.DATASETS` collects them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from spokeshave.data.splits import Splits


class DatasetName(StrEnum):
    """The data sets that `load` knows by name."""

    DIGITS = "digits"
    MNIST = "mnist"
    FASHION_MNIST = "fashion-mnist"
    CIFAR10 = "cifar10"
    CIFAR100 = "cifar100"
    SVHN = "svhn"
    USPS = "usps"
    RS130 = "rs130"
    MNIST_M = "mnist-m"
    TINY_IMAGENET = "tiny-imagenet"
    AMAZON = "amazon"
    CALTECH10 = "caltech10"
    DSLR = "dslr"
    WEBCAM = "webcam"


@dataclass(frozen=True)
class Remote:
    """A file to download.

    Args:
        name: what it is called on disk.
        urls: the official address first, then mirrors; each is tried in turn.
        md5: of the official file, as torchvision lists it.
        unpacks_to: for a .tar.gz, the folder inside that holds the data; None for a plain file.
    """

    name: str
    urls: tuple[str, ...]
    md5: str
    unpacks_to: str | None = None


@dataclass(frozen=True)
class Source:
    """A data set that can be loaded by name.

    Args:
        name: as the user writes it.
        title: as a reader knows it.
        folders: where it may lie below a data folder, the layout of torchvision first; none for an embedded set.
        files: what must be there; the files of one inner tuple are alternatives (plain or compressed).
        read: turns a folder that holds the files into splits.
        remotes: what to download where the set is missing; none for a set that the user has to get.
        page: where the user gets the files of a set without remotes.
    """

    name: DatasetName
    title: str
    folders: tuple[str, ...]
    files: tuple[tuple[str, ...], ...]
    read: Callable[[Path], Splits]
    remotes: tuple[Remote, ...] = ()
    page: str = ""

    @property
    def layout(self) -> str:
        """The files expected below a data folder, for messages; of alternatives the one that is downloaded."""
        names = dict.fromkeys(choices[-1] for choices in self.files)
        return f"{self.folders[0]}/ with {', '.join(names)}"
