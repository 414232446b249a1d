"""What a classifier scores on a split: every image once, without augmentation."""

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from spokeshave.data import Batches
from spokeshave.divergence import first_non_finite
from spokeshave.errors import TrainingDiverged


@dataclass(frozen=True)
class Evaluation:
    """What a model scores on a split.

    Attributes:
        accuracy: share of images whose highest score is their label, 0..1.
        loss: mean cross entropy, in nats.
        images: number of images.
    """

    accuracy: float
    loss: float
    images: int


@torch.no_grad()
def evaluate(model: nn.Module, batches: Batches) -> Evaluation:
    """Score a classifier on every image of a split, once, without augmentation.

    Args:
        model: left in the mode (train or eval) it was in.
        batches: their device must be the model's.

    Raises:
        TrainingDiverged: where the scores are not finite.
    """
    training = model.training
    model.eval()
    correct, loss, images = 0, 0.0, 0
    inputs = torch.zeros(0)
    try:
        for inputs, labels in batches:
            scores = model(inputs).float()
            correct += int((scores.argmax(1) == labels).sum())
            loss += float(functional.cross_entropy(scores, labels, reduction="sum"))
            images += len(labels)
    finally:
        model.train(training)
    if not math.isfinite(loss):
        raise TrainingDiverged(f"evaluation gave a loss of {loss}: {first_non_finite(model, inputs)} is not finite")
    return Evaluation(correct / images, loss / images, images)
