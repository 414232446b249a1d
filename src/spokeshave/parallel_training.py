"""ParallelMAT: members, each trained adversarially at a strength of its own, at the same time, that answer together.

Song, Cheng, Yang, Li, Wu, Wu, Chen, Li: MAT: A Multi-strength Adversarial Training Method to Mitigate Adversarial
Attacks, ISVLSI 2018: K networks, network k on J_k = a J(x) + (1 - a) J(x_k), x_k attacked with strength e_k.
Departs from the paper: how its members train at once and how they are combined could not be read. Every member sees the
same batches; what it draws follows from (seed, member, step), so that how members are run does not change them.
"""

import contextlib
import os
import pickle
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn

from spokeshave.checkpoints import has_checkpoint
from spokeshave.data import Batches
from spokeshave.errors import CheckpointError, InvalidArgument
from spokeshave.member_course import MemberCourse, member_seed
from spokeshave.processes import join_processes, leave_processes, torchrun_place, usable_cores
from spokeshave.progress import Progress
from spokeshave.stacked_training import refused_by_stack, train_stack
from spokeshave.structures.member_stack import MemberStack, first_unlike
from spokeshave.threats.attack_guard import Guard
from spokeshave.threats.ensemble import Combine, Ensemble
from spokeshave.threats.gradient_attack import Attack
from spokeshave.threats.multi_strength import Drawing, MixedMAT
from spokeshave.threats.stacked_mat import StackedMAT
from spokeshave.train_settings import TrainSettings
from spokeshave.training import History
from spokeshave.worker_processes import do_in_processes

LONGEST_WAIT = timedelta(days=30)
"""For the slowest process of a `torchrun`, which may have a member more to train than this one."""

Log = Callable[[int, dict[str, Any]], None]


class Together(Enum):
    """How members are trained at the same time.

    Attributes:
        AUTO: BATCHED on a GPU where the members are alike; PROCESSES on a CPU with several cores; else IN_TURN, as in
            each process of a `torchrun` between CPUs.
        IN_TURN: one after the other, each with all threads.
        PROCESSES: as many processes as there are cores or members, the cores shared out among them.
        BATCHED: as one network whose weights are stacked.
    """

    AUTO = "auto"
    IN_TURN = "in-turn"
    PROCESSES = "processes"
    BATCHED = "batched"


@dataclass(frozen=True)
class TrainedMembers:
    """What training gave.

    Attributes:
        members: the networks that were handed in, trained.
        histories: of each member.
        strengths: that each member was trained at.
        together: how they were run.
        wall_s: seconds it took, without what ran before a resume.
        combine: how they answer together, unless said otherwise.
    """

    members: list[nn.Module]
    histories: list[History]
    strengths: list[tuple[float, ...]]
    together: Together
    wall_s: float
    combine: Combine

    def ensemble(self, combine: Combine | None = None) -> Ensemble:
        """The members as one classifier, in evaluation mode."""
        return Ensemble(self.members, combine or self.combine).eval()


class ParallelMAT:
    """Members trained adversarially at the same time, each at its own strength.

    Under `torchrun`, member k belongs to process k modulo the number of processes, and every process ends with all of
    them; call `fit` before `join_processes`, with the whole batches in every process.

    Args:
        members: untrained networks that give logits on images in 0..1, as many as strengths; or what makes one, called
            once for each with a seed of its own.
        strengths: of each member, in units of the images; several for a member that is trained on a mixture.
        attack: that makes the adversarial images; by default one step with a random start.
        combine: how members answer together.
        together: how they are trained at once.
        drawing: see `MixedMAT`, as are clean_share, ramp_steps and guard.
        clean_share: weight of clean images.
        ramp_steps: over which strengths rise.
        guard: of each member.
        seed: of what members draw.
        workers: processes at most; 0 for one a core.
        chunk_size: with BATCHED, members that run at a time; None for all.

    Raises:
        InvalidArgument: where members and strengths are not equally many, members share weights, or a number is out of
            its range.

    Example:
        >>> mat = ParallelMAT(lambda: nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), [0.1, 0.2])
        >>> len(mat.members), mat.strengths
        (2, [(0.1,), (0.2,)])
    """

    def __init__(
        self,
        members: Sequence[nn.Module] | nn.ModuleList | Callable[[], nn.Module],
        strengths: Sequence[float | Sequence[float]],
        attack: Attack | None = None,
        combine: Combine = Combine.PROBABILITY_MEAN,
        together: Together = Together.AUTO,
        drawing: Drawing = Drawing.ONE,
        clean_share: float = 0.5,
        ramp_steps: int = 0,
        guard: Guard | None = Guard(),  # noqa: B008 - frozen
        seed: int = 0,
        workers: int = 0,
        chunk_size: int | None = None,
    ) -> None:
        if isinstance(members, nn.Module) and not isinstance(members, nn.ModuleList):
            raise InvalidArgument(
                f"members: expected networks, or a function that makes one, got one {type(members).__name__}"
            )
        if isinstance(members, Sequence | nn.ModuleList):
            self.members = list(members)
        else:
            self.members = _made(members, len(strengths), seed)
        self.strengths = [tuple(one) if isinstance(one, Sequence) else (float(one),) for one in strengths]
        if not self.members or len(self.members) != len(self.strengths):
            raise InvalidArgument(
                f"expected as many members as strengths, at least one, got {len(self.members)} and {len(strengths)}"
            )
        weights = [id(parameter) for member in self.members for parameter in member.parameters()]
        if len(set(weights)) != len(weights):
            raise InvalidArgument("members: expected networks of their own, but some share weights; copy.deepcopy them")
        if workers < 0:
            raise InvalidArgument(f"workers: expected at least 0, got {workers}")
        self.combine, self.together, self.workers, self.chunk_size = combine, together, workers, chunk_size
        self.options = {
            "attack": attack, "drawing": drawing, "clean_share": clean_share, "ramp_steps": ramp_steps, "guard": guard
        }  # fmt: skip
        self.seed = seed
        for member, own in zip(self.members, self.strengths, strict=True):
            MixedMAT(member, own, **self.options)  # refuses what is out of its range

    def fit(
        self,
        batches: Batches,
        validation: Batches,
        settings: TrainSettings,
        run_dir: Path | None = None,
        resume: bool = False,
        log: Log | None = None,
    ) -> TrainedMembers:
        """Train all members in place.

        Args:
            batches: of the training split, in 0..1; whole, also under `torchrun`.
            validation: of a split held out of the training set.
            settings: of each member; every member draws its dropout from its own seed.
            run_dir: where checkpoints go, a folder a member; None for none.
            resume: go on from the checkpoints in `run_dir`; finished members are loaded, not trained again.
            log: called with the position of a member and each row of its history, in this process.

        Returns:
            The members, with their histories.

        Raises:
            InvalidArgument: where the way of training and the settings, devices or members do not fit.
            TrainingDiverged: where a member diverged; names it.
            WorkerFailed: where the process of a member raised, was killed or could not start; names it.
            CheckpointError: where `run_dir` holds a run and `resume` is false, or one that was trained another way.
        """
        rank, world = torchrun_place()
        self._require_fitting(batches, settings)
        mine = list(range(rank, len(self.members), world))
        together = self._chosen(mine, batches.device, settings, world)
        folders = {f"members-{place}-of-{world}" for place in range(world)}
        if together is not Together.BATCHED:
            folders = {f"member-{member}" for member in range(len(self.members))}
        _require_folders(run_dir, resume, folders)
        course = MemberCourse(
            self.strengths, batches, validation, settings, self.seed, self.options, run_dir, resume
        )  # fmt: skip
        heard: Log = log or (lambda _member, _row: None)
        started = time.perf_counter()
        if together is Together.BATCHED:
            folder = None if run_dir is None else run_dir / f"members-{rank}-of-{world}"
            histories = self._batched(course, mine, folder, heard)
        elif together is Together.PROCESSES:
            histories = self._in_processes(course, mine, heard)
        else:
            histories = [
                course.train(member, self.members[member], lambda row, member=member: heard(member, row))
                for member in mine
            ]
        if world > 1:
            histories = _gathered(self.members, dict(zip(mine, histories, strict=True)), world)
        wall_s = time.perf_counter() - started
        return TrainedMembers(self.members, histories, self.strengths, together, wall_s, self.combine)

    def _in_processes(self, course: MemberCourse, mine: list[int], log: Log) -> list[History]:
        workers = self._workers(len(mine))
        names = [course.name(member) for member in mine]
        total = course.settings.total_steps(len(course.batches))

        def heard(position: int, row: dict[str, Any]) -> None:
            Progress(names[position], total).row(row)
            log(mine[position], row)

        # As bytes: tensors by themselves would be moved to shared memory, and the networks' own be written to there.
        jobs = [(member, pickle.dumps(self.members[member])) for member in mine]
        answers = do_in_processes(
            _train_one, course, jobs, names, workers, max(1, usable_cores() // workers), heard
        )  # fmt: skip
        for member, (state, _) in zip(mine, answers, strict=True):
            self.members[member].load_state_dict(state)
            self.members[member].train()
        return [history for _, history in answers]

    def _batched(self, course: MemberCourse, mine: list[int], folder: Path | None, log: Log) -> list[History]:
        stack = MemberStack([self.members[member] for member in mine], self.chunk_size)
        transform = StackedMAT(stack, [course.mat(member, stack) for member in mine])
        histories = train_stack(
            stack, transform, course.batches, course.validation, course.settings, folder, course.resume,
            [course.name(member) for member in mine], lambda position, row: log(mine[position], row),
        )  # fmt: skip
        for member, trained in zip(mine, stack.unstack(), strict=True):
            self.members[member].load_state_dict(trained.state_dict())
            self.members[member].train()
        return histories

    def _workers(self, members: int) -> int:
        return min(members, self.workers or usable_cores())

    def _require_fitting(self, batches: Batches, settings: TrainSettings) -> None:
        if distributed.is_available() and distributed.is_initialized():
            raise InvalidArgument(
                "members are trained by one process each: call fit before join_processes (or init_process_group), "
                "which would have every process work on every member"
            )
        if batches.world_size > 1:
            raise InvalidArgument(
                f"batches: expected the whole of them in each process, got a share (rank {batches.rank} of "
                f"{batches.world_size}); members share processes, not images"
            )
        for number, member in enumerate(self.members):
            place = next((parameter.device for parameter in member.parameters()), batches.device)
            if place.type != batches.device.type:
                raise InvalidArgument(
                    f"members[{number}] is on {place}, batches on {batches.device}: move one to the other's device"
                )
        if self.together is Together.PROCESSES and batches.device.type != "cpu":
            raise InvalidArgument(
                f"Together.PROCESSES is for CPUs, the batches are on {batches.device}: use Together.BATCHED, or "
                "torchrun with a GPU a process"
            )

    def _chosen(self, mine: list[int], device: torch.device, settings: TrainSettings, world: int) -> Together:
        if self.together is not Together.AUTO:
            return self.together
        own = [self.members[member] for member in mine]
        if len(own) < 2:
            return Together.IN_TURN
        if device.type != "cpu":
            alike = first_unlike(own) is None and len({len(self.strengths[member]) for member in mine}) == 1
            return Together.BATCHED if alike and not refused_by_stack(settings) else Together.IN_TURN
        several = world == 1 and self._workers(len(mine)) > 1
        return Together.PROCESSES if several and _importable(own) else Together.IN_TURN


def _made(factory: Callable[[], nn.Module], count: int, seed: int) -> list[nn.Module]:
    cuda = [torch.cuda.current_device()] if torch.cuda.is_available() and torch.cuda.is_initialized() else []
    members = []
    with torch.random.fork_rng(devices=cuda):
        for member in range(count):
            torch.manual_seed(member_seed(seed, member))
            members.append(factory())
    return members


def _importable(members: Sequence[nn.Module]) -> bool:
    """Whether another process can find the classes of networks: not those that a notebook defines."""
    script = getattr(sys.modules["__main__"], "__file__", None)
    if script is not None:
        return Path(script).exists()
    return all(type(module).__module__ != "__main__" for member in members for module in member.modules())


def _require_folders(run_dir: Path | None, resume: bool, expected: set[str]) -> None:
    if run_dir is None:
        return
    held = sorted(found.name for found in run_dir.glob("member*") if has_checkpoint(found))
    if held and not resume:
        raise CheckpointError(f"{run_dir} already holds a run: resume it, or name another folder; nothing was changed")
    strange = [name for name in held if name not in expected]
    if strange:
        raise CheckpointError(
            f"{run_dir} holds members that were trained together another way ({', '.join(strange)}): resume it that "
            "way, or name another folder; nothing was changed"
        )


def _train_one(
    course: MemberCourse, job: tuple[int, bytes], say: Callable[[Any], None]
) -> tuple[dict[str, torch.Tensor], History]:
    """What a worker process does with a member."""
    member, blob = job
    network: nn.Module = pickle.loads(blob)
    # Several processes would write their bars over each other: the parent shows their rows.
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        history = course.train(member, network, say)
    return network.state_dict(), history


def _gathered(members: list[nn.Module], histories: dict[int, History], world: int) -> list[History]:
    """Members and histories of all processes, in every process."""
    join_processes(LONGEST_WAIT)
    found = []
    for number, member in enumerate(members):
        state = {name: value.cpu() for name, value in member.state_dict().items()}
        parcel: list[Any] = [(state, histories[number]) if number in histories else None]
        distributed.broadcast_object_list(parcel, number % world)
        state, history = parcel[0]
        member.load_state_dict(state)
        member.train()
        found.append(history)
    leave_processes()
    return found
