"""CIFAR-10 and CIFAR-100 from the "python version" batches (Krizhevsky 2009, "Learning Multiple Layers of Features").

Each batch holds `data`, (n, 3072) uint8: 1024 red, 1024 green, 1024 blue levels in row-major order, and its labels.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spokeshave.data.cifar_pickle import read_pickle
from spokeshave.data.sources import DatasetName, Remote, Source
from spokeshave.data.splits import Split, Splits
from spokeshave.errors import DataError

_BYTES_PER_IMAGE = 3 * 32 * 32
_AGAIN = "remove the folder and copy or download it again"


def _labels(batch: dict[str, Any], key: str, classes: int, path: Path) -> torch.Tensor:
    labels = batch.get(key)
    if isinstance(labels, np.ndarray):
        labels = labels.tolist()
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise DataError(f"{path}: expected a list of integers under '{key}', got {type(labels).__name__}; {_AGAIN}")
    for position, label in enumerate(labels):
        if not 0 <= label < classes:
            raise DataError(f"{path}: labels must be 0..{classes - 1}, got {label} at position {position}; {_AGAIN}")
    return torch.tensor(labels, dtype=torch.int64)


def read_batch(path: Path, label_key: str, classes: int) -> Split:
    """Read one batch file.

    Args:
        path: the pickle.
        label_key: "labels" in CIFAR-10, "fine_labels" in CIFAR-100.
        classes: how many labels there are.

    Returns:
        Its images, 3x32x32, and labels.

    Raises:
        DataError: where the file is damaged, malicious, or its arrays are not of this form.
    """
    batch = read_pickle(path)
    data = batch.get("data")
    if not isinstance(data, np.ndarray) or data.ndim != 2 or data.shape[1] != _BYTES_PER_IMAGE:
        found = f"shape {data.shape}" if isinstance(data, np.ndarray) else type(data).__name__
        raise DataError(f"{path}: expected 'data' as uint8 of shape (n, {_BYTES_PER_IMAGE}), got {found}; {_AGAIN}")
    labels = _labels(batch, label_key, classes, path)
    if len(labels) != len(data):
        raise DataError(f"{path}: holds {len(data)} images and {len(labels)} labels, must be equally many; {_AGAIN}")
    return Split(torch.from_numpy(np.array(data, order="C").reshape(-1, 3, 32, 32)), labels)


def read_cifar(
    name: DatasetName,
    train_files: tuple[str, ...],
    test_file: str,
    meta: tuple[str, str],
    label_key: str,
    classes: int,
    folder: Path,
) -> Splits:
    """Read all batches of CIFAR-10 or CIFAR-100.

    Args:
        name: of the set.
        train_files: in order.
        test_file: the test batch.
        meta: the file with the class names, and their key.
        label_key: where the labels are.
        classes: 10 or 100.
        folder: holds the files.

    Raises:
        DataError: where a file is missing, damaged or malicious.
    """
    batches = [read_batch(folder / file, label_key, classes) for file in train_files]
    train = Split(torch.cat([batch.images for batch in batches]), torch.cat([batch.labels for batch in batches]))
    test = read_batch(folder / test_file, label_key, classes)
    names = read_pickle(folder / meta[0]).get(meta[1])
    if not isinstance(names, list) or len(names) != classes:
        found = f"{len(names)} of them" if isinstance(names, list) else type(names).__name__
        raise DataError(f"{folder / meta[0]}: expected {classes} class names under '{meta[1]}', got {found}; {_AGAIN}")
    return Splits(name.value, train, test, tuple(n.decode("latin1") if isinstance(n, bytes) else str(n) for n in names))


def _source(
    name: DatasetName,
    title: str,
    folder: str,
    train_files: tuple[str, ...],
    test_file: str,
    meta: tuple[str, str],
    label_key: str,
    classes: int,
    remote: Remote,
) -> Source:
    return Source(
        name=name,
        title=title,
        folders=(folder,),
        files=tuple((file,) for file in (*train_files, test_file, meta[0])),
        read=partial(read_cifar, name, train_files, test_file, meta, label_key, classes),
        remotes=(remote,),
    )


# Addresses and md5 sums: torchvision/datasets/cifar.py.
CIFAR10 = _source(
    DatasetName.CIFAR10,
    "CIFAR-10",
    "cifar-10-batches-py",
    tuple(f"data_batch_{number}" for number in range(1, 6)),
    "test_batch",
    ("batches.meta", "label_names"),
    "labels",
    10,
    Remote(
        "cifar-10-python.tar.gz",
        ("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",),
        "c58f30108f718f92721af3b95e74349a",
        unpacks_to="cifar-10-batches-py",
    ),
)

CIFAR100 = _source(
    DatasetName.CIFAR100,
    "CIFAR-100",
    "cifar-100-python",
    ("train",),
    "test",
    ("meta", "fine_label_names"),
    "fine_labels",
    100,
    Remote(
        "cifar-100-python.tar.gz",
        ("https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",),
        "eb9058c3a382ffc7106e4002c42a8d85",
        unpacks_to="cifar-100-python",
    ),
)
