"""AlexNet in Caffe's two forms: CaffeNet (pooling before normalization), BVLC AlexNet (normalization before pooling).

Krizhevsky et al., NIPS 2012. SSL's "AlexNet" (Table 4) and the authors' published sparse weights are CaffeNet's; force
regularization uses BVLC AlexNet. Five convolutions: 96@11x11/4, 256@5x5 (2 groups), 384@3x3, 384@3x3 (2), 256@3x3 (2).
Departs from the paper: nothing known; a form for images of 64 pixels pads conv1, has a smaller fc6, and starts
from He's normal weights.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from spokeshave.errors import InvalidArgument


class AlexNet(nn.Module):
    """AlexNet for colour images.

    Args:
        classes: number of outputs.
        norm_before_pool: false for CaffeNet, true for BVLC AlexNet.
        size: height and width of images: 227, or 64, where conv1 is padded by 5 and fc6 is fed 2 x 2 pixels.
        dropout: after fc6 and fc7, 0..1.

    Raises:
        InvalidArgument: for another size.

    Example:
        >>> [tuple(AlexNet(10).get_submodule(f"conv{i}").weight.shape) for i in (2, 4)]
        [(256, 48, 5, 5), (384, 192, 3, 3)]
    """

    def __init__(
        self, classes: int = 1000, norm_before_pool: bool = False, size: int = 227, dropout: float = 0.5
    ) -> None:
        super().__init__()
        if size not in (64, 227):
            raise InvalidArgument(f"size: AlexNet expected 64 or 227 pixels, got {size}; resize images")
        self.norm_before_pool = norm_before_pool
        self.conv1 = nn.Conv2d(3, 96, 11, stride=4, padding=0 if size == 227 else 5)
        self.conv2 = nn.Conv2d(96, 256, 5, padding=2, groups=2)
        self.conv3 = nn.Conv2d(256, 384, 3, padding=1)
        self.conv4 = nn.Conv2d(384, 384, 3, padding=1, groups=2)
        self.conv5 = nn.Conv2d(384, 256, 3, padding=1, groups=2)
        self.norm1 = nn.LocalResponseNorm(5, 1e-4, 0.75, 1.0)
        self.norm2 = nn.LocalResponseNorm(5, 1e-4, 0.75, 1.0)
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.fc6 = nn.Linear(256 * (6 if size == 227 else 2) ** 2, 4096)
        self.drop6 = nn.Dropout(dropout)
        self.fc7 = nn.Linear(4096, 4096)
        self.drop7 = nn.Dropout(dropout)
        self.fc8 = nn.Linear(4096, classes)
        self._initialise(he=size == 64)

    def forward(self, images: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch classes"]:
        """Class scores (logits) of a batch of images."""
        features = self._pool_and_norm(torch.relu(self.conv1(images)), self.norm1)
        features = self._pool_and_norm(torch.relu(self.conv2(features)), self.norm2)
        features = torch.relu(self.conv4(torch.relu(self.conv3(features))))
        features = self.pool(torch.relu(self.conv5(features)))
        features = self.drop6(torch.relu(self.fc6(torch.flatten(features, 1))))
        return self.fc8(self.drop7(torch.relu(self.fc7(features))))

    def _pool_and_norm(self, features: Tensor, norm: nn.Module) -> Tensor:
        if self.norm_before_pool:
            return self.pool(norm(features))
        return norm(self.pool(features))

    def _initialise(self, he: bool) -> None:
        """As Caffe, or He's normal weights without biases: from Caffe's small images are not learned."""
        ones = {"conv2", "conv4", "conv5", "fc6", "fc7"}
        for name, module in self.named_children():
            if not isinstance(module, (nn.Conv2d, nn.Linear)):
                continue
            assert module.bias is not None
            if he and name != "fc8":
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            else:
                nn.init.normal_(module.weight, std=0.005 if name in {"fc6", "fc7"} else 0.01)
            one = 0.1 if self.norm_before_pool else 1.0
            nn.init.constant_(module.bias, one if name in ones and not he else 0.0)
