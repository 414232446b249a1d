"""SVHN, street view house numbers, cropped digits (Netzer et al., NIPS workshop 2011), from its MATLAB files.

A file holds `X`, (32, 32, 3, n) uint8, and `y`, (n, 1) with 1..10, where 10 stands for the digit 0.
"""

from pathlib import Path

import numpy as np
import torch

from spokeshave.data.sources import DatasetName, Remote, Source
from spokeshave.data.splits import Split, Splits
from spokeshave.errors import DataError

_AGAIN = "remove the file and copy or download it again"


def read_mat(path: Path) -> Split:
    """Read one SVHN file.

    Args:
        path: train_32x32.mat or test_32x32.mat.

    Returns:
        Its images, 3x32x32, with labels 0..9.

    Raises:
        DataError: where the file is damaged, or not of this form.
    """
    from scipy.io import loadmat  # half a second that `import spokeshave` should not cost

    try:
        content = loadmat(path, variable_names=["X", "y"])
    except Exception as error:  # a damaged MATLAB file can fail in any way; all mean the same to the user
        size = f"{path.stat().st_size} bytes" if path.is_file() else "missing"
        raise DataError(
            f"{path} ({size}) is not a whole MATLAB file: {type(error).__name__}: {error}; {_AGAIN}"
        ) from error
    pixels, labels = content.get("X"), content.get("y")
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape[:3] != (32, 32, 3):
        found = f"{pixels.dtype} of {pixels.shape}" if isinstance(pixels, np.ndarray) else "nothing"
        raise DataError(f"{path}: expected X as uint8 of shape (32, 32, 3, n), got {found}; {_AGAIN}")
    count = pixels.shape[3] if pixels.ndim == 4 else 1  # MATLAB drops a last dimension of 1
    if not isinstance(labels, np.ndarray) or labels.size != count or not np.issubdtype(labels.dtype, np.integer):
        found = f"{labels.dtype} of {labels.shape}" if isinstance(labels, np.ndarray) else "nothing"
        raise DataError(f"{path}: expected y as {count} integers, one an image, got {found}; {_AGAIN}")
    numbers = labels.astype(np.int64).ravel()
    if numbers.min() < 1 or numbers.max() > 10:
        wrong = int(np.flatnonzero((numbers < 1) | (numbers > 10))[0])
        raise DataError(f"{path}: labels must be 1..10 (10 is the digit 0), got {numbers[wrong]} at {wrong}; {_AGAIN}")
    images = np.ascontiguousarray(pixels.reshape(32, 32, 3, count).transpose(3, 2, 0, 1))
    return Split(torch.from_numpy(images), torch.from_numpy(numbers % 10))


def read_svhn(folder: Path) -> Splits:
    """Read both SVHN files of a folder.

    Raises:
        DataError: where one is missing or damaged.
    """
    return Splits(
        DatasetName.SVHN.value,
        read_mat(folder / "train_32x32.mat"),
        read_mat(folder / "test_32x32.mat"),
        tuple("0123456789"),
    )


# Addresses and md5 sums: torchvision/datasets/svhn.py.
SVHN = Source(
    name=DatasetName.SVHN,
    title="SVHN",
    folders=("svhn", "."),
    files=(("train_32x32.mat",), ("test_32x32.mat",)),
    read=read_svhn,
    remotes=tuple(
        Remote(name, (f"http://ufldl.stanford.edu/housenumbers/{name}",), md5)
        for name, md5 in (
            ("train_32x32.mat", "e26dedcc434d2e4c54c9b2d4a06d8373"),
            ("test_32x32.mat", "eb5a983be6a315427106f1b164d9cef3"),
        )
    ),
)
