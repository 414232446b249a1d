"""From grey levels 0..255 to what a network is fed: (x / 255 - mean) / std, per channel or per pixel.

The per-pixel mean with std 1/255 is Caffe's mean-image subtraction; `scale_only` is Caffe's `scale` parameter;
`ImageStandardization` takes mean and deviation from each image itself, as TensorFlow's CIFAR-10 tutorial does.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from spokeshave.data.splits import Split
from spokeshave.errors import InvalidArgument


@dataclass(frozen=True, eq=False)
class Normalization:
    """The affine map (x / 255 - mean) / std.

    Args:
        mean: subtracted, in units of 0..1; (c, 1, 1) for one value a channel, (c, h, w) for one a pixel.
        std: divided by, in units of 0..1, above 0; a shape that broadcasts with `mean`.

    Raises:
        InvalidArgument: where the shapes do not fit an image, or std is not positive and finite.

    Example:
        >>> half = Normalization(torch.full((1, 1, 1), 0.5), torch.full((1, 1, 1), 0.5))
        >>> half(torch.tensor([[[[0, 255]]]], dtype=torch.uint8)).flatten().tolist()
        [-1.0, 1.0]
    """

    mean: Float[Tensor, "c hm wm"]
    std: Float[Tensor, "c hs ws"]

    def __post_init__(self) -> None:
        for name, value in (("mean", self.mean), ("std", self.std)):
            if value.ndim != 3:
                raise InvalidArgument(f"{name} must have shape (c, 1, 1) or (c, h, w), got {tuple(value.shape)}")
            if not bool(torch.isfinite(value).all()):
                raise InvalidArgument(f"{name} must be finite, got {value.flatten()[:4].tolist()}...")
        if not bool((self.std > 0).all()):
            raise InvalidArgument(f"std must be above 0, got {float(self.std.min())}")
        if len(self.mean) != len(self.std):
            raise InvalidArgument(f"mean has {len(self.mean)} channels, std has {len(self.std)}; they must agree")

    def __call__(self, images: UInt8[Tensor, "b c h w"] | Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Map images in grey levels to float32 of the same shape, on their device."""
        if images.ndim != 4 or images.shape[1] != len(self.mean):
            raise InvalidArgument(
                f"this normalization is for (b, c, h, w) with {len(self.mean)} channels, got {tuple(images.shape)}"
            )
        # One multiply and one add instead of three operations: x * 1/(255 std) - mean/std.
        scale = (1 / (255 * self.std.double())).float().to(images.device)
        shift = (-self.mean.double() / self.std.double()).float().to(images.device)
        return images.to(torch.float32, copy=True).mul_(scale).add_(shift)

    @classmethod
    def per_channel(cls, split: Split) -> "Normalization":
        """Give each channel mean 0 and standard deviation 1 over a split (a constant channel is divided by 1).

        Args:
            split: the training images, never the test images.
        """
        levels = torch.arange(256, dtype=torch.float64) / 255
        means, stds = [], []
        for channel in range(split.images.shape[1]):
            # A histogram gives the exact moments of bytes without a float copy of the data set.
            histogram = torch.bincount(split.images[:, channel].flatten(), minlength=256).double()
            share = histogram / histogram.sum()
            mean = (share * levels).sum()
            std = (share * (levels - mean) ** 2).sum().sqrt()
            means.append(float(mean))
            stds.append(float(std) if float(std) > 1e-6 else 1.0)
        return cls(torch.tensor(means).view(-1, 1, 1), torch.tensor(stds).view(-1, 1, 1))

    @classmethod
    def per_pixel_mean(cls, split: Split, std: float = 1 / 255) -> "Normalization":
        """Subtract the mean image of a split, as Caffe's `mean_file` does.

        Args:
            split: the training images.
            std: in units of 0..1; the default, 1/255, leaves grey levels, -255..255.
        """
        total = split.images.sum(dim=0, dtype=torch.int64).double()
        mean = (total / len(split) / 255).float()
        return cls(mean, torch.full((len(mean), 1, 1), std))

    @classmethod
    def scale_only(cls, channels: int, factor: float = 1 / 255) -> "Normalization":
        """Multiply grey levels 0..255 by a factor and subtract nothing (Caffe's LeNet: 0.00390625).

        Args:
            channels: of the images.
            factor: above 0.
        """
        return cls(torch.zeros(channels, 1, 1), torch.full((channels, 1, 1), 1 / (255 * factor)))

    def to_dict(self) -> dict[str, Any]:
        """Give mean and std as nested lists, for JSON."""
        return {"mean": self.mean.tolist(), "std": self.std.tolist()}

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> "Normalization":
        """Rebuild from `to_dict`; float32 values come back bit for bit."""
        return cls(torch.tensor(state["mean"], dtype=torch.float32), torch.tensor(state["std"], dtype=torch.float32))


@dataclass(frozen=True)
class ImageStandardization:
    """Each image by itself to mean 0 and standard deviation 1, over all its channels and pixels.

    What is added to a whole image, such as random brightness, has no effect under it. The deviation is taken as at
    least 1 / sqrt(elements), so that a nearly even image is not blown up.

    Example:
        >>> ImageStandardization()(torch.tensor([[[[0, 255]]]], dtype=torch.uint8)).flatten().tolist()
        [-1.0, 1.0]
    """

    def __call__(self, images: UInt8[Tensor, "b c h w"] | Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Map images in grey levels to float32 of the same shape, on their device."""
        deviation, mean = torch.std_mean(images.float(), (1, 2, 3), correction=0, keepdim=True)
        return (images - mean) / deviation.clamp(min=images[0].numel() ** -0.5 if len(images) else 1.0)

    def to_dict(self) -> dict[str, Any]:
        """Say what it is, for JSON."""
        return {"per": "image"}


def normalization_of(split: Split) -> Normalization:
    """Give the per-channel normalization of a training split; see `Normalization.per_channel`."""
    return Normalization.per_channel(split)
