"""Mapped network: a network whose convolutions and linear layers run on crossbars; the rest stays digital.

It runs as the network did, and says what was mapped, how exactly, and what it takes.
Departs from the papers: neither has a simulator; see `crossbar_layer.py`.
"""

import copy
import dataclasses
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table
from torch import Tensor, nn

from spokeshave.errors import DataError, InvalidArgument
from spokeshave.structures.example_inputs import as_inputs
from spokeshave.structures.tiles import CONVOLUTIONS, Tiling
from spokeshave.targets.crossbar.crossbar_files import Crossbars, read_crossbars, write_crossbars
from spokeshave.targets.crossbar.crossbar_layer import CrossbarLayer
from spokeshave.targets.crossbar.layer_product import LayerProduct, plain_layer, weight_of
from spokeshave.targets.crossbar.wires_and_area import CrossbarCost, price
from spokeshave.timing import evaluating


@dataclass(frozen=True)
class MappedLayer:
    """One layer on crossbars.

    Attributes:
        name: in the network.
        kind: torch's name, such as 'Conv2d'.
        groups: convolution groups; each has matrices of its own.
        inputs, outputs: size of a group's matrix.
        tile_rows, tile_columns: tiles of a group along inputs and outputs.
        tile_inputs, tile_outputs: size of a tile.
        crossbars: number of them, two a tile.
        level_error: |q - w| / |w| of the weights that the device's levels allow.
        device_error: likewise of what the crossbars multiply by, without read noise.
    """

    name: str
    kind: str
    groups: int
    inputs: int
    outputs: int
    tile_rows: int
    tile_columns: int
    tile_inputs: int
    tile_outputs: int
    crossbars: int
    level_error: float
    device_error: float


@dataclass(frozen=True)
class DigitalLayer:
    """One layer with parameters that stays digital; `why` says for what reason."""

    name: str
    kind: str
    why: str


@dataclass(frozen=True)
class MapReport:
    """What was mapped, and what was not.

    Attributes:
        layers: on crossbars.
        digital: layers with parameters that are not.
    """

    layers: tuple[MappedLayer, ...]
    digital: tuple[DigitalLayer, ...] = ()

    @property
    def crossbars(self) -> int:
        """Crossbars of all layers."""
        return sum(layer.crossbars for layer in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain dicts, lists, numbers and strings."""
        return {
            "layers": [dataclasses.asdict(layer) for layer in self.layers],
            "digital": [dataclasses.asdict(layer) for layer in self.digital],
            "crossbars": self.crossbars,
        }

    def table(self) -> Table:
        """The report as a table for the terminal."""
        title, note = f"{self.crossbars:,} crossbars", "levels, devices: how far the weights are off, |q - w| / |w|"
        caption = "\n".join([note, self.notes()] if self.digital else [note])
        table = Table(title=title, caption=caption, caption_justify="left", box=SIMPLE_HEAD, pad_edge=False)
        for heading in ("layer", "kind", "matrix", "tiles", "of size", "crossbars", "levels", "devices"):
            table.add_column(heading, justify="left" if heading in ("layer", "kind") else "right")
        for layer in self.layers:
            groups = f"{layer.groups} x " if layer.groups > 1 else ""
            table.add_row(
                layer.name,
                layer.kind,
                f"{groups}{layer.inputs}x{layer.outputs}",
                f"{groups}{layer.tile_rows}x{layer.tile_columns}",
                f"{layer.tile_inputs}x{layer.tile_outputs}",
                f"{layer.crossbars:,}",
                f"{100 * layer.level_error:.2f} %",
                f"{100 * layer.device_error:.2f} %",
            )
        return table

    def notes(self) -> str:
        """The layers that stay digital, in a line each."""
        return "\n".join(f"{layer.name} ({layer.kind}) stays digital: {layer.why}" for layer in self.digital)


class MappedNetwork(nn.Module):
    """A network on crossbars; made by `Crossbar.map` or `load_crossbars`.

    An ordinary module: `state_dict`, `.to(...)`, `copy.deepcopy` and gradients work. `layers` are its crossbars.

    Args:
        network: whose layers were replaced.
        report: of the mapping.
        size: most input and output wires of a crossbar.
        tiling: how matrices were cut.
    """

    def __init__(self, network: nn.Module, report: MapReport, size: tuple[int, int], tiling: Tiling) -> None:
        super().__init__()
        self.network, self.report, self.size, self.tiling = network, report, size, tiling
        self.training = network.training  # its modules keep their own

    @property
    def layers(self) -> dict[str, CrossbarLayer]:
        """Layers on crossbars, by their names in the network that was mapped."""
        return crossbar_layers(self.network)

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """Run the network.

        Args:
            *inputs: what it takes.
            **named: likewise.
        """
        return self.network(*inputs, **named)

    def cost(self) -> CrossbarCost:
        """What its crossbars cost: cells, wires, routing; rows and columns of zero weights need no wires."""
        return price(self.used_weights(), self.size, self.tiling)

    def used_weights(self) -> nn.Module:
        """Ordinary layers of the names and shapes of those on crossbars; weights are 1 where a cell is used, else 0."""
        skeleton = nn.Module()
        for name, layer in self.layers.items():
            matrices = layer.grid.join(layer.used.to(torch.float32)).cpu()
            same = dataclasses.replace(layer.product, pads=(0,) * len(layer.product.pads))
            plain = plain_layer(same, weight_of(layer.product, matrices))
            if not name:
                return plain
            place, _, last = name.rpartition(".")
            parent = skeleton
            for part in place.split(".") if place else ():
                if part not in parent._modules:
                    parent.add_module(part, nn.Module())
                parent = parent.get_submodule(part)
            parent.add_module(last, plain)
        return skeleton

    def export(self, folder: Path | str) -> Path:
        """Write the crossbars as `crossbars.json` and `crossbars.npz`, which other tools read.

        Args:
            folder: for the files; what stays digital is not among them.

        Returns:
            the folder.

        Raises:
            FileError: where they cannot be written.
        """
        return write_crossbars(Crossbars(self.size, self.tiling, self.layers, self.report.to_dict()), folder)

    def calibrate(self, example: object) -> "MappedNetwork":
        """Set the ranges of all converters to the largest magnitudes that an example brings about.

        Args:
            example: input, or a tuple of inputs, of the network; better a batch of real data than noise.

        Returns:
            this network.

        Raises:
            InvalidArgument: where the network fails on it, does not run a layer that has converters to calibrate, or
                brings about numbers that are not finite. The ranges are then as they were.
        """
        inputs, layers = as_inputs(example), self.layers
        reached: set[nn.Module] = set()
        with ExitStack() as stack:
            stack.enter_context(evaluating(self.network))
            stack.enter_context(torch.no_grad())
            stack.enter_context(torch.random.fork_rng(devices=[]))
            for layer in layers.values():
                stack.enter_context(layer.calibrating())
                stack.callback(layer.register_forward_pre_hook(lambda module, _: reached.add(module)).remove)
            try:
                self.network(*inputs)
            except (RuntimeError, TypeError, ValueError) as error:
                raise InvalidArgument(f"example: the network fails on it: {error}") from error
            for name, layer in layers.items():
                if not (layer.input_range + layer.tile_range).isfinite():
                    raise InvalidArgument(f"example: in {name or 'the model'} it leads to numbers that are not finite")
            missed = [name for name, layer in layers.items() if layer.converters.needs_example and layer not in reached]
            if missed:
                raise InvalidArgument(
                    f"example: it does not reach {', '.join(missed)}, so that converters have no range there: give one "
                    "that does, exclude these layers, or take Range.PER_CALL"
                )
        return self


def load_crossbars(folder: Path | str, model: nn.Module, changed: bool = False) -> MappedNetwork:
    """Put crossbars that were exported into a network of the same architecture.

    Args:
        folder: that `MappedNetwork.export` wrote.
        model: it is not modified; what stays digital is taken from it.
        changed: take arrays that were changed after the export, such as conductances measured on a chip.

    Returns:
        the network on crossbars; its outputs are those of the one that was exported.

    Raises:
        DataError: a file is missing, damaged or of another version, or does not fit the model.
    """
    crossbars = read_crossbars(folder, changed)
    modules = dict(model.named_modules())
    for name, layer in crossbars.layers.items():
        module = modules.get(name)
        own = LayerProduct.of(name, module) if isinstance(module, (*CONVOLUTIONS, nn.Linear)) else None
        if own != layer.product:
            raise DataError(
                f"{folder}: layer {name!r} is {layer.product}, the model has {own or type(module).__name__} there; "
                "build the model with the same architecture"
            )
        assert module is not None
        _settle(layer, module, f"{folder}: layer {name!r}")
    try:
        report = MapReport(
            tuple(MappedLayer(**row) for row in crossbars.report["layers"]),
            tuple(DigitalLayer(**row) for row in crossbars.report["digital"]),
        )
    except (KeyError, TypeError) as error:
        raise DataError(f"{folder}: its report is damaged ({error!r}); export the network again") from error
    return MappedNetwork(with_layers(model, crossbars.layers), report, crossbars.size, crossbars.tiling)


def _settle(layer: CrossbarLayer, module: nn.Module, where: str) -> None:
    """Give a layer that was read the device and modes of the one whose place it takes."""
    with evaluating(module):
        weight, bias = module.weight, module.bias
    assert isinstance(weight, Tensor)
    if weight.dtype != layer.g_plus.dtype:
        raise DataError(f"{where} has {layer.g_plus.dtype}, the model {weight.dtype}: convert the model first")
    layer.to(weight.device).train(module.training)
    layer.g_plus.requires_grad_(weight.requires_grad)
    layer.g_minus.requires_grad_(weight.requires_grad)
    if isinstance(layer.bias, Tensor) and isinstance(bias, Tensor):
        layer.bias.requires_grad_(bias.requires_grad)


class ChannelsLastMaxPool2d(nn.MaxPool2d):
    """The same pooling on channels-last images, which torch does several times faster on CPUs."""

    @staticmethod
    def of(pool: nn.MaxPool2d) -> "ChannelsLastMaxPool2d":
        """Take the place of a pooling layer, with its hooks and all.

        Args:
            pool: of exactly this class.
        """
        made = ChannelsLastMaxPool2d.__new__(ChannelsLastMaxPool2d)
        made.__dict__.update(pool.__dict__)
        return made

    def forward(self, input: Tensor) -> Any:
        """Pool images, and give them back in torch's usual order."""
        if input.dim() != 4 or input.device.type != "cpu" or self.return_indices:
            return super().forward(input)
        pooled = super().forward(input.contiguous(memory_format=torch.channels_last))
        assert isinstance(pooled, Tensor)
        return pooled.contiguous()


def crossbar_layers(network: nn.Module) -> dict[str, CrossbarLayer]:
    """Layers of a network that are crossbars, by name."""
    return {name: module for name, module in network.named_modules() if isinstance(module, CrossbarLayer)}


def with_layers(network: nn.Module, layers: Mapping[str, nn.Module]) -> nn.Module:
    """A copy of a network with other modules in the places named; wherever a module is used twice, both change.

    Args:
        network: left as it is.
        layers: name in the network -> module to take.
    """
    old = {name: network.get_submodule(name) for name in layers}
    # Copying with the replacements in the memo leaves the old weights out of the copy.
    memo: dict[int, Any] = {id(old[name]): layers[name] for name in layers}
    for module in network.modules():
        # Torch refuses to copy what was computed, such as the weight of torch.nn.utils.weight_norm.
        computed = (value for value in vars(module).values() if isinstance(value, Tensor) and not value.is_leaf)
        memo.update({id(value): value.detach().clone() for value in computed})
    made = copy.deepcopy(network, memo)
    for name, module in list(made.named_modules()):
        if type(module) is nn.MaxPool2d and name:
            made.set_submodule(name, ChannelsLastMaxPool2d.of(module))
        # Torch's fused transformer layer would read weights and pass the crossbars by.
        if isinstance(module, nn.TransformerEncoderLayer):
            module.activation_relu_or_gelu = 0
        if isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = False
    return made
