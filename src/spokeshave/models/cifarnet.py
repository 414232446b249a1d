"""CifarNet: TensorFlow's CIFAR-10 tutorial network, two 5x5 convolutions with normalization across channels.

Table 1 of TernGrad (Wen et al., NIPS 2017), from Krizhevsky's cuda-convnet: conv 64 - pool - norm - conv 64 - norm -
pool - 384 - 192 - 10, for crops of 24 x 24. Norm: x * (1 + alpha / n * sum over n channels of x^2)^-beta, n = 9.
Departs from the paper: nothing known.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class AcrossChannelNorm(nn.Module):
    """Local response normalization over neighbouring channels, as a 1x1 convolution of the squares.

    What `nn.LocalResponseNorm` computes, several times as fast on a CPU, and for training only a power of 3/4: the
    window is a band matrix, so that the sum is one product, and roots are cheaper than powers.

    Args:
        channels: of the features.
        size: channels in a window, odd.
        alpha: weight of the mean square.

    Example:
        >>> AcrossChannelNorm(1, size=1, alpha=15.0)(torch.ones(1, 1, 1, 1)).item()  # 1 / (1 + 15)^(3/4)
        0.125
    """

    band: Tensor
    ones: Tensor

    def __init__(self, channels: int, size: int = 9, alpha: float = 1e-3) -> None:
        super().__init__()
        number = torch.arange(channels)
        near = (number[:, None] - number[None]).abs() <= size // 2
        self.register_buffer("band", (alpha / size * near)[:, :, None, None], persistent=False)
        self.register_buffer("ones", torch.ones(channels), persistent=False)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Normalized features, of the same shape."""
        root = functional.conv2d(features * features, self.band, self.ones).rsqrt()
        return features * (root * root.sqrt())


class CifarNet(nn.Module):
    """CifarNet for colour images of 24 x 24, or any size from 4 (the first linear layer follows it).

    Args:
        classes: number of outputs.
        size: height and width of the images, in pixels.

    Example:
        >>> model = CifarNet()
        >>> model(torch.zeros(2, 3, 24, 24)).shape, sum(parameter.numel() for parameter in model.parameters())
        (torch.Size([2, 10]), 1068298)
    """

    def __init__(self, classes: int = 10, size: int = 24) -> None:
        super().__init__()
        side = -(-size // 4)  # both poolings round up, as TensorFlow's SAME does
        self.conv1 = nn.Conv2d(3, 64, 5, padding=2)
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.norm1 = AcrossChannelNorm(64)
        self.conv2 = nn.Conv2d(64, 64, 5, padding=2)
        self.norm2 = AcrossChannelNorm(64)
        self.pool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.fc3 = nn.Linear(64 * side * side, 384)
        self.fc4 = nn.Linear(384, 192)
        self.fc5 = nn.Linear(192, classes)
        for layer, std, bias in (
            (self.conv1, 0.05, 0.0), (self.conv2, 0.05, 0.1), (self.fc3, 0.04, 0.1), (self.fc4, 0.04, 0.1),
            (self.fc5, 1 / 192, 0.0),
        ):  # fmt: skip
            assert layer.bias is not None
            nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
            nn.init.constant_(layer.bias, bias)

    def forward(self, images: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch classes"]:
        """Class scores (logits) of a batch of images."""
        features = self.norm1(self.pool1(torch.relu(self.conv1(images))))
        features = self.pool2(self.norm2(torch.relu(self.conv2(features))))
        features = torch.relu(self.fc4(torch.relu(self.fc3(torch.flatten(features, 1)))))
        return self.fc5(features)
