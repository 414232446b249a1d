"""SqueezeNet 1.1: eight fire modules, 1.24 million parameters.

Iandola et al.: SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and <0.5MB model size, arXiv 2016, in the
form 1.1 of its repository.
Departs from the paper: batch normalization is an option; convolutions then have no bias.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from spokeshave.models.compact import initialise, require_size

FIRES = ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))
"""Outputs of the squeezing 1x1 convolution and of each of the two expanding ones."""


class Fire(nn.Module):
    """A 1x1 convolution to few channels, then one of 1x1 and one of 3x3 side by side.

    Args:
        channels: of the input.
        squeezed: outputs of the first convolution.
        expanded: outputs of each of the other two.
        batch_norm: normalize after each convolution.

    Example:
        >>> Fire(64, 16, 64)(torch.zeros(1, 64, 4, 4)).shape
        torch.Size([1, 128, 4, 4])
    """

    def __init__(self, channels: int, squeezed: int, expanded: int, batch_norm: bool = False) -> None:
        super().__init__()
        self.squeeze = _convolved(channels, squeezed, 1, batch_norm)
        self.expand1 = _convolved(squeezed, expanded, 1, batch_norm)
        self.expand3 = _convolved(squeezed, expanded, 3, batch_norm)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b out h w"]:
        """Features of the same height and width."""
        squeezed = self.squeeze(features)
        return torch.cat([self.expand1(squeezed), self.expand3(squeezed)], 1)


class SqueezeNet(nn.Module):
    """`stem`, `fires`, dropout and the 1x1 convolution `fc`, whose mean over pixels are the scores.

    Args:
        classes: number of outputs.
        size: height and width of images: 224, 64 or 32 pixels. Where they are small the stem keeps the resolution.
        channels: of the images.
        dropout: before the last convolution, 0..1.
        batch_norm: normalize after each convolution but the last.

    Raises:
        InvalidArgument: for another size.

    Example:
        >>> model = SqueezeNet(10, size=32).eval()
        >>> model(torch.zeros(1, 3, 32, 32)).shape, sum(p.numel() for p in SqueezeNet().parameters())
        (torch.Size([1, 10]), 1235496)
    """

    def __init__(
        self, classes: int = 1000, size: int = 224, channels: int = 3, dropout: float = 0.5, batch_norm: bool = False
    ) -> None:
        super().__init__()
        require_size(size)
        pool = [] if size == 32 else [nn.MaxPool2d(3, 2, ceil_mode=True)]
        self.stem = nn.Sequential(_convolved(channels, 64, 3, batch_norm, 2 if size == 224 else 1), *pool)
        layers: list[nn.Module] = []
        current = 64
        for number, (squeezed, expanded) in enumerate(FIRES):
            layers += [nn.MaxPool2d(3, 2, ceil_mode=True)] if number in (2, 4) else []
            layers.append(Fire(current, squeezed, expanded, batch_norm))
            current = 2 * expanded
        self.fires = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Conv2d(current, classes, 1)
        initialise(self)

    def features(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b features"]:
        """Means over pixels of what the last convolution is fed, before dropout."""
        return self.fires(self.stem(images)).mean((2, 3))

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b classes"]:
        """Class scores (logits) of a batch of images."""
        return torch.relu(self.fc(self.dropout(self.fires(self.stem(images))))).mean((2, 3))


def _convolved(channels: int, out_channels: int, kernel: int, batch_norm: bool, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(channels, out_channels, kernel, stride, kernel // 2, bias=not batch_norm)
    norm = [nn.BatchNorm2d(out_channels)] if batch_norm else []
    return nn.Sequential(conv, *norm, nn.ReLU())
