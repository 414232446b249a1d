"""MNIST-M: the digits of MNIST, their colours inverted by patches of photographs (Ganin, Lempitsky, ICML 2015).

From one .npz file with arrays x_train, y_train, x_test, y_test of 28 x 28 x 3 bytes, or from the authors' folders of
images with lists of labels.
"""

from pathlib import Path

import numpy as np
import torch

from spokeshave.data.image_folder import read_images
from spokeshave.data.packed_images import read_arrays
from spokeshave.data.sources import DatasetName, Source
from spokeshave.data.splits import Split, Splits
from spokeshave.errors import DataError

PIXELS = 28
_FILE, _LISTS = "mnist_m.npz", ("mnist_m_train_labels.txt", "mnist_m_test_labels.txt")


def read_mnist_m(folder: Path) -> Splits:
    """Read the set from either form.

    Raises:
        DataError: where a file is missing, damaged or of another form.
    """
    path = folder / _FILE
    if path.exists():
        arrays = read_arrays(path, ("x_train", "y_train", "x_test", "y_test"))
        parts = [_split(path, arrays[f"x_{part}"], arrays[f"y_{part}"]) for part in ("train", "test")]
    else:
        parts = [_listed(folder / name) for name in _LISTS]
    return Splits(DatasetName.MNIST_M.value, parts[0], parts[1], tuple("0123456789"))


def _split(path: Path, images: np.ndarray, labels: np.ndarray) -> Split:
    if images.dtype != np.uint8 or images.shape[1:] != (PIXELS, PIXELS, 3) or labels.shape != images.shape[:1]:
        raise DataError(
            f"{path}: expected bytes of shape (n, {PIXELS}, {PIXELS}, 3) and n labels, got {images.dtype} of "
            f"{images.shape} and {labels.shape}"
        )
    if labels.dtype.kind not in "iu" or not len(labels) or labels.max() > 9:
        raise DataError(
            f"{path}: expected labels 0..9, got {labels.dtype} up to {labels.max() if len(labels) else '-'}"
        )
    return Split(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels.astype(np.int64)))


def _listed(path: Path) -> Split:
    """A list of `name label`, the images in the folder of the list's name without `_labels.txt`."""
    lines = path.read_text().split("\n")
    pairs = [line.split() for line in lines if line.strip()]
    wrong = next((line for line in pairs if len(line) != 2 or not (line[1].isdigit() and len(line[1]) == 1)), None)
    if wrong is not None or not pairs:
        raise DataError(f"{path}: expected lines 'name label' with labels 0..9, got {' '.join(wrong or ['none'])}")
    folder = path.with_name(path.name.removesuffix("_labels.txt"))
    images = read_images(((str(folder / name), folder / name) for name, _ in pairs), len(pairs), PIXELS, PIXELS, 3)
    return Split(torch.from_numpy(images), torch.tensor([int(label) for _, label in pairs]))


MNIST_M = Source(
    name=DatasetName.MNIST_M,
    title="MNIST-M",
    folders=("mnist-m", "mnist_m", "."),
    files=tuple((_FILE, name) for name in _LISTS),
    read=read_mnist_m,
    page="https://yaroslav.ganin.net",
)
