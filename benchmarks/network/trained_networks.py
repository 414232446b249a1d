"""The networks that are trained over a shaped network: few operations for their gradients, as two cores must run eight.

Random images and labels: how long a step takes and what it sends does not depend on them.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from spokeshave.models import MLP, LeNet


class AlexNetLike(nn.Module):
    """AlexNet's proportions for 32 x 32 images: few convolutions, 92 % of 5.7 million parameters in linear layers.

    Example:
        >>> AlexNetLike()(torch.zeros(2, 3, 32, 32)).shape, sum(weight.numel() for weight in AlexNetLike().parameters())
        (torch.Size([2, 10]), 5722922)
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 32, 5, stride=2, padding=2), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 96, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(96, 192, 3, padding=1), nn.ReLU(),
            nn.Conv2d(192, 128, 3, padding=1), nn.ReLU(), nn.Flatten(),
            nn.Linear(128 * 4 * 4, 2048), nn.ReLU(), nn.Linear(2048, 512), nn.ReLU(), nn.Linear(512, 10),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        """Class scores (logits)."""
        return self.layers(images)


def _wide_mlp() -> nn.Module:
    return MLP((784, 1000, 1000, 10))


def _wider_mlp() -> nn.Module:
    return MLP((784, 2000, 2000, 10))


NETWORKS: Mapping[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (_wide_mlp, (784,)),
    "mlp-large": (_wider_mlp, (784,)),
    "lenet": (LeNet, (1, 28, 28)),
    "alexnet-like": (AlexNetLike, (3, 32, 32)),
    "tiny": (lambda: MLP((784, 400, 10)), (784,)),
}
"""Name -> what makes it, the shape of an image. tiny is for a quick look."""


def network_and_images(name: str, batch: int, seed: int, rank: int) -> tuple[nn.Module, Tensor, Tensor]:
    """A network, the same on every rank, and a batch of images and labels of this rank's own.

    Args:
        name: of NETWORKS.
        batch: images.
        seed: of weights and images.
        rank: of the process.
    """
    build, shape = NETWORKS[name]
    torch.manual_seed(seed)
    network = build()
    generator = torch.Generator().manual_seed(1000 * seed + rank)
    images = torch.randn(batch, *shape, generator=generator)
    return network, images, torch.randint(10, (batch,), generator=generator)
