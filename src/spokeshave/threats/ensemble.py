"""Members that answer as one network: mean probability, mean logit, majority vote, or the most confident member.

The combination of parallel MAT (Song, Cheng, Yang, Li, Wu, Wu, Chen, Li: MAT: A Multi-strength Adversarial Training
Method to Mitigate Adversarial Attacks, ISVLSI 2018). The answer is a logarithm of probabilities, so that attacks follow
the gradient of the combined network and not that of its members.
Departs from the paper: its rule of combination could not be read; mean probability is the default, others are options.
"""

import math
from collections.abc import Sequence
from enum import Enum

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from spokeshave.errors import InvalidArgument


class Combine(Enum):
    """How members answer together.

    Attributes:
        PROBABILITY_MEAN: mean of their probabilities.
        LOGIT_MEAN: softmax of their mean logits, the normalized geometric mean of their probabilities.
        VOTE: the class that most members rank first; of classes with as many votes, that of the larger mean
            probability. Its probability is (votes + mean probability) / (members + 1). Votes have no gradient: that of
            the logarithm of the mean probability stands in for it (straight-through).
        CONFIDENCE: the probabilities of the one member that is most certain of its first class, for each image.
    """

    PROBABILITY_MEAN = "probability-mean"
    LOGIT_MEAN = "logit-mean"
    VOTE = "vote"
    CONFIDENCE = "confidence"


def combined(scores: Float[Tensor, "members b classes"], combine: Combine) -> Float[Tensor, "b classes"]:
    """Log-probabilities that members give together.

    Args:
        scores: logits of each member; finite. Half precision is computed with in float32.
        combine: the rule.

    Raises:
        InvalidArgument: where there are no members or fewer than two classes.

    Example:
        >>> sure, unsure = torch.tensor([[0.75, 0.25]]).log(), torch.tensor([[0.25, 0.75]]).log()
        >>> combined(torch.stack([sure, sure, unsure]), Combine.VOTE).exp()  # (2 + 7/12) / 4, (1 + 5/12) / 4
        tensor([[0.6458, 0.3542]])
    """
    if scores.dim() != 3 or not len(scores) or scores.shape[2] < 2:
        raise InvalidArgument(
            f"scores: expected (members, images, classes) with a member and two classes, got {tuple(scores.shape)}"
        )
    members = len(scores)
    if scores.dtype in (torch.float16, torch.bfloat16):
        scores = scores.float()
    if combine is Combine.LOGIT_MEAN:
        return functional.log_softmax((scores / members).sum(0), 1)
    each = functional.log_softmax(scores, 2)
    if combine is Combine.CONFIDENCE:
        surest = each.detach().amax(2).argmax(0)
        return each[surest, torch.arange(each.shape[1], device=each.device)]
    mean = each.logsumexp(0) - math.log(members)
    if combine is Combine.PROBABILITY_MEAN:
        return mean
    votes = functional.one_hot(scores.argmax(2), scores.shape[2]).sum(0)
    # In logarithms: a class without votes and with a vanishing probability must not become minus infinity.
    value = torch.logaddexp(votes.to(mean.dtype).log(), mean.detach()) - math.log(members + 1)
    return value + (mean - mean.detach())


class Ensemble(nn.Module):
    """Members as one classifier, `members.0`, `members.1`, ...

    Args:
        members: give logits of the same classes for the same images.
        combine: the rule.

    Raises:
        InvalidArgument: where there are no members; when called, where their scores differ in shape.

    Example:
        >>> halves = [nn.Linear(1, 2, bias=False), nn.Linear(1, 2, bias=False)]
        >>> for half, weight in zip(halves, (0.0, 3.0), strict=True):
        ...     _ = half.weight.data.copy_(torch.tensor([[weight], [0.0]]))
        >>> Ensemble(halves)(torch.ones(1, 1)).exp()  # (1/2 + e^3 / (e^3 + 1)) / 2
        tensor([[0.7263, 0.2737]], grad_fn=<ExpBackward0>)
    """

    def __init__(self, members: Sequence[nn.Module], combine: Combine = Combine.PROBABILITY_MEAN) -> None:
        super().__init__()
        if not members:
            raise InvalidArgument("members: expected at least one network, got none")
        self.members = nn.ModuleList(members)
        self.combine = combine

    def forward(self, images: Float[Tensor, "b *image"]) -> Float[Tensor, "b classes"]:
        """Log-probabilities of images."""
        scores = [member(images) for member in self.members]
        shapes = {tuple(found.shape) for found in scores}
        if len(shapes) > 1:
            raise InvalidArgument(f"members: expected scores of one shape, got {sorted(shapes)}; do the classes agree?")
        return combined(torch.stack(scores), self.combine)
