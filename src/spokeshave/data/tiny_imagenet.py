"""Tiny ImageNet: 64 x 64 colour images of 200 classes (Stanford CS231n, 2015); or of as many as are there.

From shards of JPEG bytes in .npz files with a list of classes, or from the folders of the official archive.
"""

from pathlib import Path

import numpy as np
import torch

from spokeshave.data.image_folder import read_images
from spokeshave.data.packed_images import read_arrays, read_packed
from spokeshave.data.sources import DatasetName, Source
from spokeshave.data.splits import Split, Splits
from spokeshave.errors import DataError

PIXELS = 64
_TRAIN, _VALIDATION = 0, 1


def read_tiny_imagenet(folder: Path) -> Splits:
    """Read the set; the test split is the official validation split, as the official test split has no labels.

    Raises:
        DataError: where a file is missing or damaged.
    """
    shards = sorted(folder.glob("shard*.npz"))
    train, test, classes = _packed(folder, shards) if shards else _official(folder)
    return Splits(DatasetName.TINY_IMAGENET.value, train, test, classes)


def _packed(folder: Path, shards: list[Path]) -> tuple[Split, Split, tuple[str, ...]]:
    lines = (folder / "classes.txt").read_text().splitlines()
    classes = tuple(line.split("\t")[-1] for line in lines if line.strip())
    parts: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {_TRAIN: [], _VALIDATION: []}
    for path in shards:
        arrays = read_arrays(path, ("jpeg", "offsets", "label", "split"))
        for part, found in parts.items():
            chosen = arrays["split"] == part
            found.append((read_packed(path, chosen, arrays, PIXELS), arrays["label"][chosen]))
    splits = [
        Split(
            torch.from_numpy(np.concatenate([images for images, _ in found])),
            torch.from_numpy(np.concatenate([labels for _, labels in found]).astype(np.int64)),
        )
        for found in parts.values()
    ]
    # Where shards are missing, so are the last classes.
    return splits[0], splits[1], classes[: int(max(split.labels.max() for split in splits)) + 1]


def _official(folder: Path) -> tuple[Split, Split, tuple[str, ...]]:
    names = (folder / "wnids.txt").read_text().split()
    number = {name: place for place, name in enumerate(names)}
    train = [
        (file, number[name]) for name in names for file in sorted((folder / "train" / name / "images").glob("*.JPEG"))
    ]
    notes = folder / "val" / "val_annotations.txt"
    pairs = [line.split("\t")[:2] for line in notes.read_text().splitlines() if line.strip()]
    unknown = next((pair for pair in pairs if len(pair) < 2 or pair[1] not in number), None)
    if unknown is not None or not train:
        raise DataError(f"{notes}: expected 'file class ...' with classes of wnids.txt, got {unknown or 'no images'}")
    test = [(folder / "val" / "images" / file, number[name]) for file, name in pairs]
    words = {}
    if (folder / "words.txt").is_file():
        words = dict(line.split("\t", 1) for line in (folder / "words.txt").read_text().splitlines() if "\t" in line)
    splits = []
    for files in (train, test):
        images = read_images(((str(file), file) for file, _ in files), len(files), PIXELS, PIXELS, 3)
        splits.append(Split(torch.from_numpy(images), torch.tensor([label for _, label in files])))
    return splits[0], splits[1], tuple(words.get(name, name) for name in names)


TINY_IMAGENET = Source(
    name=DatasetName.TINY_IMAGENET,
    title="Tiny ImageNet",
    folders=("tiny-imagenet-200",),
    files=(("classes.txt", "wnids.txt"), ("shard0.npz", "val/val_annotations.txt")),
    read=read_tiny_imagenet,
    page="https://cs231n.stanford.edu/tiny-imagenet-200.zip",
)
