"""Members trained in turn, in processes, as one network and under torchrun are the same members."""

import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spokeshave.parallel_training as parallel_training
from spokeshave.data import Batches, DatasetName, Split, load
from spokeshave.errors import CheckpointError, InvalidArgument, TrainingDiverged
from spokeshave.evaluation import evaluate
from spokeshave.member_course import member_seed
from spokeshave.models import SmallCNN
from spokeshave.parallel_training import ParallelMAT, Together, TrainedMembers
from spokeshave.threats.attack_guard import Guard
from spokeshave.threats.ensemble import Combine
from spokeshave.threats.gradient_attack import Attack, fgsm, pgd
from spokeshave.threats.multi_strength import Drawing, MixedMAT
from spokeshave.timing import using_threads
from spokeshave.train_settings import Schedule, TrainSettings
from spokeshave.training import train

STRENGTHS = [0.02, 0.1, 0.3]
SETTINGS = TrainSettings(epochs=2, learning_rate=0.05, weight_decay=1e-3, schedule=Schedule.CONSTANT)
Row = dict[str, Any]


@cache
def parts() -> tuple[Split, Split]:
    rest, held = load(DatasetName.DIGITS).train.hold_out(64, seed=0)
    return rest.subset(range(72)), held


def digits() -> tuple[Batches, Batches]:
    return Batches(parts()[0], 24, seed=1), Batches(parts()[1], 40)


def network(batch_norm: bool = False) -> Callable[[], SmallCNN]:
    return lambda: SmallCNN(width=4, hidden=8, batch_norm=batch_norm)


def fitted(
    together: Together, run_dir: Path | None = None, settings: TrainSettings = SETTINGS, **options: Any
) -> TrainedMembers:
    factory = network(options.pop("batch_norm", False))
    resume = options.pop("resume", False)
    return ParallelMAT(factory, STRENGTHS, together=together, **options).fit(*digits(), settings, run_dir, resume)


def assert_same(one: TrainedMembers, other: TrainedMembers, tolerance: float) -> None:
    for member, twin in zip(one.members, other.members, strict=True):
        for (name, value), found in zip(member.state_dict().items(), twin.state_dict().values(), strict=True):
            torch.testing.assert_close(found, value, rtol=tolerance, atol=tolerance, msg=name)
    for history, twin in zip(one.histories, other.histories, strict=True):
        assert len(history.rows) == len(twin.rows) and history.best_epoch == twin.best_epoch
        for row, found in zip(history.rows, twin.rows, strict=True):
            for name in ("epoch", "step", "learning_rate", "validation_accuracy"):
                assert row[name] == found[name], name
            assert row["train_loss"] == pytest.approx(found["train_loss"], rel=max(tolerance, 1e-12))
            assert row["validation_loss"] == pytest.approx(found["validation_loss"], rel=max(tolerance, 1e-12))
            assert row["transform"]["attack_steps"] == found["transform"]["attack_steps"]


def test_a_member_in_turn_is_one_trained_by_the_loop_with_its_own_transform() -> None:
    found = fitted(Together.IN_TURN, seed=5)
    members = ParallelMAT(network(), STRENGTHS, seed=5).members
    batches, validation = digits()
    mat = MixedMAT(members[2], [0.3], seed=member_seed(5, 2))
    history = train(members[2], batches, validation, SETTINGS, transform=mat)
    for name, value in found.members[2].state_dict().items():
        assert torch.equal(value, members[2].state_dict()[name])
    assert [row["train_loss"] for row in history.rows] == [row["train_loss"] for row in found.histories[2].rows]
    assert not torch.equal(found.members[1].get_parameter("fc4.weight"), found.members[2].get_parameter("fc4.weight"))


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize(
    "options", [{}, {"attack": pgd(2), "chunk_size": 2, "clean_share": 0.0}, {"drawing": Drawing.ALL, "ramp_steps": 4}]
)
def test_members_as_one_network_are_those_in_turn_within_rounding(options: Row, batch_norm: bool) -> None:
    chunk_size = options.get("chunk_size")
    in_turn = {name: value for name, value in options.items() if name != "chunk_size"}
    one = fitted(Together.IN_TURN, batch_norm=batch_norm, **in_turn)
    other = fitted(Together.BATCHED, batch_norm=batch_norm, chunk_size=chunk_size, **in_turn)
    assert other.together is Together.BATCHED
    assert_same(one, other, 1e-4)


def measure(
    _guard: Guard, model: nn.Module, images: Tensor, _labels: Tensor, strength: float, _attack: Attack
) -> float:
    """A gap that is too large for some members, and that tells which network was looked at."""
    with torch.no_grad():
        return 0.5 * (strength > 0.05) + 1e-3 * float(model(images).mean())


@pytest.mark.filterwarnings("ignore:step:RuntimeWarning")
def test_each_member_of_one_network_is_guarded_as_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Guard, "measure", measure)
    one, other = (fitted(way, guard=Guard(every=2), attack=fgsm()) for way in (Together.IN_TURN, Together.BATCHED))
    assert [history.rows[0]["transform"]["attack_steps"] for history in other.histories] == [1, 4, 4]
    assert_same(one, other, 1e-4)
    for history, twin in zip(one.histories, other.histories, strict=True):
        assert history.rows[-1]["transform"]["gap"] == pytest.approx(twin.rows[-1]["transform"]["gap"], rel=1e-4)


def test_processes_give_the_bits_of_members_in_turn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(parallel_training, "usable_cores", lambda: 2)
    heard: list[tuple[int, int]] = []
    with using_threads(1):
        one = fitted(Together.IN_TURN, batch_norm=True)
        mat = ParallelMAT(network(batch_norm=True), STRENGTHS)
        other = mat.fit(*digits(), SETTINGS, tmp_path, log=lambda member, row: heard.append((member, row["epoch"])))
        again = fitted(Together.IN_TURN, tmp_path, batch_norm=True, resume=True)
    assert other.together is Together.PROCESSES, "what AUTO chooses on two cores"
    assert_same(one, other, 0.0)
    assert_same(one, again, 0.0)
    assert sorted(heard) == [(member, epoch) for member in range(3) for epoch in (1, 2)]
    assert [a is b for a, b in zip(other.members, mat.members, strict=True)] == [True] * 3
    assert not any(parameter.is_shared() for member in mat.members for parameter in member.parameters())


class Killed(Exception):
    pass


def test_a_killed_run_of_one_network_goes_on_where_it_was(tmp_path: Path) -> None:
    settings = TrainSettings(epochs=2, learning_rate=0.05, checkpoint_every=2)
    whole = fitted(Together.BATCHED, settings=settings)
    original = Batches.batch

    def batch(batches: Batches, epoch: int, index: int) -> tuple[Tensor, Tensor]:
        if (epoch, index) == (1, 2):
            raise Killed
        return original(batches, epoch, index)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Batches, "batch", batch)
        fitted(Together.BATCHED, tmp_path, settings)
    resumed = fitted(Together.BATCHED, tmp_path, settings, resume=True)
    assert_same(whole, resumed, 0.0)
    with pytest.raises(CheckpointError, match="already holds a run"):
        fitted(Together.BATCHED, tmp_path, settings)
    with pytest.raises(CheckpointError, match=r"trained together another way \(members-0-of-1\)"):
        fitted(Together.IN_TURN, tmp_path, settings, resume=True)


SCRIPT = """
import sys, torch
from pathlib import Path
sys.path[:0] = [{tests!r}]
from test_parallel_training import SETTINGS, STRENGTHS, digits, network
from spokeshave.parallel_training import ParallelMAT, Together
from spokeshave.processes import torchrun_place
torch.set_num_threads(1)
found = ParallelMAT(network(), STRENGTHS).fit(*digits(), SETTINGS, Path({folder!r}) / "run")
assert found.together is Together.IN_TURN and not torch.distributed.is_initialized()
torch.save([[member.state_dict() for member in found.members], [history.rows for history in found.histories]],
           Path({folder!r}) / str(torchrun_place()[0]))
"""


def test_processes_of_torchrun_share_the_members_and_end_with_all(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parent), folder=str(tmp_path)))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([*torchrun, str(script)], capture_output=True, text=True, env=environment, timeout=240)
    assert run.returncode == 0, run.stderr
    with using_threads(1):
        alone = fitted(Together.IN_TURN)
    for rank in ("0", "1"):
        states, rows = torch.load(tmp_path / rank, weights_only=True)
        for member, state in zip(alone.members, states, strict=True):
            assert all(torch.equal(value, state[name]) for name, value in member.state_dict().items())
        losses = [[row["train_loss"] for row in found] for found in rows]
        assert losses == [[row["train_loss"] for row in history.rows] for history in alone.histories]
    assert sorted(found.name for found in (tmp_path / "run").iterdir()) == ["member-0", "member-1", "member-2"]


@pytest.mark.parametrize("together", [Together.IN_TURN, Together.BATCHED])
def test_a_member_that_diverges_is_named(together: Together) -> None:
    members = [network()() for _ in range(3)]
    members[1].fc4.weight.data.mul_(1e30)
    with pytest.raises(TrainingDiverged, match=r"^member 2 of 3 \(strength 0.1\): "):
        ParallelMAT(members, STRENGTHS, together=together).fit(*digits(), SETTINGS)


def test_members_answer_together_in_evaluation_mode() -> None:
    found = fitted(Together.IN_TURN, batch_norm=True, combine=Combine.VOTE)
    images = next(iter(digits()[1]))[0]
    ensemble = found.ensemble()
    assert ensemble.combine is Combine.VOTE and not ensemble.training
    mean = found.ensemble(Combine.PROBABILITY_MEAN)(images)
    wanted = torch.stack([member(images).softmax(1) for member in found.members]).mean(0)
    torch.testing.assert_close(mean.exp(), wanted)
    assert evaluate(ensemble, digits()[1]).images == 64


def test_auto_chooses_by_device_members_and_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    mat = ParallelMAT([network()() for _ in STRENGTHS], STRENGTHS)
    cpu, gpu = torch.device("cpu"), torch.device("cuda")

    def chosen(device: torch.device, cores: int, settings: TrainSettings = SETTINGS, world: int = 1) -> Together:
        monkeypatch.setattr(parallel_training, "usable_cores", lambda: cores)
        return mat._chosen([0, 1, 2], device, settings, world)

    assert chosen(cpu, 1) is Together.IN_TURN
    assert chosen(cpu, 2) is Together.PROCESSES
    assert chosen(cpu, 2, world=2) is Together.IN_TURN
    assert chosen(gpu, 2) is Together.BATCHED
    assert chosen(gpu, 2, TrainSettings(keep_best=True)) is Together.IN_TURN
    assert mat._chosen([1], gpu, SETTINGS, 1) is Together.IN_TURN
    mat.members[1] = SmallCNN(width=5, hidden=8)
    assert chosen(gpu, 2) is Together.IN_TURN


def test_a_factory_makes_unlike_members_and_leaves_the_random_state() -> None:
    torch.manual_seed(3)
    wanted = torch.rand(1)
    torch.manual_seed(3)
    one, two = ParallelMAT(network(), [0.1, 0.2], seed=1).members
    assert torch.equal(torch.rand(1), wanted)
    assert not torch.equal(one.get_parameter("fc4.weight"), two.get_parameter("fc4.weight"))
    again = ParallelMAT(network(), [0.1, 0.2], seed=1).members[1]
    assert torch.equal(two.get_parameter("fc4.weight"), again.get_parameter("fc4.weight"))


def test_what_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    member = network()()
    with pytest.raises(InvalidArgument, match="as many members as strengths, at least one, got 1 and 2"):
        ParallelMAT([member], [0.1, 0.2])
    with pytest.raises(InvalidArgument, match="got one Linear"):
        ParallelMAT(nn.Linear(1, 1), [0.1])
    assert len(ParallelMAT(nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1)]), [0.1, 0.2]).members) == 2
    with pytest.raises(InvalidArgument, match="share weights"):
        ParallelMAT([member, member], [0.1, 0.2])
    with pytest.raises(InvalidArgument, match="above 0"):
        ParallelMAT([member], [-0.1])
    batches, validation = digits()
    with pytest.raises(InvalidArgument, match="clip_norm, channels_last: cannot be had for each member"):
        settings = TrainSettings(clip_norm=1.0, channels_last=True)
        ParallelMAT([member], [0.1], together=Together.BATCHED).fit(batches, validation, settings)
    with pytest.raises(InvalidArgument, match="must agree in drawing, clean_share and number of strengths"):
        ParallelMAT(network(), [0.1, (0.1, 0.2)], together=Together.BATCHED).fit(batches, validation, SETTINGS)
    shared = Batches(batches.split, 32, rank=0, world_size=2)
    with pytest.raises(InvalidArgument, match="the whole of them in each process"):
        ParallelMAT([member], [0.1]).fit(shared, validation, SETTINGS)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    with pytest.raises(InvalidArgument, match="call fit before join_processes"):
        ParallelMAT([member], [0.1]).fit(batches, validation, SETTINGS)
