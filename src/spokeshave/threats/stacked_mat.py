"""Multi-strength adversarial training of stacked members: their images are attacked in one pass, at their strengths.

Parallel MAT (Song et al., ISVLSI 2018) with its members as one network, see `structures.member_stack`. Each member
draws, and is guarded, as it would be alone.
Departs from the paper: how its members were run is not known.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from spokeshave.errors import InvalidArgument
from spokeshave.structures.member_stack import MemberStack
from spokeshave.threats.multi_strength import MixedMAT


class StackedMAT:
    """The transform of a batch for a stack: what each member's transform gives, one after the other.

    Args:
        stack: the members.
        members: how each is trained; their own `model` is not used.

    Raises:
        InvalidArgument: where there are not as many as members in the stack, or they differ in how many images they
            train on.

    Example:
        >>> from torch import nn
        >>> stack = MemberStack([nn.Sequential(nn.Flatten(), nn.Linear(4, 2)) for _ in range(2)])
        >>> mats = [MixedMAT(stack, [strength], clean_share=0.0) for strength in (0.1, 0.2)]
        >>> images, labels = torch.rand(8, 1, 2, 2), torch.zeros(8, dtype=torch.int64)
        >>> made, _ = StackedMAT(stack, mats).transform(0, images, labels)
        >>> far = (made.view(2, 8, 4) - images.view(8, 4)).abs().amax((1, 2))
        >>> made.shape, bool((far <= torch.tensor([0.1001, 0.2001])).all())
        (torch.Size([16, 1, 2, 2]), True)
    """

    def __init__(self, stack: MemberStack, members: Sequence[MixedMAT]) -> None:
        if len(members) != stack.count:
            raise InvalidArgument(f"members: expected {stack.count}, one for each of the stack, got {len(members)}")
        kinds = {(mat.drawing, mat.clean_share, len(mat.strengths)) for mat in members}
        if len(kinds) > 1:
            raise InvalidArgument(
                "members that are trained as one must agree in drawing, clean_share and number of strengths, got "
                f"{sorted((kind.value, share, count) for kind, share, count in kinds)}; train them in turn or in "
                "processes"
            )
        self.stack, self.members = stack, list(members)

    def transform(self, step: int, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Give what all members train on, those of the first member first."""
        if any(mat.due(step) for mat in self.members):
            for mat, network in zip(self.members, self.stack.unstack(), strict=True):
                mat.model = network
                mat.watch(step, inputs, labels)
        attacks = [mat.attack for mat in self.members]
        attacked: list[Tensor] = [inputs] * len(attacks)
        # The guard may have given some members another attack: all are attacked with each, and take their own.
        for attack in dict.fromkeys(attacks):
            images, targets, strengths, generators = zip(
                *(mat.draw(step, inputs, labels) for mat in self.members), strict=True
            )
            found = attack.perturb(self.stack, torch.cat(images), torch.cat(targets), torch.cat(strengths), generators)
            for member, part in enumerate(found.chunk(len(attacks))):
                if attacks[member] == attack:
                    attacked[member] = part
        mixed = [mat.mix(inputs, labels, part) for mat, part in zip(self.members, attacked, strict=True)]
        return torch.cat([images for images, _ in mixed]), torch.cat([targets for _, targets in mixed])

    def report(self) -> dict[str, Any]:
        """What each member's transform reports."""
        return {"members": [mat.report() for mat in self.members]}

    def settings(self) -> dict[str, Any]:
        """What defines the training of each member; JSON values."""
        return {"members": [mat.settings() for mat in self.members]}

    def state_dict(self) -> dict[str, Tensor]:
        """The states of the members' transforms."""
        return {f"{k}.{name}": value for k, mat in enumerate(self.members) for name, value in mat.state_dict().items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state_dict` gave."""
        for k, mat in enumerate(self.members):
            prefix = f"{k}."
            mat.load_state_dict({name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)})
