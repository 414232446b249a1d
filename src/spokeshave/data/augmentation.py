"""Random crops, horizontal flips and contrast of images, for a whole batch at once as tensor operations.

Crop and flip together are one gather: each output pixel is looked up in the padded image, so no image is touched in
Python and the cost does not depend on how many are flipped.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor
from torch.nn.functional import pad as pad_planes

from spokeshave.errors import InvalidArgument


@dataclass(frozen=True)
class Augmentation:
    """What is done to the training images.

    Args:
        pad: pixels of grey level 0 added on each side before a crop is drawn; 0 or more.
        flip: mirror each image left to right with probability 1/2.
        crop: height and width of the crop, in pixels; 0 for those of the image. Images for evaluation are cropped to
            their centre.
        contrast: smallest and largest factor, both above 0, drawn for each image, on the distance of its pixels to
            their channel's mean, as in TensorFlow's CIFAR-10 tutorial; None for none. Images then come out as floats,
            in grey levels that may leave 0..255.

    Raises:
        InvalidArgument: where a number is out of its range.
    """

    pad: int = 0
    flip: bool = False
    crop: int = 0
    contrast: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.pad < 0 or self.crop < 0:
            raise InvalidArgument(f"pad and crop must be 0 or more pixels, got {self.pad} and {self.crop}")
        if self.contrast is not None and not 0 < self.contrast[0] <= self.contrast[1] < math.inf:
            raise InvalidArgument(f"contrast must be two factors above 0, the smaller first, got {self.contrast}")

    def draw(
        self, count: int, generator: torch.Generator, spare: tuple[int, int] = (0, 0)
    ) -> tuple[Int64[Tensor, " b"], Int64[Tensor, " b"], Bool[Tensor, " b"]]:
        """Draw for `count` images: the crop's top row and left column, and whether it is mirrored.

        Args:
            count: of images.
            generator: a CPU generator.
            spare: rows and columns by which the image is larger than the crop; they are drawn from 0..2*pad+spare.
        """
        top = torch.randint(0, 2 * self.pad + spare[0] + 1, (count,), generator=generator)
        left = torch.randint(0, 2 * self.pad + spare[1] + 1, (count,), generator=generator)
        mirrored = torch.rand(count, generator=generator) < 0.5 if self.flip else torch.zeros(count, dtype=torch.bool)
        return top, left, mirrored

    def __call__(
        self, images: UInt8[Tensor, "b c h w"], generator: torch.Generator
    ) -> UInt8[Tensor, "b c h2 w2"] | Float[Tensor, "b c h2 w2"]:
        """Crop and flip a batch; the draw is made on the CPU, so every device sees the same pixels.

        Args:
            images: the batch, on any device.
            generator: a CPU generator.

        Returns:
            A batch on the same device, of the crop's size; floats where the contrast was changed.

        Raises:
            InvalidArgument: where the images are smaller than the crop.
        """
        height, width = self._size(images)
        if self.pad or self.flip or (height, width) != images.shape[2:]:
            spare = images.shape[2] - height, images.shape[3] - width
            drawn = (one.to(images.device) for one in self.draw(len(images), generator, spare))
            images = crop_and_flip(images, self.pad, *drawn, size=(height, width))
        if self.contrast is None:
            return images
        least, most = self.contrast
        factors = least + (most - least) * torch.rand(len(images), generator=generator)
        return change_contrast(images, factors.to(images.device))

    def centre(self, images: UInt8[Tensor, "b c h w"]) -> UInt8[Tensor, "b c h2 w2"]:
        """Cut the centres out of images for evaluation, of the crop's size; nothing is drawn.

        Raises:
            InvalidArgument: where the images are smaller than the crop.
        """
        height, width = self._size(images)
        top, left = (images.shape[2] - height) // 2, (images.shape[3] - width) // 2
        return images[:, :, top : top + height, left : left + width]

    def _size(self, images: Tensor) -> tuple[int, int]:
        height, width = images.shape[2:]
        if self.crop > min(height, width):
            raise InvalidArgument(f"crops of {self.crop} pixels do not fit into images of {height} x {width}")
        return (self.crop, self.crop) if self.crop else (height, width)


def crop_and_flip(
    images: UInt8[Tensor, "b c h w"],
    pad: int,
    top: Int64[Tensor, " b"],
    left: Int64[Tensor, " b"],
    mirrored: Bool[Tensor, " b"],
    size: tuple[int, int] | None = None,
) -> UInt8[Tensor, "b c h2 w2"]:
    """Pad with zeros, crop at (top, left), then mirror where asked.

    Args:
        images: the batch.
        pad: pixels added on each side.
        top: the crop's first row in the padded image.
        left: the crop's first column in the padded image.
        mirrored: whether the crop is then mirrored left to right.
        size: height and width of the crop; those of the images by default.

    Returns:
        A batch of crops.

    Example:
        >>> image = torch.tensor([[[[1, 2], [3, 4]]]], dtype=torch.uint8)
        >>> at = torch.tensor([1])
        >>> crop_and_flip(image, 1, at, at, torch.tensor([True])).flatten().tolist()
        [2, 1, 4, 3]
    """
    batch, channels = images.shape[:2]
    height, width = size or images.shape[2:]
    padded = pad_planes(images, (pad, pad, pad, pad)) if pad else images
    rows = top[:, None] + torch.arange(height, device=images.device)
    columns = left[:, None] + torch.arange(width, device=images.device)
    columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    flat = rows[:, :, None] * padded.shape[-1] + columns[:, None, :]
    picked = padded.flatten(2).gather(2, flat.view(batch, 1, -1).expand(-1, channels, -1))
    return picked.view(batch, channels, height, width)


def change_contrast(images: UInt8[Tensor, "b c h w"], factors: Float[Tensor, " b"]) -> Float[Tensor, "b c h w"]:
    """Stretch the pixels of each image away from the mean of their channel, or pull them toward it.

    Args:
        images: the batch.
        factors: one an image, above 0; 1 leaves it as it is.

    Example:
        >>> image = torch.tensor([[[[10, 30]]]], dtype=torch.uint8)
        >>> change_contrast(image, torch.tensor([0.5])).flatten().tolist()
        [15.0, 25.0]
    """
    levels = images.float()
    means = levels.mean((2, 3), keepdim=True)
    return (levels - means) * factors.view(-1, 1, 1, 1) + means
