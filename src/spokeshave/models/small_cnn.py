"""SmallCNN: two strided convolutions and two linear layers, the small network that robust training is compared on.

Wong, Kolter: Provable defenses against adversarial examples via the convex outer adversarial polytope, ICML 2018, also
the MNIST network of Fast is better than free (ICLR 2020): conv 16 4x4/2 - conv 32 4x4/2 - 100 - 10. It takes images in
0..1 and normalizes them itself, as attacks expect.
Departs from the paper: width, batch normalization and the normalization of images are options.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class SmallCNN(nn.Module):
    """Convolutions `conv1`, `conv2` and linear layers `fc3`, `fc4`.

    Args:
        channels: of the images.
        size: their height and width in pixels, a multiple of 4.
        width: filters of the first convolution; the second has twice as many.
        hidden: neurons of the first linear layer.
        classes: number of outputs.
        batch_norm: normalize after each convolution.
        mean: of each channel of the images; subtracted.
        std: of each channel; divided by.

    Example:
        >>> model = SmallCNN()
        >>> model(torch.zeros(2, 1, 28, 28)).shape, sum(parameter.numel() for parameter in model.parameters())
        (torch.Size([2, 10]), 166406)
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        channels: int = 1,
        size: int = 28,
        width: int = 16,
        hidden: int = 100,
        classes: int = 10,
        batch_norm: bool = False,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))
        self.grey = channels == 1
        self.conv1 = nn.Conv2d(channels, width, 4, stride=2, padding=1, bias=not batch_norm)
        self.norm1 = nn.BatchNorm2d(width) if batch_norm else nn.Identity()
        self.conv2 = nn.Conv2d(width, 2 * width, 4, stride=2, padding=1, bias=not batch_norm)
        self.norm2 = nn.BatchNorm2d(2 * width) if batch_norm else nn.Identity()
        self.fc3 = nn.Linear(2 * width * (size // 4) ** 2, hidden)
        self.fc4 = nn.Linear(hidden, classes)

    def forward(self, images: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch classes"]:
        """Class scores (logits) of images in 0..1."""
        images = (images - self.mean) / self.std
        convolved = folded_convolution(images, self.conv1) if self.grey else self.conv1(images)
        features = torch.relu(self.norm1(convolved))
        features = torch.relu(self.norm2(self.conv2(features)))
        return self.fc4(torch.relu(self.fc3(torch.flatten(features, 1))))


def folded_convolution(images: Float[Tensor, "b c h w"], layer: nn.Conv2d) -> Float[Tensor, "b out h2 w2"]:
    """A 4x4 convolution of stride 2 and padding 1 as one of 2x2 and stride 1, on blocks of 2x2 pixels as channels.

    The same sums. On a CPU the gradient of a single channel, which attacks need at every step, takes half the time.

    Args:
        images: of even height and width.
        layer: the convolution.
    """
    out, channels = layer.weight.shape[:2]
    weight = layer.weight.view(out, channels, 2, 2, 2, 2).permute(0, 1, 3, 5, 2, 4).reshape(out, 4 * channels, 2, 2)
    return functional.conv2d(functional.pixel_unshuffle(functional.pad(images, (1, 1, 1, 1)), 2), weight, layer.bias)
