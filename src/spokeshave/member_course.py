"""The course of a member: what a member of a parallel training is trained on, its name, and where it is kept."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from spokeshave.data import Batches
from spokeshave.threats.multi_strength import MixedMAT
from spokeshave.train_settings import TrainSettings
from spokeshave.training import History, train


def member_seed(seed: int, member: int) -> int:
    """Seed of a member: a hash, so that neighbouring seeds and members are unrelated.

    Example:
        >>> len({member_seed(seed, member) for seed in range(20) for member in range(20)})
        400
    """
    digest = hashlib.blake2b(f"member/{seed}/{member}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little")


@dataclass(frozen=True)
class MemberCourse:
    """How each member is trained; every one sees the same batches.

    Attributes:
        strengths: of each member.
        batches: of the training split.
        validation: of a split held out of the training set.
        settings: of each member, but for its seed.
        seed: of what members draw.
        options: of `MixedMAT`, for every member.
        run_dir: where a folder a member goes; None for none.
        resume: go on from a member's checkpoint, if there is one.
    """

    strengths: list[tuple[float, ...]]
    batches: Batches
    validation: Batches
    settings: TrainSettings
    seed: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    run_dir: Path | None = None
    resume: bool = False

    def name(self, member: int) -> str:
        """Of a member, for people; they count from 1."""
        strengths = ", ".join(f"{one:.4g}" for one in self.strengths[member])
        return f"member {member + 1} of {len(self.strengths)} (strength {strengths})"

    def mat(self, member: int, network: nn.Module) -> MixedMAT:
        """The transform of a member's batches."""
        return MixedMAT(network, self.strengths[member], seed=member_seed(self.seed, member), **self.options)

    def train(self, member: int, network: nn.Module, log: Callable[[dict[str, Any]], None]) -> History:
        """Train a member by itself, in place."""
        # A seed of its own: the dropout of members is not to be alike.
        settings = replace(self.settings, seed=member_seed(self.settings.seed, member))
        folder = None if self.run_dir is None else self.run_dir / f"member-{member}"
        history = train(
            network, self.batches, self.validation, settings, (), folder, self.resume, self.name(member), log,
            transform=self.mat(member, network),
        )  # fmt: skip
        network.zero_grad()
        return history
