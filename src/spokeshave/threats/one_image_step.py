"""One step of SGD on one image, without making the new weights of linear layers: their change has rank one.

For a linear layer with input a and gradient d of its output, of the one image of the batch, dJ/dW = d a^T, so that

    (W - lr d a^T) x = W x - lr (a . x) d        for other images x:

two vectors a poison instead of a matrix, and a product W x that all poisons share. Equals retraining.py, to rounding.
Departs from the paper: it is in none; Yang et al. (arXiv:1703.01340) make the weights.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.func import grad
from torch.nn import functional

from spokeshave.threats.poison_budget import PoisonBudget
from spokeshave.threats.retraining import Victim


class OneImageStep:
    """The victim after a step on one image, as a function of that image.

    Linear layers that see one vector an image, once, are updated by their factors; all other weights are made.

    Args:
        victim: at its trained weights.
        example: one image, to see how the layers are used.
        budget: learning rates.

    Example:
        >>> model = nn.Linear(1, 2)
        >>> _ = model.weight.data.zero_(), model.bias.data.zero_()
        >>> step = OneImageStep(Victim(model), torch.ones(1, 1), PoisonBudget(lr=1.0))
        >>> step.logits(torch.ones(1), torch.tensor(0), torch.tensor([[2.0]])).tolist()  # w = b / 2 = (.5, -.5)
        [[2.0, -2.0]]
    """

    def __init__(self, victim: Victim, example: Float[Tensor, "1 *image"], budget: PoisonBudget) -> None:
        self._victim, self._budget = victim, budget
        self._layers = _one_vector_layers(victim, example)
        shared = {f"{name}.weight".removeprefix(".") for name in self._layers}
        self._made = {name: weight for name, weight in victim.weights.items() if name not in shared}

    @property
    def factored(self) -> tuple[str, ...]:
        """Names of the layers whose new weights are not made."""
        return tuple(self._layers)

    def logits(
        self, image: Float[Tensor, "*image"], label: Int64[Tensor, ""], images: Float[Tensor, "n *image"]
    ) -> Float[Tensor, "n classes"]:
        """Scores of images after the step on the one image."""
        victim, budget = self._victim, self._budget
        seen: dict[str, Tensor] = {}

        def remember(name: str, entering: Tensor, leaving: Tensor) -> Tensor:
            seen[name] = entering[0]
            return leaving

        def loss(made: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
            scores = victim.logits({**victim.weights, **made}, image[None])
            return functional.cross_entropy(scores, label[None]), dict(seen)

        with _changing(self._layers, remember):
            gradients, inputs = grad(loss, has_aux=True)(self._made)

        def shift(name: str, entering: Tensor, leaving: Tensor) -> Tensor:
            # The gradient of a bias is that of the layer's output.
            leading = (entering @ inputs[name]).unsqueeze(-1)
            return leaving - budget.lr * leading * gradients[f"{name}.bias".removeprefix(".")]

        made = {name: weight - budget.rate_of(name) * gradients[name] for name, weight in self._made.items()}
        with _changing(self._layers, shift):
            return victim.logits({**victim.weights, **made}, images)


Change = Callable[[str, Tensor, Tensor], Tensor]


@contextmanager
def _changing(layers: dict[str, nn.Linear], change: Change) -> Iterator[None]:
    """Inside the block, each layer gives what `change` makes of its name, input and output."""

    def hook_of(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        return lambda _module, inputs, output: change(name, inputs[0], output)

    handles = [layer.register_forward_hook(hook_of(name)) for name, layer in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _one_vector_layers(victim: Victim, example: Tensor) -> dict[str, nn.Linear]:
    shapes: dict[str, list[Any]] = {}

    def note(name: str, entering: Tensor, leaving: Tensor) -> Tensor:
        shapes.setdefault(name, []).append(tuple(entering.shape))
        return leaving

    # By exact type: a subclass may use its weight in another way. By name in `weights`: neither frozen nor tied.
    found = {
        name: module
        for name, module in victim.model.named_modules()
        if type(module) is nn.Linear
        and {f"{name}.weight".removeprefix("."), f"{name}.bias".removeprefix(".")} <= set(victim.weights)
    }
    with _changing(found, note), torch.no_grad():
        victim.logits(victim.weights, example)
    once = {name for name, seen in shapes.items() if len(seen) == 1 and len(seen[0]) == 2}
    tied = _tied(victim.model)
    return {name: layer for name, layer in found.items() if name in once and not tied & {id(layer.weight)}}


def _tied(model: nn.Module) -> set[int]:
    """Parameters that have more than one name."""
    names = [id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False)]
    return {found for found in names if names.count(found) > 1}
