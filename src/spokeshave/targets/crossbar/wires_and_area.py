"""Wires and area: what memristor crossbars that hold a network cost, layer by layer.

Wang, Wen, Liu, Chiarulli, Li: Group Scissor, DAC 2017, section 3. A matrix of N inputs x M outputs takes

    area_cells = N M        routing_area = alpha wires^2, alpha = 1,

and its two factors of rank K take K (N + M). Wires are the rows and columns of crossbar tiles that are not all zero.
Shares of routing are against the same tiles with nothing deleted, over matrices that need more than one crossbar.
Departs from the paper: only its abstract could be read. The area model gives its 13.62 % (LeNet, ranks 5, 12, 36) and
51.81 % (ConvNet, ranks 12, 19, 22); the routing model could not be checked, and whether its 8.1 % and 52.06 % are means
over layers or shares of a sum is not known: both are given. Biases, converters and drivers are not counted.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.table import Table
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from spokeshave.errors import InvalidArgument
from spokeshave.structures.tiles import Tiling, crossbar_matrices
from spokeshave.structures.wires import CROSSBAR_SIZE, crossbar_layers, is_single, layer_grid, live_wires
from spokeshave.timing import evaluating


@dataclass(frozen=True)
class LayerCrossbars:
    """The crossbars of one layer.

    Attributes:
        name: in the model.
        matrices: as many as the convolution has groups; each has crossbars of its own.
        inputs, outputs: rows and columns of each matrix.
        tile_inputs, tile_outputs: rows and columns of each crossbar.
        single: True where each matrix fits one crossbar: nothing is routed between crossbars, so its wires are listed
            and not summed.
        crossbars_full: tiles, all of them.
        crossbars: tiles that have a weight that is not zero.
        wires_full: wires of all tiles with nothing deleted.
        wires: rows and columns of tiles that are not all zero.
    """

    name: str
    matrices: int
    inputs: int
    outputs: int
    tile_inputs: int
    tile_outputs: int
    single: bool
    crossbars_full: int
    crossbars: int
    wires_full: int
    wires: int

    @property
    def area_cells(self) -> int:
        """Cells of the matrices, as the paper counts area; zeros count."""
        return self.matrices * self.inputs * self.outputs

    @property
    def crossbar_cells(self) -> int:
        """Cells of the crossbars that are needed, whether used or not; a crossbar of zeros is not needed."""
        return self.crossbars * self.tile_inputs * self.tile_outputs

    @property
    def routing_area(self) -> int:
        """Wires squared (alpha = 1, so wire pitches squared up to a constant)."""
        return self.wires**2

    @property
    def wires_share(self) -> float:
        """Wires left, 0..1."""
        return self.wires / self.wires_full

    @property
    def routing_share(self) -> float:
        """Routing area left, (wires / wires_full)^2, 0..1."""
        return self.wires_share**2

    def to_dict(self) -> dict[str, object]:
        """The layer as plain numbers and strings."""
        names = ("area_cells", "crossbar_cells", "routing_area", "wires_share", "routing_share")
        return dataclasses.asdict(self) | {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class CrossbarCost:
    """What the crossbars of a network cost.

    Attributes:
        layers: in the model's order. Two layers that share one weight are two, as each has crossbars of its own.
        size: most inputs and outputs of a crossbar.
        tiling: how larger matrices are cut.
        not_counted: names of modules with weights (2 dimensions or more) that are neither convolution nor linear layer.
    """

    layers: tuple[LayerCrossbars, ...]
    size: tuple[int, int]
    tiling: Tiling
    not_counted: tuple[str, ...] = ()

    @property
    def routed(self) -> tuple[LayerCrossbars, ...]:
        """Layers whose matrices need more than one crossbar: those that count in wires and routing."""
        return tuple(layer for layer in self.layers if not layer.single)

    @property
    def area_cells(self) -> int:
        """Cells of all matrices."""
        return sum(layer.area_cells for layer in self.layers)

    @property
    def crossbar_cells(self) -> int:
        """Cells of all crossbars that are needed."""
        return sum(layer.crossbar_cells for layer in self.layers)

    @property
    def crossbars(self) -> int:
        """Crossbars that are needed."""
        return sum(layer.crossbars for layer in self.layers)

    @property
    def wires(self) -> int:
        """Wires left in routed layers."""
        return sum(layer.wires for layer in self.routed)

    @property
    def wires_full(self) -> int:
        """Wires of routed layers with nothing deleted."""
        return sum(layer.wires_full for layer in self.routed)

    @property
    def routing_area(self) -> int:
        """Sum of wires^2 over routed layers."""
        return sum(layer.routing_area for layer in self.routed)

    @property
    def wires_share(self) -> float:
        """Wires left of all routed layers together, 0..1; 1 where nothing is routed."""
        return self.wires / self.wires_full if self.routed else 1.0

    @property
    def mean_routing_share(self) -> float:
        """Mean over routed layers of (wires / wires_full)^2, 0..1; 1 where nothing is routed."""
        return sum(layer.routing_share for layer in self.routed) / len(self.routed) if self.routed else 1.0

    @property
    def total_routing_share(self) -> float:
        """Sum of wires^2 / sum of wires_full^2 over routed layers, 0..1: large layers weigh more; 1 where none is."""
        return self.routing_area / sum(layer.wires_full**2 for layer in self.routed) if self.routed else 1.0

    def area_um2(self, feature_size_nm: float, cell_area_f2: float = 4.0, devices_per_weight: int = 1) -> float:
        """Area of the matrices' cells alone, in square micrometres.

        Args:
            feature_size_nm: F, above 0; yours to give, as it is no property of the network.
            cell_area_f2: of one cell in units of F^2, above 0; 4 is the smallest that lines of pitch 2 F allow.
            devices_per_weight: at least 1; 2 where a signed weight is the difference of two cells.

        Raises:
            InvalidArgument: for a number out of its range.

        Example:
            >>> price(nn.Linear(10, 10)).area_um2(feature_size_nm=50)  # 100 cells of 4 x 0.05 x 0.05
            1.0
        """
        if not (0 < feature_size_nm < float("inf") and 0 < cell_area_f2 < float("inf") and devices_per_weight >= 1):
            raise InvalidArgument(
                f"expected sizes above 0 and at least one device a weight, got feature_size_nm={feature_size_nm}, "
                f"cell_area_f2={cell_area_f2}, devices_per_weight={devices_per_weight}"
            )
        return self.area_cells * devices_per_weight * cell_area_f2 * feature_size_nm**2 / 1e6

    def to_dict(self) -> dict[str, object]:
        """The cost as plain dicts, lists, numbers and strings."""
        names = (
            "area_cells", "crossbar_cells", "crossbars", "wires", "wires_full", "routing_area", "wires_share",
            "mean_routing_share", "total_routing_share",
        )  # fmt: skip
        plain: dict[str, object] = {
            "size": list(self.size),
            "tiling": self.tiling.value,
            "not_counted": list(self.not_counted),
        }
        plain.update({name: getattr(self, name) for name in names})
        plain["layers"] = [layer.to_dict() for layer in self.layers]
        return plain

    def table(self) -> Table:
        """The cost as a table for the terminal."""
        notes = [
            f"wires^2, sum over sum: {100 * self.total_routing_share:.2f} %; the last line has the mean over layers"
        ]
        if any(layer.single for layer in self.layers):
            notes.append("wires in brackets: the layer fits one crossbar, so they are not summed")
        if self.not_counted:
            notes.append(f"not counted: {', '.join(self.not_counted)}")
        title = f"crossbars of at most {self.size[0]} x {self.size[1]}, {self.tiling.value} tiles"
        table = Table(title=title, caption="\n".join(notes), show_footer=True, box=SIMPLE_HEAD, pad_edge=False)
        feet = ("all", "", f"{self.crossbars:,}", f"{self.area_cells:,}", f"{self.wires:,}")
        feet += (f"{100 * self.wires_share:.1f} %", f"{100 * self.mean_routing_share:.1f} %")
        headings = ("layer", "tiles", "needed", "cells", "wires", "left", "wires^2")
        for heading, foot in zip(headings, feet, strict=True):
            table.add_column(heading, foot, justify="left" if heading == "layer" else "right")
        for layer in self.layers:
            shares = ("", "") if layer.single else (layer.wires_share, layer.routing_share)
            table.add_row(
                layer.name,
                f"{layer.crossbars_full:,} of {layer.tile_inputs}x{layer.tile_outputs}",
                f"{layer.crossbars:,}",
                f"{layer.area_cells:,}",
                f"({layer.wires:,})" if layer.single else f"{layer.wires:,}",
                *(f"{100 * share:.1f} %" if share != "" else "" for share in shares),
            )
        return table


def price(
    model: nn.Module,
    size: tuple[int, int] = CROSSBAR_SIZE,
    tiling: Tiling = Tiling.BALANCED,
    exclude: Sequence[str] = (),
) -> CrossbarCost:
    """Price a network on crossbars.

    Args:
        model: its convolutions and linear layers are priced, zeros and all; a factorized layer is two layers.
        size: most inputs and outputs of a crossbar, each at least 1.
        tiling: how larger matrices are cut; the paper's tiles are those of `Tiling.DIVISOR`.
        exclude: patterns of layer names to leave out.

    Raises:
        InvalidArgument: for a size below 1, a pattern that nothing matches, or a model without such layers.
        UnsupportedLayer: for a transposed convolution that is not excluded.

    Example:
        >>> cost = price(nn.Linear(100, 3))  # two tiles of 50 x 3
        >>> cost.area_cells, cost.crossbars, cost.wires, cost.routing_area
        (300, 2, 106, 11236)
    """
    with evaluating(model):  # a parametrization such as spectral_norm changes the model in training
        layers = tuple(
            _price_layer(name, module, size, tiling) for name, module in crossbar_layers(model, exclude).items()
        )
    counted = {layer.name for layer in layers} | parametrizations_in(model)
    others = (
        name
        for name, module in model.named_modules()
        if name not in counted and any(parameter.dim() > 1 for parameter in module.parameters(recurse=False))
    )
    return CrossbarCost(layers, size, tiling, tuple(others))


def area_share(model: nn.Module, reference: nn.Module, exclude: Sequence[str] = ()) -> float:
    """Area of one network's matrices over that of another: what rank clipping saves.

    Args:
        model: such as a factorized network.
        reference: such as the dense network it came from.
        exclude: patterns of layer names to leave out of both.

    Raises:
        InvalidArgument, UnsupportedLayer: as `price`.

    Example:
        >>> factors = nn.Sequential(nn.Linear(20, 2, bias=False), nn.Linear(2, 20))
        >>> area_share(factors, nn.Linear(20, 20))  # 2 (20 + 20) / 400
        0.2
    """
    return price(model, exclude=exclude).area_cells / price(reference, exclude=exclude).area_cells


def parametrizations_in(model: nn.Module) -> set[str]:
    """Names of modules that compute weights of other modules (`torch.nn.utils.parametrize`)."""
    lists = [
        f"{name}.parametrizations".lstrip(".") for name, module in model.named_modules() if is_parametrized(module)
    ]
    return {name for name, _ in model.named_modules() if any(f"{name}.".startswith(f"{place}.") for place in lists)}


def _price_layer(name: str, module: nn.Module, size: tuple[int, int], tiling: Tiling) -> LayerCrossbars:
    matrices: Tensor = crossbar_matrices(name, module).detach()
    grid = layer_grid(name, module, size, tiling)
    wires = [live_wires(matrix, grid) for matrix in matrices]
    return LayerCrossbars(
        name=name,
        matrices=len(matrices),
        inputs=grid.inputs,
        outputs=grid.outputs,
        tile_inputs=grid.tile_inputs,
        tile_outputs=grid.tile_outputs,
        single=is_single(grid),
        crossbars_full=len(matrices) * grid.rows * grid.columns,
        crossbars=sum(found.crossbars for found in wires),
        wires_full=len(matrices) * grid.wires,
        wires=sum(found.count for found in wires),
    )
