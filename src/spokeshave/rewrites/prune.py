"""Prune: the smallest single weights of a network become zero, in one shot.

Han et al., Learning both Weights and Connections for Efficient Neural Networks, NIPS 2015, the step before retraining.
Departs from the paper: a share of zeros is given, not a threshold; the weights of all layers may be ranked together.
"""

import copy
import dataclasses
from dataclasses import dataclass

import torch
from rich.table import Table
from torch import nn

from spokeshave.errors import InvalidArgument, NothingChanged
from spokeshave.rewrites.verification import probes_like, relative_error
from spokeshave.structures.example_inputs import as_inputs
from spokeshave.structures.groups import CONVOLUTIONS
from spokeshave.structures.magnitude_mask import Scope, scoped_masks
from spokeshave.structures.pruned_layers import Multipliers, pruned_layers


@dataclass(frozen=True)
class PrunedWeight:
    """One layer.

    Attributes:
        name: in the model.
        weights: number of them.
        nonzeros_before, nonzeros_after: how many were and are not zero.
    """

    name: str
    weights: int
    nonzeros_before: int
    nonzeros_after: int


@dataclass(frozen=True)
class PruneReport:
    """What a call of `prune` changed.

    Attributes:
        layers: those that were to be pruned.
        max_relative_error: largest max|new - old| / max|old| over the probes; None where no example was given.
    """

    layers: tuple[PrunedWeight, ...]
    max_relative_error: float | None = None

    @property
    def sparsity(self) -> float:
        """Share of zeros of all these layers together, 0..1."""
        return 1 - sum(layer.nonzeros_after for layer in self.layers) / sum(layer.weights for layer in self.layers)

    def to_dict(self) -> dict[str, object]:
        """The report as plain dicts, lists, numbers and strings."""
        plain: dict[str, object] = dataclasses.asdict(self)
        return plain | {"layers": [dataclasses.asdict(layer) for layer in self.layers]}

    def table(self) -> Table:
        """The report as a table for the terminal."""
        table = Table(title=f"pruned to {100 * self.sparsity:.1f} % zeros")
        for heading in ("layer", "weights", "nonzeros before", "after", "density"):
            table.add_column(heading, justify="left" if heading == "layer" else "right")
        for layer in self.layers:
            counts = (layer.weights, layer.nonzeros_before, layer.nonzeros_after)
            table.add_row(
                layer.name, *(f"{count:,}" for count in counts), f"{layer.nonzeros_after / layer.weights:.3f}"
            )
        return table


def prune(
    model: nn.Module, sparsity: Multipliers, example: object = None, *, scope: Scope = Scope.GLOBAL
) -> tuple[nn.Module, PruneReport]:
    """Set the smallest weights of convolutions and linear layers to zero.

    Args:
        model: any module; it is not modified. Biases and other parameters are left alone.
        sparsity: share of zeros, 0..1: of all layers, or by a pattern on their names; unnamed layers are left alone.
        example: input with its batch on axis 0; with one, the report says how far the outputs moved.
        scope: GLOBAL ranks the weights of all layers with the same share together, LAYER those of each by itself.

    Returns:
        a copy of the model with the zeros in place, and the report. Fine-tune the copy under
        `Freeze(copy, Frozen.ELEMENTS)`, then compile it with `to_sparse`.

    Raises:
        NothingChanged: there is no layer to prune, or the layers are that sparse already.
        InvalidArgument: a share is outside 0..1, or a pattern matches no layer.
        UnsupportedLayer: the weight of a layer is computed by a parametrization.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 1, bias=False))
        >>> _ = net[0].weight.data.copy_(torch.tensor([[0.1, -3.0, 0.2, 2.0]]))
        >>> pruned, report = prune(net, 0.5)
        >>> pruned[0].weight.tolist(), report.sparsity
        ([[0.0, -3.0, 0.0, 2.0]], 0.5)
    """
    if not isinstance(model, nn.Module):
        raise InvalidArgument(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    if not any(isinstance(module, (*CONVOLUTIONS, nn.Linear)) for module in model.modules()):
        raise NothingChanged("no layer to prune: the model has no convolution and no linear layer")
    if not isinstance(sparsity, dict) and sparsity == 0:
        raise NothingChanged("nothing to prune: a sparsity of 0 keeps every weight")
    new = copy.deepcopy(model)
    layers = pruned_layers(new, sparsity, most=1.0)
    before = [int(torch.count_nonzero(layer.weight.detach())) for layer in layers]
    weights = {layer.name: layer.weight for layer in layers}
    with torch.no_grad():
        for name, mask in scoped_masks(weights, {layer.name: layer.multiplier for layer in layers}, scope).items():
            weights[name].masked_fill_(~mask, 0.0)
    after = [int(torch.count_nonzero(layer.weight.detach())) for layer in layers]
    if before == after:
        raise NothingChanged(
            f"nothing to prune: the layers have {1 - sum(before) / sum(w.numel() for w in weights.values()):.1%} zeros "
            "already, and the sparsity asked for takes none of the others; raise it"
        )
    rows = tuple(
        PrunedWeight(layer.name, layer.weight.numel(), b, a) for layer, b, a in zip(layers, before, after, strict=True)
    )
    return new, PruneReport(rows, None if example is None else _error(new, model, example))


def _error(new: nn.Module, old: nn.Module, example: object) -> float:
    both = [copy.deepcopy(network).eval() for network in (new, old)]
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        return max(
            relative_error(both[0](*probe), both[1](*probe)) for probe in probes_like(as_inputs(example), count=2)
        )
