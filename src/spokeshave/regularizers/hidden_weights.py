"""Hidden weights: pruned weights keep a value out of sight, are trained on, and may come back.

Guo, Yao, Chen: Dynamic Network Surgery for Efficient DNNs, NIPS 2016, equation 3: W <- W - lr * dL/d(W * T), where T is
the mask: the loss sees W * T, the update moves W.
Departs from the paper: nothing known.
"""

from collections.abc import Mapping

import torch
from torch import Tensor


class HiddenWeights:
    """What masks took off the weights of some layers; not checked against the layers, that is their owner's part.

    Example:
        >>> hidden, weight = HiddenWeights(), torch.tensor([1.0, 2.0])
        >>> hidden.hide("layer", weight, torch.tensor([True, False]))
        >>> weight.tolist()
        [1.0, 0.0]
        >>> hidden.show("layer", weight)
        >>> weight.tolist()
        [1.0, 2.0]
    """

    def __init__(self) -> None:
        self._values: dict[str, Tensor] = {}

    @torch.no_grad()
    def hide(self, name: str, weight: Tensor, mask: Tensor) -> None:
        """Set a weight to zero where its mask is False, and remember what stood there."""
        self._values[name] = weight.masked_fill(mask, 0.0)
        weight.masked_fill_(~mask, 0.0)

    @torch.no_grad()
    def show(self, name: str, weight: Tensor) -> None:
        """Put back what `hide` took; nothing where it took nothing."""
        values = self._values.pop(name, None)
        if values is not None:
            weight.add_(values.to(weight))  # exact: one of the two is zero

    def forget(self, name: str) -> None:
        """Give up what `hide` took off a weight."""
        self._values.pop(name, None)

    def state_dict(self) -> dict[str, Tensor]:
        """The hidden values, by layer."""
        return dict(self._values)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over the values of a checkpoint."""
        self._values = dict(state)
