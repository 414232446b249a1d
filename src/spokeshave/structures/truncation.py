"""Truncation: keep the strongest groups of a weight and zero the others, to meet a count exactly.

What a person does who reads "SSL left 4 filters, the table has 3". Groups are ranked by norm after the pull.
Departs from the paper: SSL reports whatever its strengths gave; a wanted count makes rows comparable.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from spokeshave.errors import InvalidArgument
from spokeshave.structures.groups import Grouping, GroupKind


@dataclass(frozen=True)
class Keep:
    """How many groups to keep in one layer, or of the same neurons on both sides of two layers.

    Attributes:
        layer: name of a convolution or linear layer.
        kind: of its groups.
        count: groups kept at most, at least 1; for `GroupKind.LAYER` 0 zeroes the layer.
        follower: a second layer, whose input channels are this layer's filters: both are ranked by the product of
            their norms and zeroed together.
    """

    layer: str
    kind: GroupKind
    count: int
    follower: str | None = None


@dataclass(frozen=True)
class KeepBlocks:
    """How many residual branches to keep.

    Attributes:
        blocks: names of the convolutions of each branch. A branch is as strong as the product of their root mean
            square weights, so that wide blocks are not favoured; the weakest are zeroed, every convolution of them.
        count: branches kept, at least 0.
    """

    blocks: tuple[tuple[str, ...], ...]
    count: int


def strongest(norms: Float[Tensor, " groups"], count: int) -> Bool[Tensor, " groups"]:
    """True for the `count` largest norms that are not zero; ties go to the earlier group.

    Example:
        >>> strongest(torch.tensor([3.0, 0.0, 2.0, 5.0]), 2).tolist()
        [True, False, False, True]
    """
    order = torch.argsort(norms, descending=True, stable=True)
    chosen = torch.zeros_like(norms, dtype=torch.bool)
    chosen[order[:count]] = True
    return chosen & (norms > 0)


@torch.no_grad()
def truncate(model: nn.Module, keeps: Sequence[Keep | KeepBlocks]) -> Mapping[str, int]:
    """Zero the weakest groups of a model in place, layer after layer in the order given.

    Args:
        model: its weights are changed, not its biases.
        keeps: what to keep; groups that are zero already stay so.

    Returns:
        Number of groups that were zeroed here, by layer.

    Raises:
        InvalidArgument: for an unknown layer, a count out of range, or a follower with another number of channels.
    """
    zeroed: dict[str, int] = {}
    modules = dict(model.named_modules())
    for keep in keeps:
        names = sum(keep.blocks, ()) if isinstance(keep, KeepBlocks) else (keep.layer, keep.follower)
        for name in names:
            if name is not None and name not in modules:
                raise InvalidArgument(f"the model has no layer {name!r}; it has {', '.join(n for n in modules if n)}")
        if isinstance(keep, KeepBlocks):
            _truncate_blocks(modules, keep, zeroed)
            continue
        module = modules[keep.layer]
        weight, grouping = module.get_parameter("weight"), Grouping.of(module, keep.kind)
        norms = grouping.norms(weight)
        if keep.count < (0 if keep.kind is GroupKind.LAYER else 1):
            raise InvalidArgument(
                f"{keep.layer}: at least 1 of {len(norms)} {keep.kind.value} is kept, got {keep.count}"
            )
        followed = None
        if keep.follower is not None:
            follower = modules[keep.follower]
            followed = follower.get_parameter("weight"), Grouping.of(follower, GroupKind.CHANNEL)
            channel_norms = followed[1].norms(followed[0])
            if len(channel_norms) != len(norms):
                raise InvalidArgument(
                    f"{keep.follower} has {len(channel_norms)} input channels, {keep.layer} {len(norms)} filters"
                )
            norms = norms * channel_norms
        chosen = strongest(norms, keep.count)
        alive = ~grouping.zero(weight)
        weight.mul_(grouping.spread(chosen.to(weight.dtype)))
        if followed is not None:
            followed[0].mul_(followed[1].spread(chosen.to(weight.dtype)))
        zeroed[keep.layer] = zeroed.get(keep.layer, 0) + int((alive & ~chosen).sum())
    return zeroed


def _truncate_blocks(modules: Mapping[str, nn.Module], keep: KeepBlocks, zeroed: dict[str, int]) -> None:
    if not 0 <= keep.count <= len(keep.blocks):
        raise InvalidArgument(f"0..{len(keep.blocks)} branches can be kept, got {keep.count}")
    weights = [[modules[name].get_parameter("weight") for name in block] for block in keep.blocks]
    scores = torch.tensor([prod(float(weight.square().mean().sqrt()) for weight in block) for block in weights])
    chosen = strongest(scores, keep.count)
    for block, names, kept in zip(weights, keep.blocks, chosen.tolist(), strict=True):
        for weight, name in zip(block, names, strict=True):
            if not kept:
                zeroed[name] = zeroed.get(name, 0) + int(bool(weight.any()))
                weight.zero_()
