"""The compact network of Conv-M modules: 4.1 million parameters, 6.7 % of AlexNet's, 58 % of GoogLeNet's.

Wu, Wen, Afzal, Zhang, Chen, Li: A Compact DNN: Approaching GoogLeNet-Level Accuracy of Classification and Domain
Adaptation, CVPR 2017. One convolution, six Conv-M modules in four stages with pooling between them, the mean over
pixels, one linear layer.
Departs from the paper: its table of layers could not be read; widths are chosen here to meet its number of parameters.
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from spokeshave.errors import InvalidArgument
from spokeshave.models.conv_m import CONV_M, Branch, ConvM

STAGES = ((32, 64, 1), (72, 120, 2), (128, 160, 2), (192, 208, 1))
"""Channels after the 1x1 convolutions, outputs of a branch, modules; of each stage. Few wide modules learn faster in
short trainings than many narrow ones of as many parameters."""
SIZES = (32, 64, 224)


class CompactNet(nn.Module):
    """`stem`, `stages`, dropout and the linear layer `fc`.

    Args:
        classes: number of outputs.
        size: height and width of images: 224, 64 or 32 pixels. Where they are small the stem keeps the resolution.
        branches: kinds of branches of every module.
        channels: of the images.
        dropout: before the linear layer, 0..1.
        stages: (reduced, width, modules) of each stage.

    Raises:
        InvalidArgument: for another size.

    Example:
        >>> import torch
        >>> model = CompactNet(10, size=32).eval()
        >>> model(torch.zeros(1, 3, 32, 32)).shape, sum(p.numel() for p in CompactNet().parameters())
        (torch.Size([1, 10]), 4073736)
    """

    def __init__(
        self,
        classes: int = 1000,
        size: int = 224,
        branches: Sequence[Branch] = CONV_M,
        channels: int = 3,
        dropout: float = 0.5,
        stages: Sequence[tuple[int, int, int]] = STAGES,
    ) -> None:
        super().__init__()
        require_size(size)
        stem = (
            nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
            if size == 224
            else nn.Conv2d(channels, 64, 3, 1, 1, bias=False)
        )
        self.stem = nn.Sequential(stem, nn.BatchNorm2d(64), nn.ReLU())
        layers: list[nn.Module] = [] if size == 32 else [_pool()]
        current = 64
        for number, (reduced, width, modules) in enumerate(stages):
            layers += [_pool()] if number else []
            for _ in range(modules):
                layers.append(ConvM(current, reduced, width, branches))
                current = len(branches) * width
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


def require_size(size: int) -> None:
    """Refuse a size of images that the networks have no stem for.

    Raises:
        InvalidArgument: saying which they have.
    """
    if size not in SIZES:
        raise InvalidArgument(f"size: expected one of {', '.join(map(str, SIZES))} pixels, got {size}; resize images")


def initialise(network: nn.Module) -> None:
    """He's normal weights for convolutions, by their outputs; small ones for linear layers; no biases."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
        bias = getattr(module, "bias", None)
        if isinstance(bias, Tensor):
            nn.init.zeros_(bias)


def _pool() -> nn.MaxPool2d:
    return nn.MaxPool2d(3, 2, padding=1)
