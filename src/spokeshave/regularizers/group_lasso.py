"""Group lasso: Structured Sparsity Learning (SSL), the pull toward whole filters, channels, shapes or layers of zeros.

Wen, Wu, Wang, Chen, Li: Learning Structured Sparsity in Deep Neural Networks, NIPS 2016, equations 1 to 4:

    E(W) = E_D(W) + sum over kinds k, layers l, groups g of  lambda_k * mu_l * ||W_l^(g)||,   mu_l ~ sqrt(group size)

Wang et al., Group Scissor, DAC 2017, section 3.2 (group connection deletion): groups are the rows and columns of
crossbar tiles, mu_l = 1 (`weighting=False`); only matrices that need more than one crossbar are pulled.
Departs from the papers: the default solver is a proximal step, which makes groups exactly zero and needs no threshold;
`Solver.SUBGRADIENT` is the authors' (add lambda W/||W||, then set single weights under 1e-4 to zero, in the watched
layers instead of in every parameter). Where kinds overlap (filters and shapes), the proximal steps are taken one kind
after the other, which is exact for nested kinds and the usual approximation for crossing ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatch
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from spokeshave.errors import InvalidArgument
from spokeshave.regularizers.optimizer_hooks import Attachment, add_to_gradient
from spokeshave.regularizers.proximal_step import shrink_groups, step_metric
from spokeshave.structures.groups import CONVOLUTIONS, TRANSPOSED, Grouping, GroupKind, plain_weight
from spokeshave.structures.sparsity import LayerSparsity, layer_sparsity
from spokeshave.structures.tiles import Tiling
from spokeshave.structures.wires import CROSSBAR_SIZE, is_single, layer_grid, wire_groupings

Strengths = float | Mapping[str, float]
"""One strength for all layers of a kind, or strengths by a pattern on the layer's name; unnamed layers get none."""


class Solver(Enum):
    """How the penalty acts on the weights."""

    PROXIMAL = "proximal"
    """A shrinkage after each optimizer step; zero groups are exactly zero and may revive."""
    SUBGRADIENT = "subgradient"
    """The authors' rule: lambda W/||W|| is added to the gradient, weights under a threshold are set to zero."""


@dataclass(frozen=True)
class _Watched:
    layer: str
    module: nn.Module
    grouping: Grouping
    lambdas: Tensor  # one a group, before the overall strength


def group_energy(
    weight: Float[Tensor, "..."], grouping: Grouping, lambdas: Float[Tensor, " groups"]
) -> Float[Tensor, ""]:
    """Sum over groups of lambda * ||W_g||, differentiable; an all-zero group has gradient 0.

    Example:
        >>> rows = Grouping((2, 2), GroupKind.FILTER)
        >>> group_energy(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), rows, torch.tensor([2.0, 2.0])).item()
        10.0
    """
    return (lambdas * grouping.norms(weight)).sum()


def group_force(
    weight: Float[Tensor, "..."], grouping: Grouping, lambdas: Float[Tensor, " groups"]
) -> Float[Tensor, "..."]:
    """lambda * W / ||W_g||, the gradient of `group_energy`; 0 where the group is all zero (the authors' 0/0)."""
    norms = grouping.norms(weight)
    return weight * grouping.spread(torch.where(norms > 0, lambdas / norms.clamp_min(1e-38), 0.0))


class GroupLasso:
    """Pulls groups of weights of a model to zero while it is trained, in any training loop.

    Every strength is lambda of the paper, per unit of loss: a number for all layers, or a mapping from a pattern on
    layer names (`"layer1.*"`) to a number. `filters`, `channels`, `shapes`, `kernels` and `depth` act on convolutions,
    `rows` (outputs) and `columns` (inputs) on linear layers, `tiles` on the lowered matrices of both, `tile_rows` and
    `tile_columns` on the crossbars that hold both (not on transposed convolutions).

    Args:
        model: its weights are watched, not changed by making this object.
        filters: W[n,:,:,:], the rows of the lowered matrix.
        channels: W[:,c,:,:].
        shapes: W[:,c,m,k], the columns of the lowered matrix.
        kernels: W[n,c,:,:].
        depth: a whole convolution; give it only to layers beside a shortcut.
        rows: outputs of linear layers. Leave the classifier out, or classes are pulled to zero.
        columns: inputs of linear layers.
        tiles: blocks of `tile` = (rows, columns) of the lowered matrix.
        tile: sizes of a block, with `tiles`.
        tile_rows: input wires of crossbars: one input of one tile of the crossbar matrix, inputs x outputs.
        tile_columns: output wires of crossbars: one output of one tile.
        crossbar: most inputs and outputs of a crossbar, with `tile_rows` and `tile_columns`.
        tiling: how a matrix that is larger than a crossbar is cut.
        single_crossbars: pull the wires also of matrices that fit one crossbar; the paper leaves those alone, as
            nothing of them is routed between crossbars.
        solver: how the penalty acts.
        weighting: scale lambda by sqrt(group size / smallest group size of the kind), as the authors of SSL do; those
            of Group Scissor do not.
        strength: overall factor, at least 0; may be changed at any time.
        threshold: of `Solver.SUBGRADIENT`: weights below it in magnitude become 0 after each step.
        exclude: patterns of layer names to leave alone.

    Raises:
        InvalidArgument: for a negative or non-finite strength, a pattern that no layer matches, or nothing to watch.
        UnsupportedLayer: for a layer whose weight is computed by a parametrization; exclude it.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False))
        >>> _ = model[0].weight.data.fill_(0.5)
        >>> GroupLasso(model, filters=2.0).energy().item()  # 2 filters of norm 0.5
        2.0
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        filters: Strengths = 0.0,
        channels: Strengths = 0.0,
        shapes: Strengths = 0.0,
        kernels: Strengths = 0.0,
        depth: Strengths = 0.0,
        rows: Strengths = 0.0,
        columns: Strengths = 0.0,
        tiles: Strengths = 0.0,
        tile: tuple[int, int] | None = None,
        tile_rows: Strengths = 0.0,
        tile_columns: Strengths = 0.0,
        crossbar: tuple[int, int] = CROSSBAR_SIZE,
        tiling: Tiling = Tiling.BALANCED,
        single_crossbars: bool = False,
        solver: Solver = Solver.PROXIMAL,
        weighting: bool = True,
        strength: float = 1.0,
        threshold: float = 1e-4,
        exclude: Sequence[str] = (),
    ) -> None:
        _check_strength("strength", strength)
        _check_strength("threshold", threshold)
        for pattern in exclude:
            if not any(fnmatch(name, pattern) for name, _ in model.named_modules()):
                raise InvalidArgument(f"exclude: no layer is named {pattern!r}")
        self.strength = strength
        self.solver = solver
        self.threshold = threshold
        layers = {
            name: module
            for name, module in model.named_modules()
            if isinstance(module, (*CONVOLUTIONS, nn.Linear)) and not any(fnmatch(name, p) for p in exclude)
        }
        convolutions = {name: module for name, module in layers.items() if not isinstance(module, nn.Linear)}
        linears = {name: module for name, module in layers.items() if isinstance(module, nn.Linear)}
        if tiles and tile is None:
            raise InvalidArgument("tiles needs tile=(rows, columns), the size of a block of the lowered matrix")
        self._watched: list[_Watched] = []
        self.strengths: dict[str, Strengths] = {"tile_rows": tile_rows, "tile_columns": tile_columns}
        for argument, kind, strengths, among in (
            ("depth", GroupKind.LAYER, depth, convolutions),
            ("filters", GroupKind.FILTER, filters, convolutions),
            ("channels", GroupKind.CHANNEL, channels, convolutions),
            ("shapes", GroupKind.SHAPE, shapes, convolutions),
            ("kernels", GroupKind.KERNEL, kernels, convolutions),
            ("rows", GroupKind.FILTER, rows, linears),
            ("columns", GroupKind.CHANNEL, columns, linears),
            ("tiles", GroupKind.TILE, tiles, layers),
        ):
            self.strengths[argument] = strengths
            size = tile if kind is GroupKind.TILE else None
            chosen = {
                name: (value, Grouping.of(among[name], kind, size))
                for name, value in _strength_by_layer(argument, strengths, among).items()
            }
            self._watched += _weighted(chosen, layers, weighting)
        wires = _wires(layers, crossbar, tiling, single_crossbars) if tile_rows or tile_columns else {}
        hint = "" if single_crossbars else f" (single_crossbars=True takes those that fit one crossbar {crossbar} too)"
        for argument, strengths, place in (("tile_rows", tile_rows, 0), ("tile_columns", tile_columns, 1)):
            found = _strength_by_layer(argument, strengths, {name: layers[name] for name in wires}, hint)
            pairs = {name: (value, wires[name][place]) for name, value in found.items()}
            self._watched += _weighted(pairs, layers, weighting)
        if not self._watched:
            raise InvalidArgument(
                f"nothing to pull: every strength is 0, or the model has none of the layers they act on; it has "
                f"{len(convolutions)} convolutions and {len(linears)} linear layers after exclude={tuple(exclude)}"
                + (f", none of which has wires between crossbars{hint}" if tile_rows or tile_columns else "")
            )

    def energy(self) -> Float[Tensor, ""]:
        """The penalty, to be added to a loss or watched; differentiable."""
        terms = [group_energy(_weight(item), item.grouping, item.lambdas.to(_weight(item))) for item in self._watched]
        return self.strength * torch.stack([term.to(terms[0].device) for term in terms]).sum()

    @torch.no_grad()
    def pull(self) -> None:
        """Add the gradient of `energy` to `.grad` of every watched weight (made where it is None)."""
        for item in self._watched:
            weight = _weight(item)
            add_to_gradient(weight, group_force(weight, item.grouping, self.strength * item.lambdas.to(weight)))

    def attach(self, optimizer: Optimizer) -> Attachment:
        """Let the penalty act at every step of an optimizer.

        Args:
            optimizer: must hold at least one watched weight; those it does not hold are left to another one.

        Returns:
            A handle; `handle.remove()` undoes the attachment.

        Raises:
            InvalidArgument: where it holds none of them, or the proximal solver does not know its kind.
        """
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        mine = [item for item in self._watched if id(_weight(item)) in held and _weight(item).requires_grad]
        if not mine:
            raise InvalidArgument(
                "the optimizer holds none of the watched weights, or those are frozen: make it from the same model, "
                "after moving that model to its device"
            )
        if self.solver is Solver.SUBGRADIENT:
            return Attachment(optimizer, before=lambda _: self.pull(), after=lambda _: self._zero_small(mine))
        step_metric(optimizer, _weight(mine[0]))
        return Attachment(optimizer, after=lambda stepped: self._shrink(stepped, mine))

    def statistics(self) -> dict[str, LayerSparsity]:
        """Shares of exact zeros of each watched layer."""
        return {item.layer: layer_sparsity(item.module) for item in self._watched}

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold: the overall strength, which a user may have changed while training."""
        return {"strength": torch.tensor(self.strength, dtype=torch.float64)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.strength = float(state["strength"])

    @torch.no_grad()
    def _shrink(self, optimizer: Optimizer, watched: Sequence[_Watched]) -> None:
        for item in watched:
            weight = _weight(item)
            step, metric = step_metric(optimizer, weight)
            thresholds = step * self.strength * item.lambdas.to(weight)
            weight.copy_(shrink_groups(weight, item.grouping, thresholds, metric))

    @torch.no_grad()
    def _zero_small(self, watched: Sequence[_Watched]) -> None:
        for item in watched:
            weight = _weight(item)
            weight.masked_fill_(weight.abs() < self.threshold, 0.0)


def _weight(item: _Watched) -> Tensor:
    return item.module.get_parameter("weight")


def _check_strength(where: str, value: float) -> None:
    if not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
        raise InvalidArgument(f"{where} must be a finite number of at least 0, got {value}")


def _strength_by_layer(
    argument: str, strengths: Strengths, layers: Mapping[str, nn.Module], hint: str = ""
) -> dict[str, float]:
    if not isinstance(strengths, Mapping):
        _check_strength(argument, strengths)
        return dict.fromkeys(layers, float(strengths)) if strengths else {}
    chosen: dict[str, float] = {}
    for pattern, value in strengths.items():
        _check_strength(f"{argument}[{pattern!r}]", value)
        matching = [name for name in layers if fnmatch(name, pattern)]
        if not matching:
            raise InvalidArgument(
                f"{argument}: no layer is named {pattern!r}; it acts on {', '.join(layers) or 'none'}{hint}"
            )
        chosen.update(dict.fromkeys(matching, float(value)))
    return {name: value for name, value in chosen.items() if value}


def _wires(
    layers: Mapping[str, nn.Module], crossbar: tuple[int, int], tiling: Tiling, single_crossbars: bool
) -> dict[str, tuple[Grouping, Grouping]]:
    """Input and output wires of the layers that crossbars hold."""
    wires = {}
    for name, module in layers.items():
        if not isinstance(module, TRANSPOSED):
            grid = layer_grid(name, module, crossbar, tiling)
            if single_crossbars or not is_single(grid):
                wires[name] = wire_groupings(module, grid)
    return wires


def _weighted(
    chosen: Mapping[str, tuple[float, Grouping]], layers: Mapping[str, nn.Module], weighting: bool
) -> list[_Watched]:
    """Strength and grouping of the layers of one kind -> what is watched of them."""
    sizes = {name: grouping.sizes().double() for name, (_, grouping) in chosen.items()}
    smallest = min((size.min().item() for size in sizes.values()), default=1.0)
    watched: list[_Watched] = []
    seen: set[int] = set()
    for name, (value, grouping) in chosen.items():
        parameter = plain_weight(name, layers[name])
        if id(parameter) in seen:  # a weight tied between layers is pulled once
            continue
        seen.add(id(parameter))
        scale = (sizes[name] / smallest).sqrt() if weighting else torch.ones_like(sizes[name])
        watched.append(_Watched(name, layers[name], grouping, value * scale))
    return watched
