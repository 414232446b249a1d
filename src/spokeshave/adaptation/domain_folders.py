"""Two folders of your own images: labelled ones of the source, and images of the target, with class folders or without.

A damaged image is left out and named; folders that do not fit together are refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from spokeshave.data import Split
from spokeshave.data.data_folders import existing_folder
from spokeshave.data.image_folder import SUFFIXES, class_files, is_image, read_images
from spokeshave.errors import DataError, InvalidArgument

_WANTED = "a folder of images; correct the path"


@dataclass(frozen=True, eq=False)
class DomainFolders:
    """What two folders hold.

    Attributes:
        source: its images and labels.
        target: its images; labels are those of its class folders, or all 0 where it has none.
        classes: names of the labels.
        target_files: of the target's images, in their order.
        target_labelled: whether the target has class folders.
        skipped: damaged images that were left out, each with what is wrong.
    """

    source: Split
    target: Split
    classes: tuple[str, ...]
    target_files: tuple[Path, ...]
    target_labelled: bool
    skipped: tuple[str, ...]

    @property
    def grey(self) -> tuple[int, int]:
        """How many images of the source, and of the target, have no colour."""
        counts = [int((one.images == one.images[:, :1]).flatten(1).all(1).sum()) for one in (self.source, self.target)]
        return counts[0], counts[1]


def read_domain_folders(source: Path | str, target: Path | str, size: int = 64, channels: int = 3) -> DomainFolders:
    """Read two folders.

    Args:
        source: holds a folder for each class, with images in it at any depth.
        target: likewise, with the same names; or images only, beside each other, whose labels are not known.
        size: height and width that images are scaled to, covering and cropped in the middle.
        channels: 3 for colour, where grey images get three equal planes; 1 for grey, to which colour is turned.

    Raises:
        InvalidArgument: where the size or the channels are out of their range.
        DataError: where a folder is missing, the source has fewer than two classes, the target has a class that the
            source lacks, or fewer than two images.
    """
    if size < 1 or channels not in (1, 3):
        raise InvalidArgument(f"expected a size of at least 1 pixel and 1 or 3 channels, got {size} and {channels}")
    both = {"source": source, "target": target}
    roots = [existing_folder(folder, f"the {name} folder", _WANTED) for name, folder in both.items()]
    trees = [{name: files for name, files in class_files(root).items() if files} for root in roots]
    classes = tuple(trees[0])
    if len(classes) < 2:
        raise DataError(
            f"{roots[0]}: expected two or more subfolders with images ({' '.join(SUFFIXES)}), one a class, got "
            f"{list(classes) or 'none'}; give the folder just above the class folders"
        )
    loose = sorted(file for file in roots[1].iterdir() if is_image(file) and not file.is_dir())
    if loose and trees[1]:
        raise DataError(
            f"{roots[1]}: holds both images and folders of images ({', '.join(trees[1])}); put all into class folders, "
            "or all beside each other"
        )
    unknown = [name for name in trees[1] if name not in classes]
    if unknown:
        raise DataError(
            f"{roots[1]}: has folders that are no classes of the source: {', '.join(unknown)}; the classes are "
            f"{', '.join(classes)}; rename or move them, or put images whose classes are not known beside each other"
        )
    skipped: list[str] = []
    labelled = [[(file, classes.index(name)) for name, files in tree.items() for file in files] for tree in trees]
    found = [_read(files, size, channels, skipped) for files in (labelled[0], labelled[1] or [(f, 0) for f in loose])]
    left = sorted({int(label) for label in found[0][0].labels})
    if len(left) < len(classes):
        gone = next(name for number, name in enumerate(classes) if number not in left)
        raise DataError(f"{roots[0]}: no whole image is left of {gone}; {'; '.join(skipped[:3])}")
    if len(found[1][0]) < 2:
        raise DataError(
            f"{roots[1]}: expected at least two images ({' '.join(SUFFIXES)}), got {len(found[1][0])}"
            + (f"; {'; '.join(skipped[:3])}" if skipped else "")
        )
    return DomainFolders(found[0][0], found[1][0], classes, tuple(found[1][1]), bool(trees[1]), tuple(skipped))


def _read(files: Sequence[tuple[Path, int]], size: int, channels: int, skipped: list[str]) -> tuple[Split, list[Path]]:
    images, labels, names = [], [], []
    for file, label in files:
        try:
            images.append(read_images([(str(file), file)], 1, size, size, channels))
        except DataError as error:
            skipped.append(str(error))
            continue
        labels.append(label)
        names.append(file)
    pixels = np.concatenate(images) if images else np.zeros((0, channels, size, size), np.uint8)
    return Split(torch.from_numpy(pixels), torch.tensor(labels, dtype=torch.int64)), names
