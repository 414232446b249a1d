"""ResNet-(6n+2) for 32 x 32 images: three stages of n two-convolution blocks, widths 16, 32, 64.

He et al., CVPR 2016, section 4.2, in the form that the SSL authors train: conv1 with bias, and 1x1 stride-2 projection
shortcuts without batch normalization at the start of stages 2 and 3 (He's option B instead of A).
Departs from the paper: batch normalization scales start at 1 (the authors' prototxt fills them by "msra").
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from spokeshave.errors import InvalidArgument


class ResidualBlock(nn.Module):
    """conv 3x3 - BN - ReLU - conv 3x3 - BN, plus the shortcut, ReLU.

    Args:
        inputs: channels in.
        outputs: channels out.
        stride: of the first convolution; 2 brings a projection shortcut.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        changes = stride != 1 or inputs != outputs
        self.downsampling = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if changes else nn.Identity()

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        """Features after the block."""
        branch = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(features)))))
        return torch.relu(branch + self.downsampling(features))


class ResNetCifar(nn.Module):
    """ResNet-(6n+2).

    Args:
        depth: 6n + 2 for a whole n of at least 1: 20, 32, 44, 56, 110.
        classes: number of outputs.
        widths: channels of the three stages.

    Raises:
        InvalidArgument: for a depth that is not 6n + 2.

    Example:
        >>> sum(p.numel() for p in ResNetCifar(20).parameters())
        272298
    """

    def __init__(self, depth: int = 20, classes: int = 10, widths: tuple[int, int, int] = (16, 32, 64)) -> None:
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise InvalidArgument(f"depth must be 6n + 2 (8, 14, 20, 32, 56, 110), got {depth}")
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, widths[0], 3, padding=1)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.group1 = _stage(widths[0], widths[0], 1, blocks)
        self.group2 = _stage(widths[0], widths[1], 2, blocks)
        self.group3 = _stage(widths[1], widths[2], 2, blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.ip1 = nn.Linear(widths[2], classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, images: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch classes"]:
        """Class scores (logits) of a batch of images."""
        features = torch.relu(self.bn1(self.conv1(images)))
        features = self.group3(self.group2(self.group1(features)))
        return self.ip1(torch.flatten(self.pool(features), 1))


def _stage(inputs: int, outputs: int, stride: int, blocks: int) -> nn.Sequential:
    first = ResidualBlock(inputs, outputs, stride)
    return nn.Sequential(first, *(ResidualBlock(outputs, outputs) for _ in range(blocks - 1)))
