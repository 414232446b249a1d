"""GoogLeNet: nine inception modules, 7.0 million parameters; with batch normalization in place of side classifiers.

Szegedy et al.: Going Deeper with Convolutions, CVPR 2015, table 1, as Caffe has it; batch normalization after Ioffe,
Szegedy: Batch Normalization, ICML 2015.
Departs from the paper: every convolution is followed by batch normalization instead of a bias; the side classifiers
and the local response normalization, which helped training without it, are left out.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from spokeshave.models.compact import initialise, require_size

MODULES = {
    "3a": (64, 96, 128, 16, 32, 32), "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64), "4b": (160, 112, 224, 24, 64, 64), "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64), "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128), "5b": (384, 192, 384, 48, 128, 128),
}  # fmt: skip
"""Outputs of: 1x1; 1x1 before 3x3, 3x3; 1x1 before 5x5, 5x5; 1x1 after pooling."""


class Inception(nn.Module):
    """Four branches side by side, their outputs as channels.

    Args:
        channels: of the input.
        one: outputs of the 1x1 convolution.
        before_three: of the one before the 3x3 convolution.
        three: of the 3x3 convolution.
        before_five: of the one before the 5x5 convolution.
        five: of the 5x5 convolution.
        pooled: of the one after pooling.

    Example:
        >>> Inception(192, 64, 96, 128, 16, 32, 32)(torch.zeros(1, 192, 4, 4)).shape
        torch.Size([1, 256, 4, 4])
    """

    def __init__(
        self, channels: int, one: int, before_three: int, three: int, before_five: int, five: int, pooled: int
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [
                convolved(channels, one, 1),
                nn.Sequential(convolved(channels, before_three, 1), convolved(before_three, three, 3)),
                nn.Sequential(convolved(channels, before_five, 1), convolved(before_five, five, 5)),
                nn.Sequential(nn.MaxPool2d(3, 1, 1), convolved(channels, pooled, 1)),
            ]
        )

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b out h w"]:
        """Features of the same height and width."""
        return torch.cat([branch(features) for branch in self.branches], 1)


class GoogLeNet(nn.Module):
    """`stem`, `stages`, dropout and the linear layer `fc`.

    Args:
        classes: number of outputs.
        size: height and width of images: 224, 64 or 32 pixels. Where they are small the stem keeps the resolution.
        channels: of the images.
        dropout: before the linear layer, 0..1.

    Raises:
        InvalidArgument: for another size.

    Example:
        >>> model = GoogLeNet(10, size=32).eval()
        >>> model(torch.zeros(1, 3, 32, 32)).shape, sum(p.numel() for p in GoogLeNet().parameters())
        (torch.Size([1, 10]), 7005832)
    """

    def __init__(self, classes: int = 1000, size: int = 224, channels: int = 3, dropout: float = 0.4) -> None:
        super().__init__()
        require_size(size)
        first = convolved(channels, 64, 7, stride=2) if size == 224 else convolved(channels, 64, 3)
        pool = [] if size == 32 else [nn.MaxPool2d(3, 2, padding=1)]
        self.stem = nn.Sequential(first, *pool, convolved(64, 64, 1), convolved(64, 192, 3))
        layers: list[nn.Module] = []
        current = 192
        for name, widths in MODULES.items():
            layers += [nn.MaxPool2d(3, 2, padding=1)] if name.endswith("a") else []
            layers.append(Inception(current, *widths))
            current = widths[0] + widths[2] + widths[4] + widths[5]
        self.stages = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(current, classes)
        initialise(self)

    def features(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b features"]:
        """What the linear layer is fed, before dropout."""
        return self.stages(self.stem(images)).mean((2, 3))

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b classes"]:
        """Class scores (logits) of a batch of images."""
        return self.fc(self.dropout(self.features(images)))


def convolved(channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """A convolution that keeps the size but for its stride, batch normalization and ReLU."""
    conv = nn.Conv2d(channels, out_channels, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU())
