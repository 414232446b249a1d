"""Delete connections: the weakest wires of crossbars go, so that less has to be routed between them.

Wang, Wen, Liu, Chiarulli, Li: Group Scissor, DAC 2017, section 3.2: after group lasso on the rows and columns of
crossbar tiles (`GroupLasso(tile_rows=..., tile_columns=...)`), groups near zero become zero and are
frozen, and the rest is fine-tuned.

    a wire goes where ||its weights|| <= cut,   cut = threshold * mean norm of the layer's wires, or what `keep` needs

Departs from the paper: a share of wires may be asked for instead of a threshold. Rows and columns are ranked together
by norm, since deleting either takes the square of its norm from the weights and saves one wire.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch

import torch
from jaxtyping import Float
from rich.box import SIMPLE_HEAD
from rich.table import Table
from torch import Tensor, nn

from spokeshave.errors import InvalidArgument, NothingChanged
from spokeshave.rewrites.verification import probes_like, relative_error
from spokeshave.structures.example_inputs import as_inputs
from spokeshave.structures.groups import plain_weight
from spokeshave.structures.tiles import TileGrid, Tiling, crossbar_matrices, from_crossbar_matrices
from spokeshave.structures.wires import CROSSBAR_SIZE, crossbar_layers, is_single, layer_grid
from spokeshave.targets.crossbar.wires_and_area import CrossbarCost, LayerCrossbars, price

ByLayer = float | Mapping[str, float]
"""One number for all layers, or numbers by a pattern on the layer's name; the last pattern that matches counts."""


@dataclass(frozen=True)
class DeletionReport:
    """What a call of `delete_connections` changed.

    Attributes:
        before, after: the crossbars of both networks.
        max_relative_error: largest max|new - old| / max|old| over the probes.
    """

    before: CrossbarCost
    after: CrossbarCost
    max_relative_error: float

    @property
    def layers(self) -> tuple[tuple[LayerCrossbars, LayerCrossbars], ...]:
        """Before and after of each layer that is routed or lost wires."""
        pairs = zip(self.before.layers, self.after.layers, strict=True)
        return tuple(pair for pair in pairs if not pair[0].single or pair[0].wires != pair[1].wires)

    def to_dict(self) -> dict[str, object]:
        """The report as plain dicts, lists, numbers and strings."""
        layers = [
            {
                "name": after.name,
                "tiles": after.crossbars_full,
                "wires_before": before.wires,
                "wires_after": after.wires,
                "wires_share": after.wires_share,
                "routing_share": after.routing_share,
                "crossbars_before": before.crossbars,
                "crossbars_after": after.crossbars,
            }
            for before, after in self.layers
        ]
        return {
            "max_relative_error": self.max_relative_error,
            "layers": layers,
            "before": self.before.to_dict(),
            "after": self.after.to_dict(),
        }

    def table(self) -> Table:
        """The report as a table for the terminal; shares are of all wires that the tiles can have."""
        title = f"wires between crossbars: {self.before.wires:,} -> {self.after.wires:,}"
        caption = (
            f"outputs moved by {self.max_relative_error:.2g} of the largest; shares: of wires with nothing deleted"
        )
        table = Table(title=title, caption=caption, show_footer=True, box=SIMPLE_HEAD, pad_edge=False)
        feet = ("all", f"{self.before.crossbars:,}", f"{self.after.crossbars:,}", f"{self.before.wires:,}")
        feet += (f"{self.after.wires:,}", f"{100 * self.after.wires_share:.1f} %")
        feet += (f"{100 * self.after.mean_routing_share:.1f} %",)
        headings = ("layer", "crossbars", "after", "wires", "after", "left", "wires^2")
        for heading, foot in zip(headings, feet, strict=True):
            table.add_column(heading, foot, justify="left" if heading == "layer" else "right")
        for before, after in self.layers:
            counts = (before.crossbars, after.crossbars, before.wires, after.wires)
            shares = (after.wires_share, after.routing_share)
            table.add_row(after.name, *(f"{n:,}" for n in counts), *(f"{100 * share:.1f} %" for share in shares))
        return table


def without_weak_wires(
    matrices: Float[Tensor, "groups inputs outputs"], grid: TileGrid, cut: float
) -> Float[Tensor, "groups inputs outputs"]:
    """Zero the rows and columns of tiles whose norm is at most `cut`; all are judged before any is zeroed.

    Args:
        matrices: of one layer, as crossbars hold it.
        grid: how each is cut.
        cut: largest norm that goes, at least 0.

    Example:
        >>> grid = TileGrid.of(2, 2, (2, 2))  # rows of norms 5 and 0.1, columns of norms 3 and about 4
        >>> without_weak_wires(torch.tensor([[[3.0, 4.0], [0.0, 0.1]]]), grid, 3.5)
        tensor([[[0., 4.],
                 [0., 0.]]])
    """
    tiles = torch.stack([grid.cut(matrix) for matrix in matrices])
    rows, columns = _norms(tiles)
    kept = tiles * ((rows > cut).unsqueeze(-1) & (columns > cut).unsqueeze(-2))
    return torch.stack([grid.join(tile) for tile in kept])


def cut_for_share(matrices: Float[Tensor, "groups inputs outputs"], grid: TileGrid, keep: float) -> float:
    """The smallest cut that leaves at most `keep` of the wires; wires that others leave empty count as gone.

    Args:
        matrices: of one layer, as crossbars hold it.
        grid: how each is cut.
        keep: share of the layer's wires with nothing deleted, 0..1.

    Example:
        >>> grid = TileGrid.of(2, 2, (2, 2))
        >>> round(cut_for_share(torch.tensor([[[3.0, 4.0], [0.0, 0.1]]]), grid, 0.75), 4)  # the second row goes
        0.1
    """
    tiles = torch.stack([grid.cut(matrix) for matrix in matrices])
    rows, columns = _norms(tiles)
    alive = tiles != 0
    most = keep * len(matrices) * grid.wires + 1e-9

    def wires_left(cut: float) -> int:
        kept = alive & (rows > cut).unsqueeze(-1) & (columns > cut).unsqueeze(-2)
        return int(kept.any(-1).sum()) + int(kept.any(-2).sum())

    cuts = torch.cat([rows.flatten(), columns.flatten(), rows.new_zeros(1)]).unique().tolist()
    low, high = 0, len(cuts) - 1  # the wires left fall as the cut rises, and none is left at the largest norm
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if wires_left(cuts[middle]) <= most else (middle + 1, high)
    return cuts[low]


def delete_connections(
    model: nn.Module,
    example: object,
    *,
    keep: ByLayer | None = None,
    threshold: ByLayer | None = None,
    size: tuple[int, int] = CROSSBAR_SIZE,
    tiling: Tiling = Tiling.BALANCED,
    single_crossbars: bool = False,
    exclude: Sequence[str] = (),
) -> tuple[nn.Module, DeletionReport]:
    """Set the weakest rows and columns of crossbar tiles to zero.

    Args:
        model: any module; it is not modified. Biases are left alone.
        example: input with its batch on axis 0; the report says how far the outputs moved on it and on random ones.
        keep: share of wires that may stay, 0..1: of each layer, or by a pattern on its name. Give it or `threshold`.
        threshold: wires go whose norm is at most this times the mean norm of the layer's wires that are not zero, at
            least 0; for a network that a group lasso has trained.
        size: most inputs and outputs of a crossbar.
        tiling: how larger matrices are cut; both as in the training.
        single_crossbars: take layers too that fit one crossbar; by default they are left alone, as in the paper.
        exclude: patterns of layer names to leave alone, and out of the report.

    Returns:
        a copy of the model with the zeros in place, and the report. Fine-tune the copy under
        `Freeze(copy, Frozen.ELEMENTS)`, which holds every deleted wire (and every other weight that is zero by then).

    Raises:
        NothingChanged: no wire went.
        InvalidArgument: for a number out of its range, both or neither of `keep` and `threshold`, a pattern that no
            layer matches, weights that are not finite, or a model without convolution and linear layer.
        UnsupportedLayer: for a transposed convolution or a parametrized weight that is not excluded.

    Example:
        >>> net = nn.Linear(4, 2, bias=False)
        >>> _ = net.weight.data.copy_(torch.tensor([[3.0, 0.1, 0.0, 0.2], [4.0, 0.0, 0.1, 0.2]]))
        >>> new, report = delete_connections(net, torch.ones(1, 4), threshold=0.5, size=(2, 2))
        >>> new.weight.tolist(), (report.before.wires, report.after.wires)
        ([[3.0, 0.0, 0.0, 0.0], [4.0, 0.0, 0.0, 0.0]], (8, 3))
    """
    if not isinstance(model, nn.Module):
        raise InvalidArgument(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    if (keep is None) == (threshold is None):
        raise InvalidArgument(f"give either keep or threshold, got keep={keep} and threshold={threshold}")
    new = copy.deepcopy(model)
    layers = crossbar_layers(new, exclude)
    grids = {name: layer_grid(name, module, size, tiling) for name, module in layers.items()}
    among = [name for name, grid in grids.items() if single_crossbars or not is_single(grid)]
    if not among:
        raise NothingChanged(
            f"nothing to delete: each of {', '.join(layers)} fits one crossbar of {size}, so no wire runs between "
            "crossbars; give a smaller size, or single_crossbars=True"
        )
    chosen = _by_layer("keep", keep, among, 1.0) if keep is not None else _by_layer("threshold", threshold, among)
    for name, number in chosen.items():
        weight = plain_weight(name, layers[name])
        matrices = crossbar_matrices(name, layers[name]).detach()
        if not torch.isfinite(matrices).all():
            raise InvalidArgument(
                f"{name}: a weight is not finite, so its wires cannot be ranked; look at the training"
            )
        cut = (
            cut_for_share(matrices, grids[name], number) if keep is not None else number * _mean(matrices, grids[name])
        )
        weight.data.copy_(from_crossbar_matrices(without_weak_wires(matrices, grids[name], cut), weight))
    before, after = price(model, size, tiling, exclude), price(new, size, tiling, exclude)
    if all(a.wires == b.wires for a, b in zip(before.layers, after.layers, strict=True)):
        asked = f"keep={keep}" if keep is not None else f"threshold={threshold}"
        raise NothingChanged(
            f"nothing to delete: {asked} takes none of the {sum(layer.wires for layer in before.layers):,} wires; "
            "lower keep, raise the threshold, or train with GroupLasso(tile_rows=..., tile_columns=...) first"
        )
    return new, DeletionReport(before, after, _error(new, model, example))


def _norms(
    tiles: Float[Tensor, "groups rows columns tile_inputs tile_outputs"],
) -> tuple[Float[Tensor, "groups rows columns tile_inputs"], Float[Tensor, "groups rows columns tile_outputs"]]:
    squares = tiles.double().square()
    return squares.sum(-1).sqrt(), squares.sum(-2).sqrt()


def _mean(matrices: Float[Tensor, "groups inputs outputs"], grid: TileGrid) -> float:
    """Mean norm of the wires that are not zero; 0 where all are."""
    rows, columns = _norms(torch.stack([grid.cut(matrix) for matrix in matrices]))
    norms = torch.cat([rows.flatten(), columns.flatten()])
    return float(norms[norms > 0].mean()) if norms.any() else 0.0


def _by_layer(
    argument: str, numbers: ByLayer | None, among: Sequence[str], most: float = float("inf")
) -> dict[str, float]:
    chosen: dict[str, float] = {}
    for pattern, number in (numbers if isinstance(numbers, Mapping) else {"*": numbers}).items():
        if not isinstance(number, int | float) or not 0 <= number <= most or number == float("inf"):
            raise InvalidArgument(f"{argument}[{pattern!r}]: expected a number of 0..{most}, got {number}")
        matching = [name for name in among if fnmatch(name, pattern)]
        if not matching:
            raise InvalidArgument(
                f"{argument}: no layer of more than one crossbar is named {pattern!r}; there are {', '.join(among)}; "
                "single_crossbars=True takes smaller ones too"
            )
        chosen.update(dict.fromkeys(matching, float(number)))
    return chosen


def _error(new: nn.Module, old: nn.Module, example: object) -> float:
    both = [copy.deepcopy(network).eval() for network in (new, old)]
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        return max(
            relative_error(both[0](*probe), both[1](*probe)) for probe in probes_like(as_inputs(example), count=2)
        )
