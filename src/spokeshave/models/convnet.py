"""ConvNet: Caffe's cifar10_full, three 5x5 convolutions with pooling and within-channel normalization.

Krizhevsky's cuda-convnet 18 % network in the form of Caffe's examples/cifar10; Table 3 of SSL (Wen et al., NIPS 2016).
Within-channel normalization: x * (1 + alpha * mean over 3x3 of x^2)^-beta, alpha = 5e-5 on a 0..255 scale.
Departs from the paper: the initial weights are He's instead of Gaussians of 1e-4 and 1e-2, which need Caffe's long
first stage; `activation_scale` says on which scale the inputs come (the paper: 0..255 less the mean).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class WithinChannelNorm(nn.Module):
    """Local response normalization over a 3x3 window of each channel by itself (Caffe's WITHIN_CHANNEL).

    Args:
        size: side of the window, in pixels.
        alpha: weight of the mean square.
        beta: exponent.

    Example:
        >>> WithinChannelNorm(alpha=9.0, beta=1.0)(torch.ones(1, 1, 1, 1)).item()  # 1 / (1 + 9 * 1/9)
        0.5
    """

    def __init__(self, size: int = 3, alpha: float = 5e-5, beta: float = 0.75) -> None:
        super().__init__()
        self.size, self.alpha, self.beta = size, alpha, beta

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Normalized features, of the same shape."""
        mean_square = functional.avg_pool2d(features * features, self.size, stride=1, padding=self.size // 2)
        return features * (1 + self.alpha * mean_square) ** -self.beta


class ConvNet(nn.Module):
    """The ConvNet of SSL's Table 3, for 32 x 32 colour images.

    Args:
        classes: number of outputs.
        dropout: probability before the classifier, 0..1 (the authors use 0.5 while training under SSL, else none).
        activation_scale: grey levels that one unit of the input stands for, so that the normalization's alpha keeps
            its meaning: 1 for inputs of 0..255, about 63 for inputs of unit variance.

    Example:
        >>> ConvNet()(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    def __init__(self, classes: int = 10, dropout: float = 0.0, activation_scale: float = 1.0) -> None:
        super().__init__()
        alpha = 5e-5 * activation_scale**2
        self.conv1 = nn.Conv2d(3, 32, 5, padding=2)
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.norm1 = WithinChannelNorm(alpha=alpha)
        self.conv2 = nn.Conv2d(32, 32, 5, padding=2)
        self.pool2 = nn.AvgPool2d(3, 2, ceil_mode=True)
        self.norm2 = WithinChannelNorm(alpha=alpha)
        self.conv3 = nn.Conv2d(32, 64, 5, padding=2)
        self.pool3 = nn.AvgPool2d(3, 2, ceil_mode=True)
        self.dropout = nn.Dropout(dropout)
        self.ip1 = nn.Linear(64 * 4 * 4, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, images: Float[Tensor, "batch 3 32 32"]) -> Float[Tensor, "batch classes"]:
        """Class scores (logits) of a batch of images."""
        features = self.norm1(torch.relu(self.pool1(self.conv1(images))))
        features = self.norm2(self.pool2(torch.relu(self.conv2(features))))
        features = self.pool3(torch.relu(self.conv3(features)))
        return self.ip1(self.dropout(torch.flatten(features, 1)))
