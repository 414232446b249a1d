"""Rank clipping: layers are trained as products of two factors, and lose rank whenever the error of that is small.

Wang, Wen, Liu, Chiarulli, Li: Group Scissor, DAC 2017, section 3.1, algorithm 1: W = U V^T at full rank; every S steps
the smallest K' with error(K') <= epsilon is found by PCA of U, and U <- U', V^T <- V'^T V^T.
In the words of this package U^T is `basis` and V is `combination` of a `FactorizedLayer`.
Departs from the paper: the optimizer's memory is carried over, where the authors start a new solver; `Measured.PRODUCT`
takes the error of the layer itself, not that of one factor. Weight decay acts on both factors, as in the authors' code;
balanced, that is the nuclear norm of the layer, and it is what makes ranks fall.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from enum import Enum

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from spokeshave.errors import CheckpointError, InvalidArgument, TrainingDiverged
from spokeshave.processes import from_first
from spokeshave.regularizers.optimizer_hooks import Attachment
from spokeshave.rewrites.change_of_basis import (
    Change,
    carried,
    check_states,
    clip_by_basis,
    clip_by_product,
    product_energies,
    replace_parameter,
)
from spokeshave.rewrites.clipped_layers import clipped_layers, errors_of, full_rank, known_layers, least_of
from spokeshave.rewrites.splittable_layers import put_in_place
from spokeshave.structures.factorized_layer import FactorizedLayer
from spokeshave.structures.projected_attention import leave_fused_paths
from spokeshave.structures.spectrum import break_even_rank, principal_components, rank_for_error


class Measured(Enum):
    """What the error of a smaller rank is taken of."""

    BASIS = "basis"
    """The basis filters alone, as the authors do."""
    PRODUCT = "product"
    """The layer."""


class RankClipping:
    """Makes layers of a model into products, in place, and lowers their ranks while the model is trained.

    It acts through hooks of the optimizer, so it goes with any loop. When a rank changes, the weights of that layer are
    new parameters; the optimizer is told, and what it remembers (momentum, moments) is carried over. Anything else that
    holds on to parameters must be made again when `changes` has grown, DistributedDataParallel above all; `ss.train`
    does so by itself.

    Args:
        model: changed in place: its layers become `FactorizedLayer`s.
        optimizer: to act on at once; None to `attach` later.
        max_error: epsilon: share of the squared norm that a clip may lose, at least 0 and below 1: of all layers, or by
            pattern on their names.
        every: S, steps between clips, at least 1.
        until: no clip after so many steps; None for no end.
        least: rank that is not cut, at least 1: of all layers, or by pattern on names (1 where none matches).
        layers: patterns of the layers' names; None is every convolution and linear layer but the last linear one.
        exclude: patterns of those to leave whole.
        measured: what the error is taken of.
        strength: 1 clips, 0 does not.

    Raises:
        InvalidArgument: for a number out of its range, a pattern that no layer matches, no layer, or an optimizer that
            does not hold the weights.
        UnsupportedLayer: for a layer that cannot become a product: its weight is frozen, computed by a parametrization
            or tied to another layer's, or the layer has hooks.

    Example:
        >>> model = nn.Sequential(nn.Linear(8, 6, bias=False), nn.Linear(6, 2))
        >>> _ = model[0].weight.data.copy_(torch.ones(6, 8))  # rank 1
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        >>> clipping = RankClipping(model, optimizer, max_error=0.01, every=1)
        >>> model(torch.zeros(1, 8)).sum().backward()
        >>> optimizer.step()
        >>> clipping.ranks
        {'0': 1}
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer | None = None,
        *,
        max_error: float | Mapping[str, float] = 0.01,
        every: int = 500,
        until: int | None = None,
        least: int | Mapping[str, int] = 1,
        layers: Sequence[str] | None = None,
        exclude: Sequence[str] = (),
        measured: Measured = Measured.PRODUCT,
        strength: float = 1.0,
    ) -> None:
        if every < 1 or (until is not None and until < 0) or strength not in (0.0, 1.0):
            raise InvalidArgument(
                f"expected every >= 1, until >= 0 or None and strength 0 or 1, got {every}, {until} and {strength}"
            )
        self.every, self.until, self.measured, self.strength = every, until, measured, strength
        self.max_error, self.least = max_error, least
        self.step = self.changes = 0
        found = clipped_layers(model, layers, exclude)
        known = list(known_layers(model))
        self._errors = errors_of(max_error, list(found), known)
        self._least = least_of(least, list(found), known)
        self._model = model
        self._layers: dict[str, FactorizedLayer] = {}
        self._begun: dict[nn.Parameter, FactorizedLayer] = {}
        replaced: dict[nn.Module, nn.Module] = {}
        for name, module in found.items():
            self._layers[name] = module if isinstance(module, FactorizedLayer) else full_rank(name, module)
            if module is not self._layers[name]:
                replaced[module] = self._layers[name]
                self._begun[module.get_parameter("weight")] = self._layers[name]
        if optimizer is not None:
            self._check_held(optimizer)  # before the model is touched
        put_in_place(model, replaced)
        leave_fused_paths(model, (FactorizedLayer,))
        self._attached: list[tuple[Optimizer, Attachment]] = []
        self.attachment = None if optimizer is None else self.attach(optimizer)

    @property
    def ranks(self) -> dict[str, int]:
        """Rank of each layer, a convolution group."""
        return {name: layer.rank for name, layer in self._layers.items()}

    def energy(self) -> Tensor:
        """0: no penalty belongs to it."""
        return torch.zeros(())

    def pull(self) -> None:
        """Nothing: gradients are left alone."""

    def attach(self, optimizer: Optimizer) -> Attachment:
        """Clip every S steps of an optimizer, which may have been made before or after this object.

        Returns:
            A handle; `handle.remove()` ends the clipping, the layers stay products.

        Raises:
            InvalidArgument: where the optimizer holds none of the layers' weights, or is attached already.
        """
        if any(attached is optimizer and handle.active for attached, handle in self._attached):
            raise InvalidArgument("this optimizer is attached already; remove its handle first")
        self._check_held(optimizer)
        held = _held(optimizer)
        for old, layer in self._begun.items():
            if id(old) in held:
                _hand_over(optimizer, old, layer)
        self._begun = {old: layer for old, layer in self._begun.items() if id(old) not in held}
        handle = Attachment(optimizer, after=self._after)
        self._attached.append((optimizer, handle))
        return handle

    @torch.no_grad()
    def clip(self) -> dict[str, int]:
        """Lower every rank that may be lowered now.

        Returns:
            The new rank of each layer that changed.
        """
        names = list(self._layers)
        wanted = [self._rank_for(name) for name in names]
        # All processes of a run must cut alike, though their last bits may differ.
        ranks = [int(rank) for rank in from_first(wanted)]
        changed = {}
        for name, rank in zip(names, ranks, strict=True):
            if rank < self._layers[name].rank:
                self._cut(self._layers[name], rank)
                changed[name] = rank
        self.changes += bool(changed)
        return changed

    @torch.no_grad()
    def finish(self) -> nn.Module:
        """A copy of the model in which layers that their factors do not make smaller are whole again."""
        whole = copy.deepcopy(self._model)
        whole_again: dict[nn.Module, nn.Module] = {}
        for name, layer in list(whole.named_modules()):
            if isinstance(layer, FactorizedLayer) and name in self._layers:
                taps = layer.factors()[0].shape[1]
                if layer.rank > break_even_rank(taps, layer.outputs):
                    whole_again[layer] = layer.merged()
        put_in_place(whole, whole_again)
        return whole

    def state_dict(self) -> dict[str, Tensor]:
        """Steps so far, and the rank of each layer."""
        ranks = {f"rank.{name}": torch.tensor(rank) for name, rank in self.ranks.items()}
        return {"step": torch.tensor(self.step), **ranks}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over the steps and ranks of a checkpoint; the factors get its shapes, their values come with the model.

        Call it before `model.load_state_dict` and `optimizer.load_state_dict`.

        Raises:
            CheckpointError: where the layers are not this model's, or a rank is out of its range.
        """
        damaged = [key for key, value in state.items() if value.numel() != 1 or value.is_floating_point()]
        if damaged:
            raise CheckpointError(f"expected whole numbers, one each, in {damaged}: the file is damaged")
        ranks = {key.removeprefix("rank."): int(value) for key, value in state.items() if key.startswith("rank.")}
        if set(ranks) != set(self._layers) or int(state.get("step", torch.tensor(-1))) < 0:
            raise CheckpointError(
                f"the ranks belong to another model: expected {sorted(self._layers)}, got {sorted(ranks)}"
            )
        for name, rank in ranks.items():
            layer = self._layers[name]
            if not 1 <= rank <= layer.rank:
                raise CheckpointError(f"{name}: expected a rank of 1..{layer.rank}, got {rank}: the file is damaged")
        for name, rank in ranks.items():
            if rank < self._layers[name].rank:
                self._cut(self._layers[name], rank)
        self.step = int(state["step"])
        self.changes += 1

    def _check_held(self, optimizer: Optimizer) -> None:
        held = _held(optimizer)
        factors = (layer.basis.get_parameter("weight") for layer in self._layers.values())
        if not any(id(weight) in held for weight in (*self._begun, *factors)):
            raise InvalidArgument(
                "the optimizer holds none of the weights that are to be clipped: make it from the same model"
            )

    def _after(self, optimizer: Optimizer) -> None:
        if optimizer is not next(attached for attached, handle in self._attached if handle.active):
            return  # of several optimizers, the steps of the first one count
        self.step += 1
        if self.step % self.every == 0 and self.strength and (self.until is None or self.step <= self.until):
            self.clip()

    def _rank_for(self, name: str) -> int:
        """Smallest rank that no convolution group loses more than the layer's error by."""
        layer = self._layers[name]
        if not all(torch.isfinite(factor).all() for factor in layer.factors()):
            raise TrainingDiverged(
                f"rank clipping: a weight of {name} is not finite after step {self.step}; lower the learning rate"
            )
        return max(
            min(int(self._least[name]), layer.factors()[0].shape[1]),  # more directions than taps there are not
            *(
                rank_for_error(
                    product_energies(basis, combination)
                    if self.measured is Measured.PRODUCT
                    else principal_components(basis)[0],
                    self._errors[name],
                )
                for basis, combination in _groups(layer)
            ),
        )

    def _cut(self, layer: FactorizedLayer, rank: int) -> None:
        make = clip_by_product if self.measured is Measured.PRODUCT else clip_by_basis
        changes = [make(basis.detach(), combination.detach(), rank) for basis, combination in _groups(layer)]
        old = [module.get_parameter("weight") for module in (layer.basis, layer.combination)]
        for optimizer, _ in self._attached:
            for weight in old:
                check_states(optimizer, weight)
        layer.set_factors(torch.cat([c.basis for c in changes]), torch.cat([c.combination for c in changes]))
        new = [module.get_parameter("weight") for module in (layer.basis, layer.combination)]
        for optimizer, _ in self._attached:
            held = _held(optimizer)
            for part in (0, 1):
                if id(old[part]) in held:
                    move = _mover(changes, part, new[part])
                    carry = lambda key, value, move=move: carried(key, value, move)  # noqa: E731
                    replace_parameter(optimizer, old[part], [new[part]], [carry])


def _held(optimizer: Optimizer) -> set[int]:
    return {id(p) for group in optimizer.param_groups for p in group["params"]}


def _groups(layer: FactorizedLayer) -> list[tuple[Tensor, Tensor]]:
    basis, combination = layer.factors()
    return list(zip(basis.chunk(layer.groups), combination.chunk(layer.groups), strict=True))


def _mover(changes: Sequence[Change], part: int, new: Tensor) -> Callable[[Tensor, bool], Tensor]:
    """What a change does to gradients of the basis (part 0) or the combination (part 1)."""

    def move(value: Tensor, squared: bool) -> Tensor:
        moved = []
        for change, piece in zip(changes, value.flatten(1).double().chunk(len(changes)), strict=True):
            matrix = change.to_combination.T if part == 0 else change.to_basis.T
            matrix = matrix.square() if squared else matrix
            moved.append(matrix @ piece if part == 0 else piece @ matrix)
        return torch.cat(moved).reshape(new.shape).to(new)

    return move


def _hand_over(optimizer: Optimizer, old: nn.Parameter, layer: FactorizedLayer) -> None:
    """Give an optimizer the two factors of a weight, with what it remembers of that weight."""
    factors = _groups(layer)

    def to_basis(value: Tensor, squared: bool) -> Tensor:
        parts = zip(factors, value.flatten(1).chunk(layer.groups), strict=True)
        new = [(c.detach().square() if squared else c.detach()).T @ piece for (_, c), piece in parts]
        return torch.cat(new).reshape(layer.basis.get_parameter("weight").shape)

    def to_combination(value: Tensor, squared: bool) -> Tensor:
        parts = zip(factors, value.flatten(1).chunk(layer.groups), strict=True)
        new = [piece @ (b.detach().square() if squared else b.detach()).T for (b, _), piece in parts]
        return torch.cat(new).reshape(layer.combination.get_parameter("weight").shape)

    replace_parameter(
        optimizer,
        old,
        [layer.basis.get_parameter("weight"), layer.combination.get_parameter("weight")],
        [lambda key, v: carried(key, v, to_basis), lambda key, v: carried(key, v, to_combination)],
    )
