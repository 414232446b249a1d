"""Adapting on fixed features: a small head learns from labelled rows of one domain and rows of another.

The same objective as for images; without a network before it there is nothing else to train.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from spokeshave.adaptation.adaptation_objective import Adaptation, Terms
from spokeshave.adaptation.adapting_network import AdaptingNetwork, Statistics
from spokeshave.errors import InvalidArgument
from spokeshave.tensor_digest import digest


@dataclass(frozen=True)
class HeadTraining:
    """How the head is trained.

    Attributes:
        steps: of Adam.
        learning_rate: at the start; falls to 0 along a cosine.
        weight_decay: of all weights.
        batch_size: rows of each domain a step.
        hidden: neurons of its one hidden layer, whose outputs are aligned.
        dropout: of the input and of these, 0..1.
    """

    steps: int = 600
    learning_rate: float = 1e-3
    weight_decay: float = 1e-3
    batch_size: int = 128
    hidden: int = 256
    dropout: float = 0.3


class _Rows:
    """Rows drawn anew at each epoch: what an objective asks of batches."""

    def __init__(self, rows: Tensor, batch_size: int, seed: int) -> None:
        self.rows, self.batch_size, self.seed = rows, min(batch_size, len(rows)), seed

    def __len__(self) -> int:
        return len(self.rows) // self.batch_size

    def places(self, epoch: int, index: int) -> Tensor:
        order = torch.randperm(len(self.rows), generator=torch.Generator().manual_seed(1_000_003 * self.seed + epoch))
        return order[index * self.batch_size : (index + 1) * self.batch_size]

    def digest(self) -> str:
        return digest({"rows": self.rows})

    def batch(self, epoch: int, index: int) -> tuple[Tensor, Tensor]:
        chosen = self.places(epoch, index)
        return self.rows[chosen], torch.zeros(len(chosen), dtype=torch.int64)


def adapt_features(
    source: Float[Tensor, "n features"],
    labels: Int64[Tensor, " n"],
    target: Float[Tensor, "m features"],
    terms: Terms | None = None,
    training: HeadTraining = HeadTraining(),
    seed: int = 0,
) -> Float[Tensor, "m classes"]:
    """Train a head, and give its answers to the target's rows.

    Args:
        source: labelled rows, standardized.
        labels: of these, from 0, of at least two classes.
        target: rows of the other domain, standardized.
        terms: what draws the domains together; None for the default ones.
        training: of the head.
        seed: of weights and batches.

    Returns:
        Logits, of the last iterate.

    Raises:
        InvalidArgument: for rows of different width, fewer than two of the target, or one class only.
    """
    if source.shape[1] != target.shape[1] or len(target) < 2 or len(torch.unique(labels)) < 2:
        raise InvalidArgument(
            "expected rows of one width, two or more of the target and labels of two or more classes, got "
            f"{tuple(source.shape)}, {tuple(target.shape)} and {len(torch.unique(labels))} classes"
        )
    torch.manual_seed(seed)
    head = nn.Sequential(
        nn.Dropout(training.dropout), nn.Linear(source.shape[1], training.hidden), nn.ReLU(),
        nn.Dropout(training.dropout), nn.Linear(training.hidden, int(labels.max()) + 1),
    )  # fmt: skip
    adapting = AdaptingNetwork(head, source[:2], "4", statistics=Statistics.EACH)
    drawn = _Rows(source, training.batch_size, seed)
    objective = Adaptation(_Rows(target, training.batch_size, seed + 1), terms)
    rate, decay = training.learning_rate, training.weight_decay
    optimizer = torch.optim.AdamW(adapting.parameters(), lr=rate, weight_decay=decay)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, training.steps)
    adapting.train()
    for step in range(training.steps):
        chosen = drawn.places(*divmod(step, len(drawn)))
        optimizer.zero_grad()
        objective.loss(adapting, step, training.steps, source[chosen], labels[chosen]).backward()
        optimizer.step()
        falling.step()
    with torch.no_grad():
        return head.eval()(target)
