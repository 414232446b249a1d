"""Networks and images that attacks are tried on."""

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from spokeshave.data import DatasetName, load


@cache
def digits() -> tuple[Tensor, Tensor]:
    """A hundred test digits of 10x10, 0..1, and their classes."""
    return _small(load(DatasetName.DIGITS).test.subset(range(100)))


@cache
def digits_network() -> nn.Sequential:
    """A network of two layers that knows nine digits of ten; not to be changed."""
    torch.manual_seed(0)
    images, labels = _small(load(DatasetName.DIGITS).train)
    model = nn.Sequential(nn.Flatten(), nn.Linear(100, 24), nn.ReLU(), nn.Linear(24, 10))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(80):
        optimizer.zero_grad()
        functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    model.zero_grad()
    return model.eval()


def mixed_network(classes: int = 5) -> nn.Sequential:
    """For images of 1x6x6: batch normalization, dropout, modules in both modes, a frozen weight, gradients kept."""
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3),
        nn.BatchNorm2d(3),
        nn.Tanh(),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(48, classes),
    )
    model.train()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    model[5].weight.grad = torch.full_like(model[5].weight, 3.0)
    return model


def small_images(count: int = 6, classes: int = 5) -> tuple[Tensor, Tensor]:
    """Random images of 1x6x6, some pixels at the ends of the range, and classes."""
    generator = torch.Generator().manual_seed(2)
    images = (torch.rand(count, 1, 6, 6, generator=generator) * 1.5 - 0.25).clamp(0, 1)
    return images, torch.arange(count) % classes


def _small(split) -> tuple[Tensor, Tensor]:
    return functional.adaptive_avg_pool2d(split.images.float() / 255, 10), split.labels
