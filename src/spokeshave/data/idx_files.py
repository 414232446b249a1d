"""MNIST and Fashion-MNIST from idx files (LeCun, Cortes, Burges 1998; Xiao, Rasul, Vollgraf 2017), plain or gzipped.

An idx file is a magic number (two zero bytes, 8 for uint8, the number of dimensions), one big-endian uint32 a
dimension, then the bytes in row-major order. Every byte is accounted for before anything is believed.
"""

import gzip
import struct
import zlib
from functools import partial
from math import prod
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from spokeshave.data.sources import DatasetName, Remote, Source
from spokeshave.data.splits import Split, Splits
from spokeshave.errors import DataError

_AGAIN = "remove the file and copy or download it again"


def read_bytes(path: Path) -> bytes:
    """Read a file, decompressed where its name ends in .gz.

    Raises:
        DataError: where it cannot be read, or the compressed stream is damaged or ends early.
    """
    try:
        if path.suffix == ".gz":
            with gzip.open(path) as stream:
                return stream.read()
        return path.read_bytes()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path} ({path.stat().st_size} bytes) is not a whole gzip file: {error}; {_AGAIN}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def read_idx(path: Path, dimensions: int) -> UInt8[Tensor, "..."]:
    """Read an idx file of uint8.

    Args:
        path: the file, plain or .gz.
        dimensions: expected, 1 for labels and 3 for images.

    Returns:
        The array, of the shape that the file's head states.

    Raises:
        DataError: where magic number, shape and size do not agree.
    """
    content = read_bytes(path)
    head = 4 + 4 * dimensions
    if len(content) < head:
        raise DataError(f"{path}: expected an idx head of {head} bytes, got {len(content)} bytes in all; {_AGAIN}")
    expected_magic = 0x0800 + dimensions
    magic, *shape = struct.unpack(f">{dimensions + 1}I", content[:head])
    if magic != expected_magic:
        raise DataError(
            f"{path}: expected magic number 0x{expected_magic:08x} (uint8, {dimensions} dimension(s)), "
            f"got 0x{magic:08x}; this is another kind of file, or a damaged one: {_AGAIN}"
        )
    size = prod(shape)
    if len(content) - head != size:
        raise DataError(
            f"{path}: its head announces {'x'.join(map(str, shape))} = {size} bytes of data, "
            f"but {len(content) - head} follow; {_AGAIN}"
        )
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=head).reshape(shape).copy())


def read_pair(images_file: Path, labels_file: Path, classes: int) -> Split:
    """Read one split from an idx file of images and one of labels.

    Args:
        images_file: n images of h x w grey levels.
        labels_file: n labels, 0..classes-1.
        classes: how many there are.

    Returns:
        The split, with one channel.

    Raises:
        DataError: where a file is damaged, the two disagree in number, or a label is out of range.
    """
    images, labels = read_idx(images_file, 3), read_idx(labels_file, 1)
    if not len(images) or not images.numel():
        raise DataError(f"{images_file}: expected images, got an array of shape {tuple(images.shape)}; {_AGAIN}")
    if len(images) != len(labels):
        raise DataError(
            f"{images_file} holds {len(images)} images and {labels_file} {len(labels)} labels; "
            "they must be equally many: copy or download both again"
        )
    if int(labels.max()) >= classes:
        where = int(torch.nonzero(labels >= classes)[0])
        raise DataError(
            f"{labels_file}: labels must be 0..{classes - 1}, got {int(labels[where])} at position {where}; {_AGAIN}"
        )
    return Split(images[:, None], labels.long())


def either(folder: Path, name: str) -> Path:
    """Give the plain file where it is there, else the path of the gzipped one."""
    plain = folder / name
    return plain if plain.exists() else plain.with_name(f"{name}.gz")


def read_idx_folder(name: DatasetName, classes: tuple[str, ...], folder: Path) -> Splits:
    """Read the four idx files of an MNIST-like set.

    Args:
        name: of the set.
        classes: their names.
        folder: holds {train,t10k}-{images-idx3,labels-idx1}-ubyte, plain or .gz.

    Raises:
        DataError: where a file is missing or damaged.
    """
    train, test = (
        read_pair(
            either(folder, f"{part}-images-idx3-ubyte"), either(folder, f"{part}-labels-idx1-ubyte"), len(classes)
        )
        for part in ("train", "t10k")
    )
    return Splits(name.value, train, test, classes)


def _source(
    name: DatasetName, title: str, folder: str, classes: tuple[str, ...], mirrors: tuple[str, ...], md5s: dict[str, str]
) -> Source:
    return Source(
        name=name,
        title=title,
        folders=(folder,),
        files=tuple((stem, f"{stem}.gz") for stem in md5s),
        read=partial(read_idx_folder, name, classes),
        remotes=tuple(
            Remote(f"{stem}.gz", tuple(f"{mirror}{stem}.gz" for mirror in mirrors), md5) for stem, md5 in md5s.items()
        ),
    )


# Addresses and md5 sums: torchvision/datasets/mnist.py.
MNIST = _source(
    DatasetName.MNIST,
    "MNIST",
    "MNIST/raw",
    tuple("0123456789"),
    ("https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/"),
    {
        "train-images-idx3-ubyte": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte": "ec29112dd5afa0611ce80d1b7f02629c",
    },
)

FASHION_MNIST = _source(
    DatasetName.FASHION_MNIST,
    "Fashion-MNIST",
    "FashionMNIST/raw",
    ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
    {
        "train-images-idx3-ubyte": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte": "bb300cfdad3c16e7a12a480ee83cd310",
    },
)
