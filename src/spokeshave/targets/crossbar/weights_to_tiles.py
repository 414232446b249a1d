"""Weights to tiles: programs the layers of a network into memristor crossbars of a limited size.

Wang et al., Group Scissor, DAC 2017, section 3.2; w = scale (g+ - g-): the weights of a layer share one scale, so that
the largest magnitude takes a device from g_min to g_max, and each sign has a crossbar of its own.
Departs from the paper: devices are imperfect where asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from spokeshave.errors import InvalidArgument, UnsupportedLayer
from spokeshave.structures.tiles import CONVOLUTIONS, TileGrid, Tiling
from spokeshave.targets.crossbar.converters import Converters
from spokeshave.targets.crossbar.crossbar_layer import CrossbarLayer
from spokeshave.targets.crossbar.layer_product import LayerProduct, matrices_of
from spokeshave.targets.crossbar.mapped_network import DigitalLayer, MappedLayer, MappedNetwork, MapReport, with_layers
from spokeshave.targets.crossbar.memristor import Memristor, fit_levels, program, seeded
from spokeshave.targets.crossbar.wires_and_area import parametrizations_in
from spokeshave.timing import evaluating

_STRICT = 1e-6


@dataclass(frozen=True)
class Crossbar:
    """A chip of memristor crossbars.

    Attributes:
        size: most input and output wires of a crossbar.
        device: kind of memristor at each crosspoint.
        tiling: how matrices larger than a crossbar are cut.
        converters: of inputs and of what comes out of tiles.
        wire_resistance_ohm: of the piece of wire between neighbouring cells, 0 or more.
        exclude: patterns of names of layers that stay digital.
        strict: refuse weights that the device's levels cannot hold, where otherwise the nearest are taken.
        seed: of variation, stuck devices and read noise.

    Raises:
        InvalidArgument: for a value out of its range.

    Example:
        >>> mapped = Crossbar(size=(2, 2)).map(nn.Linear(3, 2))
        >>> mapped.report.layers[0].tile_rows, mapped.report.crossbars
        (2, 4)
    """

    size: tuple[int, int] = (64, 64)
    device: Memristor = field(default_factory=Memristor)
    tiling: Tiling = Tiling.BALANCED
    converters: Converters = field(default_factory=Converters)
    wire_resistance_ohm: float = 0.0
    exclude: tuple[str, ...] = ()
    strict: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.size) != 2 or not all(isinstance(wires, int) and wires >= 1 for wires in self.size):
            raise InvalidArgument(f"size: expected two whole numbers of wires of at least 1, got {self.size}")
        if not 0 <= self.wire_resistance_ohm < float("inf"):
            raise InvalidArgument(f"wire_resistance_ohm: expected 0 or more, got {self.wire_resistance_ohm}")

    def map(self, model: nn.Module, example: object = None) -> MappedNetwork:
        """Program a network into crossbars.

        Args:
            model: any module; it is not modified. Convolutions and linear layers are mapped, all else stays digital.
            example: input of the model, or a tuple of them: ranges of converters are calibrated on it.

        Returns:
            the network on crossbars.

        Raises:
            UnsupportedLayer: there is no layer that crossbars hold.
            InvalidArgument: weights or biases are not finite or not there yet, a pattern matches no layer, an example
                is missing or does not fit, or, with `strict`, the device cannot hold the weights.
        """
        if self.converters.needs_example and example is None:
            raise InvalidArgument(
                "example: the converters' ranges are calibrated on one: give a batch of inputs, or Range.PER_CALL"
            )
        chosen, digital = mappable_layers(model, self.exclude)
        layers, rows = {}, []
        for name, module in chosen.items():
            layers[name], row = self._program(name, module)
            rows.append(row)
        mapped = MappedNetwork(
            with_layers(model, layers), MapReport(tuple(rows), tuple(digital)), self.size, self.tiling
        )
        return mapped if example is None else mapped.calibrate(example)

    def _program(self, name: str, module: nn.Module) -> tuple[CrossbarLayer, MappedLayer]:
        with evaluating(module):  # a parametrization such as spectral_norm changes the module in training
            weight, bias = module.weight, module.bias
        product = LayerProduct.of(name, module)
        assert isinstance(weight, Tensor)
        assert bias is None or isinstance(bias, Tensor)
        if not torch.isfinite(weight).all():
            raise InvalidArgument(f"{name}: expected finite weights, got NaN or infinite ones")
        if bias is not None and not torch.isfinite(bias).all():
            raise InvalidArgument(f"{name}: expected finite biases, got NaN or infinite ones")
        grid = TileGrid.of(product.inputs, product.outputs, self.size, self.tiling)
        wanted = weight.detach().double().cpu()
        top, shares = fit_levels(wanted, self.device.levels)
        level_error = _relative(top * shares, wanted)
        if self.strict and level_error > _STRICT:
            raise InvalidArgument(
                f"{name}: its weights are not {self.device.levels} evenly spaced level(s) and zero "
                f"(the nearest differ by {level_error:.1%}): train them to be, or map without `strict`"
            )
        layer = self._layer(
            name, product, grid, shares, top, weight.detach(), None if bias is None else bias.detach().clone()
        )
        row = MappedLayer(
            name, product.kind, product.groups, grid.inputs, grid.outputs, grid.rows, grid.columns, grid.tile_inputs,
            grid.tile_outputs, layer.crossbars, level_error,
            _relative(layer.weight.detach().double().cpu(), wanted),
        )  # fmt: skip
        for made, old in ((layer.g_plus, weight), (layer.g_minus, weight), (layer.bias, bias)):
            if made is not None and old is not None:
                made.requires_grad_(old.requires_grad)
        return layer.train(module.training), row

    def _layer(
        self,
        name: str,
        product: LayerProduct,
        grid: TileGrid,
        shares: Tensor,
        top: float,
        like: Tensor,
        bias: Tensor | None,
    ) -> CrossbarLayer:
        """A layer whose weights are `top` times `shares` (-1..1), as the devices come to hold them."""
        cells = grid.cut(matrices_of(product, shares))
        present = grid.cut(torch.ones(product.groups, product.inputs, product.outputs, dtype=cells.dtype))
        span = 1 - self.device.off
        pair = []
        for sign in (1, -1):
            target = (self.device.off + span * (sign * cells).clamp(min=0)) * present
            made = program(target, self.device, seeded(self.seed, "program", name, sign)) * present
            pair.append(made.to(like))
        return CrossbarLayer(
            product, grid, pair[0], pair[1], (top or 1.0) / span, bias, used=(cells != 0).to(like.device),
            device=self.device, converters=self.converters, wire_resistance_ohm=self.wire_resistance_ohm,
            seed=self.seed, name=name,
        )  # fmt: skip


def mappable_layers(model: nn.Module, exclude: Sequence[str] = ()) -> tuple[dict[str, nn.Module], list[DigitalLayer]]:
    """Layers that crossbars hold, and those with parameters that they do not, with the reason.

    Args:
        model: any module.
        exclude: patterns of names to leave digital.

    Raises:
        UnsupportedLayer: crossbars hold none.
        InvalidArgument: a pattern matches no layer, or a lazy layer has no weights yet.
    """
    for pattern in exclude:
        if not any(fnmatch(name, pattern) for name, _ in model.named_modules()):
            raise InvalidArgument(f"exclude: no layer is named {pattern!r}")
    held, digital = {}, []
    attention = [
        f"{name}." if name else "" for name, m in model.named_modules() if isinstance(m, nn.MultiheadAttention)
    ]
    inner = parametrizations_in(model)
    for name, module in model.named_modules():
        if isinstance(module, nn.MultiheadAttention):
            digital.append(DigitalLayer(name, type(module).__name__, "its projections are one fused operation"))
        elif name in inner or any(name.startswith(prefix) for prefix in attention):
            continue
        elif isinstance(module, (*CONVOLUTIONS, nn.Linear)):
            if why := _why_digital(name, module, exclude):
                digital.append(DigitalLayer(name, type(module).__name__, why))
            elif isinstance(module._parameters.get("weight"), UninitializedParameter):
                raise InvalidArgument(f"{name or 'the model'}: it has no weights yet: run the model once first")
            else:
                held[name] = module
        elif next(module.parameters(recurse=False), None) is not None:
            digital.append(DigitalLayer(name, type(module).__name__, "it is no convolution and no linear layer"))
    if not held:
        raise UnsupportedLayer(
            "no layer to map: the model has no convolution and no linear layer that crossbars hold "
            f"({', '.join(layer.name for layer in digital) or 'nothing with parameters'})"
        )
    return held, digital


def _why_digital(name: str, module: nn.Module, exclude: Sequence[str]) -> str:
    if any(fnmatch(name, pattern) for pattern in exclude):
        return "it is excluded"
    forwards = {kind.forward for kind in (*CONVOLUTIONS, nn.Linear)}
    if type(module).forward not in forwards or "forward" in vars(module):
        return "it computes something of its own"
    if isinstance(module._parameters.get("weight"), UninitializedParameter):  # its hook makes the weights
        return ""
    # Such as torch.nn.utils.weight_norm, spectral_norm and prune; they would be lost with the layer.
    return "it has hooks of its own" if module._forward_hooks or module._forward_pre_hooks else ""


def _relative(got: Tensor, wanted: Tensor) -> float:
    norm = float(wanted.norm())
    return float((got - wanted).norm()) / norm if norm else float((got - wanted).norm())
