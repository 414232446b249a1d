"""Factorized layer: basis filters and their combinations in place of one convolution or linear layer.

Wen et al., ICCV 2017, section 3.1: conv (N filters) = conv (K filters, same stride and padding, no bias), then conv
1 x 1 (N x K, with the bias). Both are ordinary layers, so everything that takes a network takes a factorized one.
Departs from the paper: transposed convolutions too, whose basis filters are transposed ones.
"""

from collections import OrderedDict
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from spokeshave.errors import InvalidArgument
from spokeshave.structures.factorization import Basis, factorize
from spokeshave.structures.groups import TRANSPOSED
from spokeshave.structures.layer_spectrum import split_matrices

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_COMBINATION = {nn.ConvTranspose1d: nn.Conv1d, nn.ConvTranspose2d: nn.Conv2d, nn.ConvTranspose3d: nn.Conv3d}


class FactorizedLayer(nn.Sequential):
    """Two layers in place of one: `basis`, then `combination`.

    Args:
        basis: a convolution or linear layer without bias; its outputs are the basis filters, of all groups.
        combination: a 1 x 1 convolution with as many groups, or a linear layer; holds the bias.
    """

    basis: nn.Module
    combination: nn.Module

    def __init__(self, basis: nn.Module, combination: nn.Module) -> None:
        super().__init__(OrderedDict(basis=basis, combination=combination))

    @staticmethod
    def of(layer: str, module: nn.Module, rank: int, basis: Basis = Basis.PCA, seed: int = 0) -> "FactorizedLayer":
        """Factorize a layer.

        Args:
            layer: its name, for errors.
            module: a convolution or a linear layer; left as it is.
            rank: basis filters of each convolution group, 1..outputs of a group.
            basis: how they are found.
            seed: of k-means.

        Raises:
            UnsupportedLayer: for another module.
            InvalidArgument: for a rank out of its range, or weights that are not finite.
        """
        per_group = split_matrices(layer, module)
        try:
            pairs = [factorize(filters, rank, basis, seed) for filters in per_group]
        except InvalidArgument as error:
            raise InvalidArgument(f"{layer}: {error}") from error
        assert isinstance(module, (*CONVOLUTIONS, *TRANSPOSED, nn.Linear))
        made = FactorizedLayer(*_pair(module, rank * len(per_group)))
        made.set_factors(torch.cat([b for b, _ in pairs]), torch.cat([c for _, c in pairs]))
        if module.bias is not None:
            made.combination.get_parameter("bias").data.copy_(module.bias.detach())
        for name in ("weight", "bias"):
            old = getattr(module, name)
            if old is not None:
                made.combination.get_parameter(name).requires_grad_(old.requires_grad)
        made.basis.get_parameter("weight").requires_grad_(module.weight.requires_grad)
        return made.train(module.training)

    @property
    def groups(self) -> int:
        """Convolution groups, 1 for a linear layer."""
        return getattr(self.basis, "groups", 1)

    @property
    def rank(self) -> int:
        """Basis filters of each group."""
        return self.combination.get_parameter("weight").shape[1]

    @property
    def outputs(self) -> int:
        """Outputs of each group."""
        return self.combination.get_parameter("weight").shape[0] // self.groups

    def factors(self) -> tuple[Float[Tensor, "basis taps"], Float[Tensor, "outputs rank"]]:
        """Basis filters and combinations of all groups, one below the other, as matrices."""
        weight = self.basis.get_parameter("weight")
        if isinstance(self.basis, TRANSPOSED):
            basis = weight.unflatten(0, (self.groups, -1)).transpose(1, 2).flatten(2).flatten(0, 1)
        else:
            basis = weight.flatten(1)
        return basis, self.combination.get_parameter("weight").flatten(1)

    def set_factors(self, basis: Float[Tensor, "basis taps"], combination: Float[Tensor, "outputs rank"]) -> None:
        """Write both factors; their number of basis filters may be a new one, then both weights are new parameters.

        Args:
            basis: basis filters of all groups.
            combination: combinations of all groups.

        Raises:
            InvalidArgument: where the factors do not fit each other or the layer.
        """
        old_basis, old_combination = self.factors()
        rank = combination.shape[1]
        expected = (rank * self.groups, old_basis.shape[1]), (old_combination.shape[0], rank)
        if (tuple(basis.shape), tuple(combination.shape)) != expected or rank < 1:
            raise InvalidArgument(
                f"factors of shapes {expected} are expected, got {tuple(basis.shape)}, {tuple(combination.shape)}"
            )
        for module, factor in ((self.basis, basis), (self.combination, combination)):
            weight = module.get_parameter("weight")
            kernel = (1,) * (weight.dim() - 2) if module is self.combination else weight.shape[2:]
            value = factor.detach().reshape(*factor.shape[:1], -1, *kernel).to(weight)
            if isinstance(module, TRANSPOSED):
                value = value.unflatten(0, (self.groups, -1)).transpose(1, 2).flatten(0, 1)
            if value.shape == weight.shape:
                weight.data.copy_(value.clone())  # it may be a view of the weight itself
            else:
                # A 1 x 1 kernel is contiguous both ways: only what is channels-last alone is meant to be.
                last = weight.dim() == 4 and weight.is_contiguous(memory_format=torch.channels_last)
                last = last and not weight.is_contiguous()
                form = torch.channels_last if last else torch.contiguous_format
                new = nn.Parameter(value.clone(memory_format=form), requires_grad=weight.requires_grad)
                module.register_parameter("weight", new)
        _set_sizes(self.basis, self.combination, rank * self.groups)

    @torch.no_grad()
    def product(self, dtype: torch.dtype | None = None) -> Tensor:
        """The weight that both stand for, of the shape of the layer that was factorized.

        Args:
            dtype: to multiply in; that of the factors if none.
        """
        basis, combination = (factor.to(dtype or factor.dtype) for factor in self.factors())
        parts = [c @ b for b, c in zip(basis.chunk(self.groups), combination.chunk(self.groups), strict=True)]
        kernel = self.basis.get_parameter("weight").shape[2:]
        if isinstance(self.basis, TRANSPOSED):
            return torch.cat([part.unflatten(1, (-1, *kernel)).transpose(0, 1) for part in parts])
        return torch.cat(parts).unflatten(1, (-1, *kernel)) if kernel else torch.cat(parts)

    @torch.no_grad()
    def merged(self) -> nn.Module:
        """The one layer that both stand for: a plain convolution or linear layer."""
        weight = self.product()
        first, last = self.basis, self.combination
        bias = last.get_parameter("bias") if last.bias is not None else None
        place: dict[str, Any] = {"device": weight.device, "dtype": weight.dtype, "bias": bias is not None}
        outputs = self.outputs * self.groups
        if isinstance(first, nn.Linear):
            layer = nn.utils.skip_init(nn.Linear, first.in_features, outputs, **place)
        else:
            assert isinstance(first, (*CONVOLUTIONS, *TRANSPOSED))
            sizes = first.in_channels, outputs, first.kernel_size
            layer = nn.utils.skip_init(type(first), *sizes, **_settings(first), **place)
        trained = any(part.get_parameter("weight").requires_grad for part in (first, last))
        layer.get_parameter("weight").requires_grad_(trained).copy_(weight)
        if bias is not None:
            layer.get_parameter("bias").requires_grad_(bias.requires_grad).copy_(bias)
        return layer.train(self.training)


def _pair(module: nn.Module, width: int) -> tuple[nn.Module, nn.Module]:
    """Both layers, with weights that are not set: no random number is drawn for them."""
    weight, bias = module.get_parameter("weight"), module.bias is not None
    place: dict[str, Any] = {"device": weight.device, "dtype": weight.dtype}
    empty = nn.utils.skip_init
    if isinstance(module, nn.Linear):
        return (
            empty(nn.Linear, module.in_features, width, bias=False, **place),
            empty(nn.Linear, width, module.out_features, bias=bias, **place),
        )
    assert isinstance(module, (*CONVOLUTIONS, *TRANSPOSED))
    kind = type(module)
    first = empty(kind, module.in_channels, width, module.kernel_size, bias=False, **_settings(module), **place)
    one = (1,) * len(module.kernel_size)
    second = _COMBINATION.get(kind, kind)
    return first, empty(second, width, module.out_channels, one, groups=module.groups, bias=bias, **place)


def _settings(module: nn.Module) -> dict[str, Any]:
    """What a convolution is made with beside its sizes."""
    names = ["stride", "padding", "dilation", "groups", "padding_mode"]
    names += ["output_padding"] if isinstance(module, TRANSPOSED) else []
    return {name: getattr(module, name) for name in names}


def _set_sizes(basis: nn.Module, combination: nn.Module, width: int) -> None:
    linear = isinstance(basis, nn.Linear)
    setattr(basis, "out_features" if linear else "out_channels", width)
    setattr(combination, "in_features" if linear else "in_channels", width)
