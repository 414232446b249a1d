"""Small networks and digits that the tests of poisoning share."""

import functools

import torch
from torch import nn

from spokeshave.data import load

Batch = tuple[torch.Tensor, torch.Tensor]


@functools.cache
def digits() -> tuple[Batch, Batch]:
    """Digits at 8 x 8 in 0..1: (training, test)."""
    splits = load("digits")

    def as_batch(split) -> Batch:
        return nn.functional.adaptive_avg_pool2d(split.images / 255, 8).flatten(1), split.labels

    return as_batch(splits.train), as_batch(splits.test)


@functools.cache
def trained(seed: int = 0) -> nn.Sequential:
    """A network of 64-32-10 units, trained on digits; not to be written to."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    (images, labels), _ = digits()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(30):
        for chosen in torch.randperm(len(labels)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[chosen]), labels[chosen]).backward()
            optimizer.step()
    optimizer.zero_grad()
    return model.eval()


def smooth(seed: int = 0) -> nn.Sequential:
    """A network without kinks, in double precision, with batch norm, dropout, a convolution and a frozen layer."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3),
        nn.BatchNorm2d(3),
        nn.Tanh(),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(12, 5),
        nn.Tanh(),
        nn.Linear(5, 5),
        nn.Tanh(),
        nn.Linear(5, 3),
    ).double()
    model[7].requires_grad_(False)
    model[1].running_var.uniform_(0.5, 2)
    return model


def pictures(count: int, seed: int = 0) -> Batch:
    """Random images of 1 x 4 x 4 in double precision, three classes."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, 1, 4, 4, generator=generator, dtype=torch.float64)
    return images, torch.randint(3, (count,), generator=generator)
