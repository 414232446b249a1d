"""Random crops of zero-padded images and horizontal flips, for a whole batch at once as tensor operations.

Crop and flip together are one gather: each output pixel is looked up in the padded image, so no image is touched in
Python and the cost does not depend on how many are flipped.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int64, UInt8
from torch import Tensor
from torch.nn.functional import pad as pad_planes

from spokeshave.errors import InvalidArgument


@dataclass(frozen=True)
class Augmentation:
    """What is done to the training images.

    Args:
        pad: pixels of grey level 0 added on each side before a crop of the original size is drawn; 0 or more.
        flip: mirror each image left to right with probability 1/2.
    """

    pad: int = 0
    flip: bool = False

    def __post_init__(self) -> None:
        if self.pad < 0:
            raise InvalidArgument(f"pad must be 0 or more pixels, got {self.pad}")

    def draw(
        self, count: int, generator: torch.Generator
    ) -> tuple[Int64[Tensor, " b"], Int64[Tensor, " b"], Bool[Tensor, " b"]]:
        """Draw for `count` images: the crop's top row and left column, 0..2*pad, and whether it is mirrored."""
        top = torch.randint(0, 2 * self.pad + 1, (count,), generator=generator)
        left = torch.randint(0, 2 * self.pad + 1, (count,), generator=generator)
        mirrored = torch.rand(count, generator=generator) < 0.5 if self.flip else torch.zeros(count, dtype=torch.bool)
        return top, left, mirrored

    def __call__(self, images: UInt8[Tensor, "b c h w"], generator: torch.Generator) -> UInt8[Tensor, "b c h w"]:
        """Crop and flip a batch; the draw is made on the CPU, so every device sees the same pixels.

        Args:
            images: the batch, on any device.
            generator: a CPU generator.

        Returns:
            A batch of the same shape on the same device.
        """
        if not self.pad and not self.flip:
            return images
        top, left, mirrored = (drawn.to(images.device) for drawn in self.draw(len(images), generator))
        return crop_and_flip(images, self.pad, top, left, mirrored)


def crop_and_flip(
    images: UInt8[Tensor, "b c h w"],
    pad: int,
    top: Int64[Tensor, " b"],
    left: Int64[Tensor, " b"],
    mirrored: Bool[Tensor, " b"],
) -> UInt8[Tensor, "b c h w"]:
    """Pad with zeros, crop at (top, left) to the original size, then mirror where asked.

    Args:
        images: the batch.
        pad: pixels added on each side.
        top: the crop's first row in the padded image, 0..2*pad.
        left: the crop's first column in the padded image, 0..2*pad.
        mirrored: whether the crop is then mirrored left to right.

    Returns:
        A batch of the same shape.

    Example:
        >>> image = torch.tensor([[[[1, 2], [3, 4]]]], dtype=torch.uint8)
        >>> at = torch.tensor([1])
        >>> crop_and_flip(image, 1, at, at, torch.tensor([True])).flatten().tolist()
        [2, 1, 4, 3]
    """
    batch, channels, height, width = images.shape
    padded = pad_planes(images, (pad, pad, pad, pad)) if pad else images
    rows = top[:, None] + torch.arange(height, device=images.device)
    columns = left[:, None] + torch.arange(width, device=images.device)
    columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    flat = rows[:, :, None] * padded.shape[-1] + columns[:, None, :]
    picked = padded.flatten(2).gather(2, flat.view(batch, 1, -1).expand(-1, channels, -1))
    return picked.view(batch, channels, height, width)
