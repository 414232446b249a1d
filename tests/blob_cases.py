"""A small classifier of two kinds of points, clean images of them, and poison of several kinds."""

import torch
from torch import Tensor, nn


def two_blobs(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images 1x2x2 around 0.3 (class 0) and 0.7 (class 1)."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    noise = 0.04 * torch.randn(count, 1, 2, 2, generator=generator)
    return 0.3 + 0.4 * labels.float()[:, None, None, None] + noise, labels


def judge_of_blobs() -> nn.Sequential:
    """Logits -10, 10 by the side of 0.5; with batch normalization and dropout, which must not move."""
    model = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Dropout(0.5), nn.Linear(3, 2))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model[0].weight.fill_(1.0)
        model[2].weight[0], model[2].weight[1] = 1.0, -1.0
        model[2].bias[0], model[2].bias[1], model[2].bias[2] = -2.0, 2.0, 1.0
        model[5].weight.copy_(torch.tensor([[-6.0, 6.0, 0.0], [6.0, -6.0, 0.0]]))
    return model
