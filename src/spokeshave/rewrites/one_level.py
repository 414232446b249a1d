"""One level: every weight of a network at -g, 0 or +g, with a g for each layer that fits its distribution.

Wang, Wen, Song, Li: One-level Precision Synapses, ASP-DAC 2017 (distribution-aware quantization): weights of different
layers have different spreads, so each layer has a level of its own; all layers are quantized, the last one too.
Departs from the paper: g is the exact minimum of the squared error, or, with `score`, the best on a grid in units of
the weights' standard deviation; how the paper searches could not be read.
"""

import copy
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from rich.table import Table
from torch import nn

from spokeshave.errors import InvalidArgument, NothingChanged
from spokeshave.rewrites.verification import probes_like, relative_error
from spokeshave.structures.example_inputs import as_inputs
from spokeshave.structures.groups import CONVOLUTIONS
from spokeshave.structures.levels import Multiples, best_scale, multiples_of, nearest_level, relative_level_error
from spokeshave.structures.magnitude_mask import Scope
from spokeshave.structures.pruned_layers import PrunedLayer, pruned_layers
from spokeshave.timing import evaluating

GRID = tuple(0.5 + 0.1 * step for step in range(21))
"""Scales that `score` chooses among, in units of the standard deviation of a layer's weights."""


@dataclass(frozen=True)
class LevelledLayer:
    """One layer.

    Attributes:
        name: in the model.
        weights: number of them.
        scale: g.
        zero_share, plus_share, minus_share: of its weights, after quantization, 0..1.
        relative_error: ||W - Q(W)|| / ||W||.
    """

    name: str
    weights: int
    scale: float
    zero_share: float
    plus_share: float
    minus_share: float
    relative_error: float


@dataclass(frozen=True)
class OneLevelReport:
    """What a call of `one_level` changed.

    Attributes:
        layers: those that were quantized.
        multiples: magnitudes of the levels, in units of g.
        max_relative_error: largest max|new - old| / max|old| of the outputs, over the example and random probes.
    """

    layers: tuple[LevelledLayer, ...]
    multiples: Multiples
    max_relative_error: float

    @property
    def zero_share(self) -> float:
        """Share of zeros of all these layers together, 0..1."""
        return sum(one.zero_share * one.weights for one in self.layers) / sum(one.weights for one in self.layers)

    def to_dict(self) -> dict[str, object]:
        """The report as plain dicts, lists, numbers and strings."""
        plain: dict[str, object] = dataclasses.asdict(self)
        return plain | {
            "layers": [dataclasses.asdict(layer) for layer in self.layers], "multiples": list(self.multiples),
        }  # fmt: skip

    def table(self) -> Table:
        """The report as a table for the terminal."""
        count = len(self.multiples)
        title = (
            "one level: -g, 0, +g"
            if count == 1
            else f"{count} levels: {', '.join(map('{:g} g'.format, self.multiples))}"
        )
        table = Table(title=f"{title}; outputs moved by {self.max_relative_error:.2g}")
        for heading in ("layer", "weights", "g", "zero", "above", "below", "relative error"):
            table.add_column(heading, justify="left" if heading == "layer" else "right")
        for one in self.layers:
            shares = (f"{100 * share:.1f} %" for share in (one.zero_share, one.plus_share, one.minus_share))
            table.add_row(one.name, f"{one.weights:,}", f"{one.scale:.4g}", *shares, f"{one.relative_error:.3f}")
        return table


def one_level(
    model: nn.Module,
    example: object,
    *,
    levels: int | Sequence[float] = 1,
    exclude: Sequence[str] = (),
    scope: Scope = Scope.LAYER,
    score: Callable[[nn.Module], float] | None = None,
    grid: Sequence[float] = GRID,
) -> tuple[nn.Module, OneLevelReport]:
    """Put every weight of the convolutions and linear layers at its nearest level.

    Args:
        model: any module; it is not modified. Biases and other parameters are left alone, factorized layers are
            quantized in both of their parts.
        example: input with its batch on axis 0; the report says how far the outputs moved.
        levels: how many nonzero magnitudes, evenly spaced; or these magnitudes, in any unit.
        exclude: patterns on names of layers that are left alone.
        scope: `Scope.LAYER` gives each layer a g of its own, `Scope.GLOBAL` all of them one.
        score: of a network in eval mode, larger is better, for instance its accuracy on validation images. With it,
            layer by layer in order, g is the best of the grid and of the least squared error (which stays where
            nothing is better); layers that come later are still as they were.
        grid: scales that `score` chooses among, in units of the standard deviation of a layer's weights; positive.

    Returns:
        a copy of the model with quantized weights, and the report.

    Raises:
        NothingChanged: there is no layer to quantize, or all weights are at such levels already.
        InvalidArgument: levels or grid are out of their range, a pattern matches no layer, or weights are not finite.
        UnsupportedLayer: the weight of a layer is computed by a parametrization.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 1, bias=False))
        >>> _ = net[0].weight.data.copy_(torch.tensor([[0.1, -3.0, 0.2, 2.0]]))
        >>> new, report = one_level(net, torch.ones(1, 4))
        >>> new[0].weight.tolist(), report.layers[0].zero_share
        ([[0.0, -2.5, 0.0, 2.5]], 0.5)
    """
    if not isinstance(model, nn.Module):
        raise InvalidArgument(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    if score is not None and (scope is Scope.GLOBAL or not grid or not all(0 < step < float("inf") for step in grid)):
        raise InvalidArgument(f"score needs Scope.LAYER and a grid of positive numbers, got {scope} and {tuple(grid)}")
    multiples, inputs = multiples_of(levels), as_inputs(example)
    if not any(isinstance(module, (*CONVOLUTIONS, nn.Linear)) for module in model.modules()):
        raise NothingChanged("no layer to quantize: the model has no convolution and no linear layer")
    new = copy.deepcopy(model)
    layers = pruned_layers(new, {"*": 1.0, **dict.fromkeys(exclude, 0.0)})
    scales = _scales(layers, multiples, scope)
    rows = []
    for layer in layers:
        old = layer.weight.detach().clone()
        if score is not None:
            scales[layer.name] = _best_on_grid(new, layer, scales[layer.name], multiples, score, grid)
        _write(layer, old, scales[layer.name], multiples)
        rows.append(_row(layer, old, scales[layer.name]))
    if not any(row.relative_error for row in rows):
        raise NothingChanged("nothing to quantize: all weights are at such levels already")
    return new, OneLevelReport(tuple(rows), multiples, _output_error(new, model, inputs))


def _scales(layers: Sequence[PrunedLayer], multiples: Multiples, scope: Scope) -> dict[str, float]:
    for layer in layers:
        if not bool(torch.isfinite(layer.weight).all()):
            raise InvalidArgument(f"{layer.name}: weights must be finite to find their levels")
    if scope is Scope.GLOBAL:
        together = best_scale(torch.cat([layer.weight.detach().flatten() for layer in layers]), multiples)
        return dict.fromkeys((layer.name for layer in layers), together)
    return {layer.name: best_scale(layer.weight, multiples) for layer in layers}


@torch.no_grad()
def _write(layer: PrunedLayer, old: torch.Tensor, scale: float, multiples: Multiples) -> None:
    layer.weight.copy_(nearest_level(old, scale, multiples))


def _best_on_grid(
    new: nn.Module,
    layer: PrunedLayer,
    start: float,
    multiples: Multiples,
    score: Callable[[nn.Module], float],
    grid: Sequence[float],
) -> float:
    old = layer.weight.detach().clone()
    spread = float(old.double().std(correction=0))
    best, highest = start, float("-inf")
    for scale in (start, *(spread * step for step in grid)):
        _write(layer, old, scale, multiples)
        with evaluating(new):  # statistics of batch normalizations stay
            found = score(new)
        if found > highest:
            best, highest = scale, found
    layer.weight.data.copy_(old)
    return best


def _row(layer: PrunedLayer, old: torch.Tensor, scale: float) -> LevelledLayer:
    new = layer.weight.detach()
    zero, plus, minus = (float(where.double().mean()) for where in (new == 0, new > 0, new < 0))
    return LevelledLayer(layer.name, new.numel(), scale, zero, plus, minus, relative_level_error(old, new))


def _output_error(new: nn.Module, old: nn.Module, inputs: tuple[object, ...]) -> float:
    both = [copy.deepcopy(network).eval() for network in (new, old)]
    worst = 0.0
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        for place, probe in enumerate(probes_like(inputs)):
            try:
                worst = max(worst, relative_error(both[0](*probe), both[1](*probe)))
            except Exception:
                if place < 2:  # a model may be made for one batch size
                    raise
    return worst
