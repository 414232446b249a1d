"""Labelled images held in memory: one part of a data set (`Split`), the whole of it (`Splits`), and stratified cuts.

Images stay as uint8 in the order of their source files; every cut is a pure function of its seed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from spokeshave.errors import DataError, InvalidArgument


@dataclass(frozen=True, eq=False)
class Split:
    """One part of a data set.

    Args:
        images: grey levels 0..255, one plane a channel.
        labels: the class of each image, 0 or more.

    Raises:
        DataError: where the tensors are not of this form, or differ in length.
    """

    images: UInt8[Tensor, "n c h w"]
    labels: Int64[Tensor, " n"]
    dtype: ClassVar[torch.dtype] = torch.uint8

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        if images.ndim != 4 or images.dtype != self.dtype:
            wanted = str(self.dtype).removeprefix("torch.")
            raise DataError(
                f"images must be {wanted} of shape (n, c, h, w), got {images.dtype} of {tuple(images.shape)}"
            )
        if labels.ndim != 1 or labels.dtype != torch.int64:
            raise DataError(f"labels must be int64 of shape (n,), got {labels.dtype} of {tuple(labels.shape)}")
        if len(images) != len(labels):
            raise DataError(f"images and labels must be equally many, got {len(images)} and {len(labels)}")
        if len(labels) and int(labels.min()) < 0:
            raise DataError(f"labels must be 0 or more, got {int(labels.min())}")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def subset(self, indices: Int64[Tensor, " k"] | Sequence[int]) -> "Split":
        """Take some of the images, in the order given.

        Args:
            indices: positions in this split, 0..n-1.

        Returns:
            A split of the `k` images named, copied.
        """
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        return type(self)(self.images[chosen], self.labels[chosen])

    def hold_out(self, count_or_fraction: int | float, seed: int) -> tuple["Split", "Split"]:
        """Cut this split in two, stratified by class: what is left, and what is held out.

        Args:
            count_or_fraction: an int from 1 to n-1, the images to hold out; or a float in (0, 1), their share.
            seed: chooses the images; the same seed gives the same cut on every machine.

        Returns:
            (the rest, the part held out), each in the order of this split.

        Raises:
            InvalidArgument: where nothing would be held out or nothing be left.

        Example:
            >>> split = Split(torch.zeros(10, 1, 2, 2, dtype=torch.uint8), torch.tensor([0] * 5 + [1] * 5))
            >>> rest, held = split.hold_out(0.4, seed=0)
            >>> len(rest), held.labels.tolist()
            (6, [0, 0, 1, 1])
        """
        total = len(self)
        count = count_or_fraction if isinstance(count_or_fraction, int) else round(count_or_fraction * total)
        if not 0 < count < total:
            raise InvalidArgument(
                f"hold_out must keep back 1..{total - 1} of {total} images (an int), or a share of them in (0, 1) "
                f"(a float), got {count_or_fraction!r}"
            )
        chosen = stratified_sample(self.labels, count, seed)
        left = torch.ones(total, dtype=torch.bool)
        left[chosen] = False
        return self.subset(torch.nonzero(left).flatten()), self.subset(chosen)


@dataclass(frozen=True, eq=False)
class Splits:
    """A data set: its training and its test split, and the names of its classes.

    Args:
        name: what the set is called, as in "mnist".
        train: the images to learn from; hold a part of them out to choose strengths and to stop.
        test: the images that only the final number is measured on.
        classes: the name of each label, in order.

    Raises:
        DataError: where a label has no class name, or the two splits differ in image shape.
    """

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        for part, split in (("train", self.train), ("test", self.test)):
            if not len(split):
                raise DataError(f"{self.name}: the {part} split has no images")
            if int(split.labels.max()) >= len(self.classes):
                raise DataError(
                    f"{self.name}: labels of the {part} split must be 0..{len(self.classes) - 1} "
                    f"({len(self.classes)} classes), got {int(split.labels.max())}"
                )
        if self.train.image_shape != self.test.image_shape:
            raise DataError(
                f"{self.name}: train images are {self.train.image_shape}, test images are {self.test.image_shape}; "
                "both must have one shape (channels, height, width)"
            )

    def hold_out(self, count_or_fraction: int | float, seed: int) -> tuple[Split, Split]:
        """Cut the training split into (train, validation), stratified by class; see `Split.hold_out`."""
        return self.train.hold_out(count_or_fraction, seed)


def stratified_sample(labels: Int64[Tensor, " n"], count: int, seed: int) -> Int64[Tensor, " k"]:
    """Draw `count` positions so that each class has its share, to within one image.

    Args:
        labels: the class of each position.
        count: how many to draw, 0..n.
        seed: chooses which.

    Returns:
        The positions, ascending.
    """
    sizes = torch.bincount(labels).tolist()
    shares = [size * count / max(len(labels), 1) for size in sizes]
    quotas = [int(share) for share in shares]
    # Largest remainders get what rounding down left over; ties go to the lower class, so the cut is reproducible.
    by_remainder = sorted(range(len(sizes)), key=lambda c: (quotas[c] - shares[c], c))
    for category in by_remainder[: count - sum(quotas)]:
        quotas[category] += 1
    generator = torch.Generator().manual_seed(seed)
    drawn = []
    for category, quota in enumerate(quotas):
        members = torch.nonzero(labels == category).flatten()
        drawn.append(members[torch.randperm(len(members), generator=generator)[:quota]])
    return torch.cat(drawn).sort().values if drawn else torch.empty(0, dtype=torch.int64)
