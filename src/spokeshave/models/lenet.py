"""LeNet as Caffe trains it on MNIST: conv 20@5x5 - pool - conv 50@5x5 - pool - 500 - ReLU - 10.

LeCun et al., Proceedings of the IEEE 1998, in the form of Caffe's examples/mnist, without ReLU after convolutions:
Tables 1 and 2 of the SSL paper use it.
Departs from the paper: nothing known.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class LeNet(nn.Module):
    """LeNet for 28 x 28 images.

    Args:
        classes: number of outputs.
        in_channels: channels of an image.

    Example:
        >>> LeNet()(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """

    def __init__(self, classes: int = 10, in_channels: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 20, 5)
        self.pool1 = nn.MaxPool2d(2, ceil_mode=True)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.pool2 = nn.MaxPool2d(2, ceil_mode=True)
        self.ip1 = nn.Linear(50 * 4 * 4, 500)
        self.ip2 = nn.Linear(500, classes)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.xavier_uniform_(module.weight)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, images: Float[Tensor, "batch channels 28 28"]) -> Float[Tensor, "batch classes"]:
        """Class scores (logits) of a batch of images."""
        features = self.pool2(self.conv2(self.pool1(self.conv1(images))))
        return self.ip2(torch.relu(self.ip1(torch.flatten(features, 1))))
