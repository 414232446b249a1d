"""Two data sets as two domains: of one shape, with the same classes in the same order."""

from dataclasses import dataclass

import torch
from torch.nn import functional

from spokeshave.data import Split, Splits
from spokeshave.errors import DataError

_AT_ONCE = 1000
"""Images that are resized together: all of a set as floats would not fit into memory."""


@dataclass(frozen=True, eq=False)
class DomainPair:
    """A source with labels, and a target.

    Attributes:
        source: labelled images to train on, and of its test split.
        target: images of the other domain: those of `train` are shown without their labels, `test` is for the end.
        classes: of both.
    """

    source: Splits
    target: Splits
    classes: tuple[str, ...]


def pair_domains(source: Splits, target: Splits, size: int, channels: int) -> DomainPair:
    """Bring two sets into one shape.

    Args:
        source: one domain.
        target: the other.
        size: height and width that images of both get, by bilinear interpolation.
        channels: 3, where grey images get three equal planes, or 1, where colour ones become grey.

    Raises:
        DataError: where the classes differ; names them.
    """
    if source.classes != target.classes:
        lacking = [
            ", ".join(sorted(set(one) - set(other))) or "none"
            for one, other in ((source.classes, target.classes), (target.classes, source.classes))
        ]
        what = f"only in {source.name}: {lacking[0]}; only in {target.name}: {lacking[1]}"
        raise DataError(
            f"{source.name} and {target.name}: expected the same classes in the same order, got {len(source.classes)} "
            f"and {len(target.classes)}; {what}; rename folders, or leave classes out"
        )
    fitted = [
        Splits(one.name, fit(one.train, size, channels), fit(one.test, size, channels), one.classes)
        for one in (source, target)
    ]
    return DomainPair(fitted[0], fitted[1], source.classes)


def fit(split: Split, size: int, channels: int) -> Split:
    """Images of another size and number of channels.

    Args:
        split: images of 1 or 3 channels.
        size: height and width in pixels.
        channels: 1 or 3.

    Example:
        >>> grey = Split(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 1]))
        >>> fit(grey, 6, 3).image_shape
        (3, 6, 6)
    """
    if split.image_shape == (channels, size, size):
        return split
    found = [_fit(images, size, channels) for images in split.images.split(_AT_ONCE)]
    return Split(torch.cat(found) if found else split.images.new_zeros(0, channels, size, size), split.labels)


_LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey: ITU-R BT.601, as Pillow converts."""


def _fit(images: torch.Tensor, size: int, channels: int) -> torch.Tensor:
    levels = images.float()
    if images.shape[1] == 3 and channels == 1:
        levels = (levels * torch.tensor(_LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
    if images.shape[2:] != (size, size):
        smaller = size < min(images.shape[2:])
        levels = functional.interpolate(levels, (size, size), mode="bilinear", antialias=smaller)
    return levels.round().clamp(0, 255).to(torch.uint8).expand(-1, channels, -1, -1).contiguous()
