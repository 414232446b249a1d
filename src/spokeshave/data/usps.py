"""USPS postal digits, 16x16 (Hull 1994; LeCun et al. 1990), from idx files or from the LIBSVM text files.

A LIBSVM line is `label index:value ...` with labels 1..10 for the digits 0..9 and values -1..1; ink is bright.
"""

import bz2
from pathlib import Path

import numpy as np
import torch

from spokeshave.data.idx_files import either, read_pair
from spokeshave.data.sources import DatasetName, Remote, Source
from spokeshave.data.splits import Split, Splits
from spokeshave.errors import DataError

SIDE_PIXELS = 16
_AGAIN = "remove the file and copy or download it again"


def read_libsvm(path: Path) -> Split:
    """Read one bz2-compressed LIBSVM file of 16x16 digits.

    Args:
        path: usps.bz2 or usps.t.bz2.

    Returns:
        Its images, levels round((value + 1) * 127.5).

    Raises:
        DataError: where the file is damaged, or a line is not of this form.
    """
    try:
        lines = bz2.decompress(path.read_bytes()).decode("ascii").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not a whole bzip2 text file: {error}; {_AGAIN}") from error
    values = np.full((len(lines), SIDE_PIXELS * SIDE_PIXELS), -1.0)
    labels = np.zeros(len(lines), np.int64)
    for number, line in enumerate(lines):
        try:
            label, *pairs = line.split()
            labels[number] = int(label) - 1
            for pair in pairs:
                index, value = pair.split(":")
                if not 1 <= int(index) <= values.shape[1]:
                    raise ValueError(f"pixel {index} of {values.shape[1]}")
                values[number, int(index) - 1] = float(value)
        except ValueError as error:
            raise DataError(f"{path}: line {number + 1} is not 'label index:value ...': {error}; {_AGAIN}") from error
    if not lines or labels.min() < 0 or labels.max() > 9 or not (np.abs(values) <= 1).all():
        raise DataError(f"{path}: expected lines with labels 1..10 and values -1..1, got others; {_AGAIN}")
    levels = np.round((values + 1) * 127.5).astype(np.uint8).reshape(-1, 1, SIDE_PIXELS, SIDE_PIXELS)
    return Split(torch.from_numpy(levels), torch.from_numpy(labels))


def read_usps(folder: Path) -> Splits:
    """Read USPS from the idx files of a folder, or else from its LIBSVM files.

    Raises:
        DataError: where a file is missing or damaged.
    """

    def part(name: str, libsvm: str) -> Split:
        images, labels = (either(folder, f"usps-{name}-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1"))
        return read_pair(images, labels, classes=10) if images.exists() else read_libsvm(folder / libsvm)

    return Splits(DatasetName.USPS.value, part("train", "usps.bz2"), part("test", "usps.t.bz2"), tuple("0123456789"))


# Addresses and md5 sums: torchvision/datasets/usps.py.
USPS = Source(
    name=DatasetName.USPS,
    title="USPS",
    folders=("usps", "."),
    files=tuple(
        (f"usps-{part}-{kind}-ubyte", f"usps-{part}-{kind}-ubyte.gz", libsvm)
        for part, libsvm in (("train", "usps.bz2"), ("test", "usps.t.bz2"))
        for kind in ("images-idx3", "labels-idx1")
    ),
    read=read_usps,
    remotes=tuple(
        Remote(name, (f"https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/multiclass/{name}",), md5)
        for name, md5 in (
            ("usps.bz2", "ec16c51db3855ca6c91edd34d0e9b197"),
            ("usps.t.bz2", "8ea070ee2aca1ac39742fdd1ef5ed118"),
        )
    ),
)
