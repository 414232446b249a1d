"""Networks of one architecture as one: each weight is stacked over the members, so that all train in the same kernels.

The ensembling of torch.func (stacked state, vmap over functional_call). Each stacked weight is an ordinary leaf under
the name that it has in a member, so that an optimizer, weight decay by name and checkpoints work as on a member.
Departs from torch's tutorial: buffers are stacked and written in place, so that running statistics of batch
normalization are kept for each member.
"""

import copy
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, vmap

from spokeshave.errors import InvalidArgument, UnsupportedLayer


class MemberStack(nn.Module):
    """K networks as one that takes the images of all, those of the first member first.

    In training mode the gradient of the scores is multiplied by K: the mean loss over all K * B images then gives each
    member the gradient of the mean loss over its own B. Dropout draws for each member anew.

    Args:
        members: of one architecture, on one device; copied.
        chunk_size: members that run at a time, which bounds memory; None for all.

    Raises:
        InvalidArgument: where there are no members, or they are not alike.

    Example:
        >>> one, two = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        >>> _ = one.weight.data.fill_(2.0), two.weight.data.fill_(3.0)
        >>> stack = MemberStack([one, two])
        >>> stack(torch.ones(4, 1)).flatten().tolist(), stack.weight.shape
        ([2.0, 2.0, 3.0, 3.0], torch.Size([2, 1, 1]))
    """

    def __init__(self, members: Sequence[nn.Module], chunk_size: int | None = None) -> None:
        super().__init__()
        _require_alike(members)
        if chunk_size is not None and chunk_size < 1:
            raise InvalidArgument(f"chunk_size: expected at least 1 or None, got {chunk_size}")
        self.count = len(members)
        self.chunk_size = chunk_size
        # In a tuple: a registered module would show its own weights to the optimizer.
        self._one = (copy.deepcopy(members[0]),)
        _stack_into(self, members, {})

    def forward(self, images: Float[Tensor, "images *image"]) -> Float[Tensor, "images *scores"]:
        """Scores of K * B images, B for each member in turn.

        Raises:
            InvalidArgument: where the images do not fall into K equal parts.
            UnsupportedLayer: where a layer cannot run for several members at once.
        """
        if not len(images) or len(images) % self.count:
            raise InvalidArgument(
                f"images: expected a multiple of {self.count}, as many for each member, got {len(images)}"
            )
        one = self._one[0]
        if one.training != self.training:
            one.train(self.training)

        def run(state: dict[str, Tensor], own: Tensor) -> Tensor:
            return functional_call(one, state, (own,))

        state = dict(self.named_parameters()) | dict(self.named_buffers())
        try:
            scores = vmap(run, randomness="different", chunk_size=self.chunk_size)(
                state, images.unflatten(0, (self.count, -1))
            ).flatten(0, 1)
        except RuntimeError as error:
            if "vmap" not in str(error):
                raise
            raise UnsupportedLayer(
                f"{type(one).__name__}: a layer cannot run for several members at once ({error}); train them in turn "
                "or in processes"
            ) from error
        if self.training and scores.requires_grad:
            scores.register_hook(lambda gradient: gradient * self.count)
        return scores

    def unstack(self) -> list[nn.Module]:
        """The members as ordinary networks, copied.

        Example:
            >>> stack = MemberStack([nn.Linear(1, 1), nn.Linear(1, 1)])
            >>> _ = stack.bias.data.copy_(torch.tensor([[2.0], [3.0]]))
            >>> [member.bias.item() for member in stack.unstack()]
            [2.0, 3.0]
        """
        members = [copy.deepcopy(self._one[0]).train(self.training) for _ in range(self.count)]
        with torch.no_grad():
            for name, stacked in [*self.named_parameters(), *self.named_buffers()]:
                for member, value in zip(members, stacked, strict=True):
                    path, _, leaf = name.rpartition(".")
                    getattr(member.get_submodule(path), leaf).copy_(value)
        return members


def first_unlike(members: Sequence[nn.Module]) -> int | None:
    """Position of the first network that differs from the first one in more than the values of its weights.

    Example:
        >>> first_unlike([nn.Dropout(0.1), nn.Dropout(0.1), nn.Dropout(0.2)])
        2
    """
    # The text of a module has its layers with their options, also those without a weight.
    described = [
        (
            str(member),
            {n: (p.shape, p.dtype, p.device, p.requires_grad) for n, p in member.named_parameters()},
            {n: (b.shape, b.dtype, b.device) for n, b in member.named_buffers()},
        )
        for member in members
    ]
    return next((number for number, found in enumerate(described) if found != described[0]), None)


def _require_alike(members: Sequence[nn.Module]) -> None:
    if not members:
        raise InvalidArgument("members: expected at least one network, got none")
    unlike = first_unlike(members)
    if unlike is not None:
        raise InvalidArgument(
            f"members: expected networks that are alike, but number {unlike} differs from the first in layers, "
            "shapes, types, devices or what is trained; train unlike members in turn or in processes"
        )


def _stack_into(place: nn.Module, members: Sequence[nn.Module], made: dict[Tensor, nn.Parameter]) -> None:
    """Give a bare module the stacked weights and buffers of alike ones, and bare children for their children.

    `made` has the stacked weight of each of the first member's: a tied weight is stacked once.
    """
    for name, first in members[0].named_parameters(recurse=False):
        if first not in made:
            stacked = torch.stack([member.get_parameter(name).detach() for member in members])
            made[first] = nn.Parameter(stacked, requires_grad=first.requires_grad)
        place.register_parameter(name, made[first])
    for name, _ in members[0].named_buffers(recurse=False):
        kept = name not in members[0]._non_persistent_buffers_set
        place.register_buffer(name, torch.stack([member.get_buffer(name) for member in members]), kept)
    for name, _ in members[0].named_children():
        child = nn.Module()
        _stack_into(child, [member.get_submodule(name) for member in members], made)
        place.register_module(name, child)
