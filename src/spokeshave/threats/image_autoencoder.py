"""Auto-encoders that a poison generator starts from: they give back the image they are shown, as logits of its pixels.

Yang, Wu, Li, Chen: Generative Poisoning Attack Method Against Neural Networks, arXiv:1703.01340, 2017; by the authors'
code 784-200-200-784 with ReLU and a sigmoid at the end for MNIST, trained as an auto-encoder first.
Departs from the paper: the last sigmoid is left to the generator, which keeps to a budget by it; for colour images a
small convolutional network stands for theirs of 22 million weights; the loss, not known, is binary cross entropy.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from spokeshave.errors import InvalidArgument
from spokeshave.threats.attackable import require_images


class DenseAutoencoder(nn.Module):
    """Image - hidden - hidden - image, fully connected.

    Args:
        image_shape: of one image.
        hidden: units of both hidden layers.

    Example:
        >>> network = DenseAutoencoder((784,))
        >>> sum(p.numel() for p in network.parameters())  # the paper's generator
        354784
        >>> network(torch.zeros(3, 784)).shape
        torch.Size([3, 784])
    """

    def __init__(self, image_shape: tuple[int, ...], hidden: int = 200) -> None:
        super().__init__()
        pixels = math.prod(image_shape)
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(pixels, hidden), nn.ReLU(), nn.Linear(hidden, hidden))
        self.decoder = nn.Sequential(nn.ReLU(), nn.Linear(hidden, pixels), nn.Unflatten(1, image_shape))

    def forward(self, images: Float[Tensor, "b *image"]) -> Float[Tensor, "b *image"]:
        """Logits of the pixels."""
        return self.decoder(self.encoder(images))


class ConvAutoencoder(nn.Module):
    """Two strided convolutions down, two transposed ones up.

    Args:
        channels: of an image; its height and width are multiples of 4.
        width: channels after the first convolution.

    Example:
        >>> ConvAutoencoder(3)(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 3, 32, 32])
    """

    def __init__(self, channels: int = 3, width: int = 32) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, width, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
            nn.ReLU(),
        )
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(width, channels, 4, stride=2, padding=1),
        )

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Logits of the pixels.

        Raises:
            InvalidArgument: for a height or width that is no multiple of 4.
        """
        if images.shape[-1] % 4 or images.shape[-2] % 4:
            raise InvalidArgument(
                f"ConvAutoencoder: expected height and width in multiples of 4, got {tuple(images.shape)}; pad the "
                "images, or take DenseAutoencoder"
            )
        return self.decoder(self.encoder(images))


def pretrain(
    network: nn.Module,
    images: Float[Tensor, "n *image"],
    steps: int = 500,
    batch_size: int = 128,
    lr: float = 2e-3,
    seed: int = 0,
) -> tuple[float, ...]:
    """Train a network to give back the images it is shown, by Adam.

    Args:
        network: gives logits of pixels.
        images: in 0..1.
        steps: of training.
        batch_size: images a step.
        lr: learning rate at the start; it falls to 0 by a cosine.
        seed: of the order of the images.

    Returns:
        Binary cross entropy a pixel at each step, in nats.

    Raises:
        InvalidArgument: for images outside 0..1.

    Example:
        >>> losses = pretrain(DenseAutoencoder((4,), hidden=8), torch.eye(4), steps=200, lr=0.02)
        >>> losses[-1] < 0.5 * losses[0]
        True
    """
    require_images(images, "images")
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    losses = []
    for _ in range(steps):
        chosen = torch.randint(len(images), (min(batch_size, len(images)),), generator=generator)
        batch = images[chosen]
        loss = functional.binary_cross_entropy_with_logits(network(batch), batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.detach())
    optimizer.zero_grad()
    return tuple(torch.stack(losses).tolist())
