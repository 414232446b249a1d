"""Your own images: a folder with one subfolder a class, as `torchvision.datasets.ImageFolder` reads it.

Each image is scaled to cover the wanted size and cropped in the middle, so that nothing is distorted; the whole set
is then held in memory as uint8, n x c x h x w bytes.
"""

from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8

from spokeshave.data.data_folders import existing_folder
from spokeshave.data.splits import Split, Splits
from spokeshave.errors import DataError, InvalidArgument

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
TEST_FOLDERS = ("test", "val", "valid", "validation")


def load_image_folder(
    path: Path | str, size: int | tuple[int, int] = 32, channels: int = 3, test_share: float = 0.2, seed: int = 0
) -> Splits:
    """Load a folder of images, one subfolder a class.

    Args:
        path: either holds train/CLASS/... and one of test/ val/ valid/ validation/ (the first that is there), or
            holds CLASS/... alone, of which a stratified share becomes the test split. Files that are not images by
            their suffix are passed over; images may lie deeper than the class folder.
        size: height and width in pixels that every image gets; one number for a square.
        channels: 3 for RGB (grey images get three equal planes), 1 for grey.
        test_share: in (0, 1); used where there is no test folder.
        seed: chooses that share; the same seed gives the same split.

    Returns:
        The splits; classes are the names of the subfolders in alphabetical order.

    Raises:
        DataError: where the folder is not of this form, or an image is damaged; names the file.
        InvalidArgument: where an argument is out of its range.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 1:
        raise InvalidArgument(f"size must be 1 or more pixels, got {size}")
    if channels not in (1, 3):
        raise InvalidArgument(f"channels must be 3 (RGB) or 1 (grey), got {channels}")
    root = existing_folder(path, "the image folder")
    cut = (root / "train").is_dir()
    train_root = root / "train" if cut else root
    classes = tuple(name for name, files in class_files(train_root).items() if files)
    if len(classes) < 2:
        raise DataError(
            f"{train_root}: expected two or more subfolders with images ({' '.join(SUFFIXES)}), one a class, "
            f"got {list(classes) or 'none'}; give the folder just above the class folders"
        )
    train = read_tree(train_root, classes, height, width, channels)
    test_root = next((root / name for name in TEST_FOLDERS if (root / name).is_dir()), None) if cut else None
    if test_root is None:
        train, test = train.hold_out(test_share, seed)
    else:
        test = read_tree(test_root, classes, height, width, channels)
    return Splits(root.resolve().name, train, test, classes)


def class_files(root: Path) -> dict[str, list[Path]]:
    """Give the image files of each subfolder, all in alphabetical order."""
    folders = sorted(folder for folder in root.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    return {
        folder.name: sorted(file for file in folder.rglob("*") if is_image(file) and not file.is_dir())
        for folder in folders
    }


def is_image(file: Path) -> bool:
    """Whether its name is that of an image; those that begin with a dot are of the file system."""
    return file.suffix.lower() in SUFFIXES and not file.name.startswith(".")


def read_tree(root: Path, classes: tuple[str, ...], height: int, width: int, channels: int) -> Split:
    """Read a folder with a subfolder for each class.

    Raises:
        DataError: where a class is unknown, nothing is there, or an image is damaged.
    """
    tree = class_files(root)
    unknown = [name for name, files in tree.items() if files and name not in classes]
    if unknown:
        raise DataError(f"{root}: has classes that the training images lack: {', '.join(unknown)}; rename or move them")
    files = [(file, classes.index(name)) for name, found in tree.items() for file in found]
    if not files:
        raise DataError(f"{root}: expected subfolders with images ({' '.join(SUFFIXES)}), one a class, got none")
    images = read_images(((str(file), file) for file, _ in files), len(files), height, width, channels)
    return Split(torch.from_numpy(images), torch.tensor([label for _, label in files], dtype=torch.int64))


def read_images(
    files: Iterable[tuple[str, Path | BytesIO]], count: int, height: int, width: int, channels: int
) -> UInt8[np.ndarray, "n c h w"]:
    """Decode images, scale each to cover the wanted size and crop it in the middle.

    Args:
        files: how each is called in messages, and where its bytes are.
        count: how many there are.
        height: in pixels, of every image.
        width: likewise.
        channels: 3 for RGB, 1 for grey.

    Raises:
        DataError: where one is damaged, or has more than 8 bits a channel.
    """
    from PIL import Image, ImageOps  # 0.1 s that `import spokeshave` should not cost

    images = np.empty((count, channels, height, width), np.uint8)
    for position, (name, file) in enumerate(files):
        try:
            with Image.open(file) as opened:
                if opened.mode.startswith(("I", "F")):
                    raise DataError(
                        f"{name}: expected 8 bits a channel, got Pillow mode {opened.mode}; convert it first"
                    )
                upright = ImageOps.exif_transpose(opened).convert("RGB" if channels == 3 else "L")
                fitted = ImageOps.fit(upright, (width, height), method=Image.Resampling.BILINEAR)
        except DataError:
            raise
        except Exception as error:  # decoders fail in many ways on damaged files
            size = len(file.getvalue()) if isinstance(file, BytesIO) else file.stat().st_size if file.exists() else 0
            raise DataError(
                f"{name} ({size} bytes) cannot be read as an image: {error}; repair or remove the file"
            ) from error
        images[position] = np.asarray(fitted).reshape(height, width, channels).transpose(2, 0, 1)
    return images
