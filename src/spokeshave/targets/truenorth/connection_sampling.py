"""Connection sampling: from learned probabilities to crosspoints that are on or off.

Wen et al., DAC 2016, section 2: a copy has P(w' = c) = p and P(w' = 0) = 1 - p at every crosspoint, so that w' is p c
on average and varies by c^2 p (1 - p).
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from spokeshave.errors import InvalidArgument


def sample_connections(
    probability: Float[Tensor, "*crosspoints"], copies: int, generator: torch.Generator
) -> Bool[Tensor, "copies *crosspoints"]:
    """Draw the crosspoints of some copies, each by itself.

    Args:
        probability: that a crosspoint is on, 0..1; at 0 and 1 nothing is left to chance.
        copies: at least 1.
        generator: of the draws, on a CPU.

    Raises:
        InvalidArgument: for a value that is no probability.

    Example:
        >>> sample_connections(torch.tensor([0.0, 1.0]), 2, torch.Generator()).tolist()
        [[False, True], [False, True]]
    """
    values = probability.detach().cpu()
    if not bool(((values >= 0) & (values <= 1)).all()) or copies < 1:
        raise InvalidArgument(
            f"expected at least one copy and probabilities of 0..1, got {copies} and "
            f"{float(values.min())}..{float(values.max())}"
        )
    return torch.rand(copies, *values.shape, generator=generator) < values


def synaptic_variance(probability: Float[Tensor, "*crosspoints"]) -> Float[Tensor, "*crosspoints"]:
    """p (1 - p): what a crosspoint's copies vary by, 0 at both poles, 0.25 at most.

    Example:
        >>> synaptic_variance(torch.tensor([0.0, 0.5, 1.0])).tolist()
        [0.0, 0.25, 0.0]
    """
    return probability * (1 - probability)
