"""Dynamic network surgery: weights under a threshold are cut while training, and spliced back where they grow again.

Guo, Yao, Chen, NIPS 2016, in the form of SkimCaffe's L1_DNS (Park et al., ICLR 2017):

    w' <- w' - update(gradient at w),   w = w' where |w'| >= threshold, else 0

Departs from the paper: one fixed threshold, as SkimCaffe has it, in place of two that follow from each layer's mean and
spread; weight decay and momentum act on w'.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from spokeshave.errors import InvalidArgument
from spokeshave.regularizers.guidance import Guide
from spokeshave.regularizers.hidden_weights import HidesWeights
from spokeshave.regularizers.optimizer_hooks import Attachment, add_to_gradient
from spokeshave.structures.pruned_layers import Multipliers, PrunedLayer, held_by, pruned_layers


class NetworkSurgery(HidesWeights):
    """Cuts small weights of a model while it is trained, in any training loop, and lets them come back.

    Args:
        model: its weights are watched, not changed by making this object.
        strength: of an L1 pull on the weights that are not cut, at least 0.
        threshold: magnitude below which a weight is cut, at least 0.
        layers: factors on the strength, for all layers or by a pattern on their names; 0 leaves a layer alone.
        guide: decides on the fly which layers are cut; None cuts all.

    Raises:
        InvalidArgument: for a number out of its range, a pattern that no layer matches, or nothing to watch.
        UnsupportedLayer: for a layer whose weight is computed by a parametrization.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 1, bias=False))
        >>> _ = net[0].weight.data.copy_(torch.tensor([[0.5, 0.001]]))
        >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        >>> _ = NetworkSurgery(net, strength=0.0, threshold=0.01).attach(optimizer)
        >>> net(torch.zeros(1, 2)).sum().backward()
        >>> optimizer.step()
        >>> net[0].weight.tolist()
        [[0.5, 0.0]]
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        strength: float = 0.0,
        threshold: float = 1e-4,
        layers: Multipliers = 1.0,
        guide: Guide | None = None,
    ) -> None:
        if not 0 <= strength < float("inf") or not 0 <= threshold < float("inf"):
            raise InvalidArgument(
                f"strength and threshold must be finite and at least 0, got {strength} and {threshold}"
            )
        super().__init__(pruned_layers(model, layers), strength, guide)
        self.threshold = float(threshold)

    def energy(self) -> Float[Tensor, ""]:
        """The L1 penalty over the weights that are not cut; differentiable."""
        terms = [layer.multiplier * layer.weight.abs().sum() for layer in self._layers if self._pulls(layer)]
        return self.strength * torch.stack([torch.zeros(()), *(term.cpu() for term in terms)]).sum()

    @torch.no_grad()
    def pull(self) -> None:
        """Add the gradient of `energy` to `.grad` (made where it is None)."""
        for layer in self._layers:
            if self._pulls(layer) and self.strength:
                force = self.strength * layer.multiplier * layer.weight.sign()
                add_to_gradient(layer.weight, force)

    def attach(self, optimizer: Optimizer) -> Attachment:
        """Cut and splice at every step of an optimizer.

        Returns:
            A handle; `handle.remove()` undoes the attachment. What was cut stays cut.

        Raises:
            InvalidArgument: where it holds none of the weights.
        """
        mine = held_by(optimizer, self._layers)
        return Attachment(optimizer, before=lambda _: self._before(mine), after=lambda _: self._after(mine))

    def _before(self, layers: Sequence[PrunedLayer]) -> None:
        if self.guide is not None:
            self.guide.observe(self.step)
        self.pull()
        for layer in layers:
            if self._pulls(layer):
                self._hidden.show(layer.name, layer.weight)
            else:
                self._hidden.forget(layer.name)

    def _after(self, layers: Sequence[PrunedLayer]) -> None:
        for layer in layers:
            if self._pulls(layer):
                self._hidden.hide(layer.name, layer.weight, layer.weight.detach().abs() >= self.threshold)
        if self.guide is not None:
            self.guide.hold()
        self.step += 1
