"""The training loop: learns, resumes bit for bit, stops on NaN, refuses what does not fit."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from spokeshave.checkpoints import load_checkpoint, save_checkpoint
from spokeshave.data import Augmentation, Batches, Split
from spokeshave.errors import CheckpointError, FileError, TrainingDiverged
from spokeshave.evaluation import evaluate
from spokeshave.gradient_exchange import GradientExchange
from spokeshave.regularizers import Freeze, GroupLasso, Solver
from spokeshave.train_settings import OptimizerName, Precision, Schedule, TrainSettings
from spokeshave.training import train


def striped(count: int = 256, seed: int = 0) -> Split:
    """Images whose class is the brighter half: learnable in a few steps."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    images = torch.randint(0, 100, (count, 1, 8, 8), generator=generator)
    images[labels == 0, :, :4] += 100
    images[labels == 1, :, 4:] += 100
    return Split(images.to(torch.uint8), labels)


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(), nn.Linear(6 * 36, 2)
    )


SETTINGS = TrainSettings(epochs=3, learning_rate=0.02, checkpoint_every=3)
TRAINING, VALIDATION = striped(), striped(64, 1)


def go(
    run_dir: Path | None, settings: TrainSettings = SETTINGS, resume: bool = False, stop_after: int = 0, **pull: float
):
    net = network()
    regularizers = [GroupLasso(net, **(pull or {"filters": 1e-2}))]
    seen = []

    def log(row):
        seen.append(row)
        if len(seen) == stop_after:
            raise KeyboardInterrupt

    batches = Batches(TRAINING, 32, 0, augment=Augmentation(pad=1))
    history = train(net, batches, Batches(VALIDATION, 64), settings, regularizers, run_dir, resume, log=log)
    return net, history


def same(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_it_learns_and_evaluate_agrees_with_a_loop():
    net, history = go(None)
    assert history.rows[-1]["validation_accuracy"] > 0.95
    net.train()
    score = evaluate(net, Batches(VALIDATION, 10))
    assert net.training
    net.eval()
    images = VALIDATION.images.float() / 255
    hits = sum(int(net(images[i : i + 1]).argmax()) == int(VALIDATION.labels[i]) for i in range(64))
    loss = nn.functional.cross_entropy(net(images), VALIDATION.labels).item()
    assert score.accuracy == hits / 64
    assert score.loss == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize("optimizer", list(OptimizerName))
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path, optimizer):
    settings = replace(SETTINGS, optimizer=optimizer, keep_best=True)
    whole, history = go(tmp_path / "whole", settings)
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path / "cut", settings, stop_after=1)
    resumed, later = go(tmp_path / "cut", settings, resume=True)
    assert same(whole, resumed)
    assert [r["train_loss"] for r in history.rows] == [r["train_loss"] for r in later.rows]


def test_a_finished_stage_is_loaded_not_run_again(tmp_path):
    whole, _ = go(tmp_path)
    written = (tmp_path / "checkpoint.safetensors").stat().st_mtime_ns
    again, history = go(tmp_path, resume=True)
    assert same(whole, again) and len(history.rows) == 3
    assert (tmp_path / "checkpoint.safetensors").stat().st_mtime_ns == written


def test_epochs_shorter_than_the_interval_leave_no_checkpoint(tmp_path):
    rarely = replace(SETTINGS, checkpoint_every=10)  # an epoch has 8 steps
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path, rarely, stop_after=2)
    assert load_checkpoint(tmp_path).facts["step"] == 10
    resumed, history = go(tmp_path, rarely, resume=True)
    assert same(resumed, go(None)[0]) and [row["epoch"] for row in history.rows] == [1, 2, 3]
    assert load_checkpoint(tmp_path).facts["step"] == 24


def test_an_existing_run_is_not_overwritten_and_other_settings_are_named(tmp_path):
    go(tmp_path)
    with pytest.raises(CheckpointError, match="already holds a run"):
        go(tmp_path)
    with pytest.raises(CheckpointError, match=r"learning_rate.*0\.02.*0\.5"):
        go(tmp_path, replace(SETTINGS, learning_rate=0.5), resume=True)


def test_resuming_with_another_model_is_refused(tmp_path):
    def learn(net: nn.Module) -> None:
        train(net, Batches(TRAINING, 32), Batches(VALIDATION, 64), SETTINGS, (), tmp_path, resume=True)

    learn(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)))
    with pytest.raises(CheckpointError, match="another model"):
        learn(nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.Linear(4, 2)))


def test_nan_stops_with_step_layer_and_last_good_checkpoint(tmp_path):
    net = network()
    go_on = 11

    def poison(module, inputs, output):
        poison.calls += module.training
        return output * float("nan") if poison.calls > go_on and module.training else output

    poison.calls = 0
    net[0].register_forward_hook(poison)
    with pytest.raises(TrainingDiverged, match=r"step 11 .*layer 0 \(Conv2d\).*step 9") as stopped:
        train(net, Batches(TRAINING, 32), Batches(VALIDATION, 64), SETTINGS, (), tmp_path)
    assert str(tmp_path) in str(stopped.value)
    assert load_checkpoint(tmp_path).facts["step"] == 9
    assert all(torch.isfinite(t).all() for t in load_checkpoint(tmp_path).part("model").values())


def test_a_learning_rate_that_explodes_stops(tmp_path):
    with pytest.raises(TrainingDiverged, match="Lower learning_rate"):
        go(tmp_path, replace(SETTINGS, learning_rate=1e30))


def test_freeze_holds_its_zeros_across_a_resume(tmp_path):
    def freeze_run(stop_after: int, resume: bool):
        net = network()
        with torch.no_grad():
            net[0].weight[:3] = 0
        seen = []

        def log(row):
            seen.append(row)
            if len(seen) == stop_after:
                raise KeyboardInterrupt

        freeze = Freeze(net)
        train(net, Batches(TRAINING, 32), Batches(VALIDATION, 64), SETTINGS, [freeze], tmp_path, resume, log=log)
        return net

    with pytest.raises(KeyboardInterrupt):
        freeze_run(1, False)
    assert not freeze_run(0, True)[0].weight[:3].any()


@pytest.mark.parametrize("precision", [Precision.BFLOAT16, Precision.FLOAT32])
def test_mixed_precision_and_subgradient_run_and_learn(monkeypatch, precision):
    monkeypatch.setattr(Precision, "on", lambda asked, device: precision)  # with and without instructions for it
    net = network()
    seen = set()
    net[0].register_forward_hook(lambda module, inputs, output: seen.add(output.dtype) if module.training else None)
    pull = GroupLasso(net, filters=1e-3, solver=Solver.SUBGRADIENT)
    settings = replace(SETTINGS, precision=Precision.BFLOAT16, channels_last=True, clip_norm=1.0)
    history = train(net, Batches(TRAINING, 32, channels_last=True), Batches(VALIDATION, 64), settings, [pull])
    assert history.rows[-1]["validation_accuracy"] > 0.9
    assert seen == {getattr(torch, precision.value)} and history.rows[-1]["precision"] == precision.value
    assert all(p.dtype == torch.float32 for p in net.parameters())


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path):
    """A file-size limit stands in for a full disk: the kernel refuses the write in the same place."""
    script = f"""
import resource, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_training import SETTINGS, go
folder = Path({str(tmp_path)!r})
try:
    go(folder, SETTINGS, stop_after=1)
except KeyboardInterrupt:
    pass
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
from spokeshave.errors import FileError
try:
    go(folder, SETTINGS, resume=True)
except FileError as error:
    print("FILE ERROR", error)
"""
    done = subprocess.run([sys.executable, "-B", "-c", script], capture_output=True, text=True, check=False)
    assert "FILE ERROR" in done.stdout, done.stderr
    assert "checkpoint.safetensors" in done.stdout
    assert load_checkpoint(tmp_path).facts["step"] == 8
    assert not list(tmp_path.glob("*.tmp")) and not list(tmp_path.glob(".*.tmp"))
    resumed, _ = go(tmp_path, resume=True)
    whole, _ = go(None)
    assert same(resumed, whole)


def test_an_unwritable_folder_is_named(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(FileError, match="file"):
        go(blocked / "run")


def test_killed_at_twenty_random_moments_ends_bit_identical(tmp_path):
    seed = int(os.environ.get("SPOKESHAVE_TEST_SEED", "0")) or random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    draw = random.Random(seed)
    code = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from dataclasses import replace
from pathlib import Path
import torch
torch.set_num_threads(1)
from test_training import SETTINGS, go
folder = Path(sys.argv[1])
settings = replace(SETTINGS, epochs=60, checkpoint_every=2)
while True:  # one server process forks the runs: importing torch twenty times would take most of the test
    line = sys.stdin.readline()
    if not line:
        break
    child = os.fork()
    if child == 0:
        sys.stdout = open(os.devnull, "w")
        go(Path(line.strip()), settings, resume=True)
        os._exit(0)
    print(child, flush=True)
    _, status = os.waitpid(child, 0)
    print(status, flush=True)
"""
    server = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    assert server.stdin is not None and server.stdout is not None

    def run(folder: Path, kill_after: float | None) -> int:
        server.stdin.write(f"{folder}\n")
        server.stdin.flush()
        child = int(server.stdout.readline())
        if kill_after is not None:
            time.sleep(kill_after)
            os.kill(child, signal.SIGKILL)
        return int(server.stdout.readline())

    try:
        started = time.perf_counter()
        assert run(tmp_path / "whole", None) == 0
        took = time.perf_counter() - started
        kills = 0
        for _ in range(200):
            if kills == 20:
                break
            # Short enough that twenty kills fit into one run; a run that ends unkilled starts anew in a clean folder.
            if run(tmp_path / "cut", draw.uniform(0.0, took / 8)) == 0:
                assert _state(tmp_path / "cut") == _state(tmp_path / "whole")
                for file in (tmp_path / "cut").iterdir():
                    file.unlink()
            else:
                kills += 1
        assert kills == 20
        assert run(tmp_path / "cut", None) == 0
        assert _state(tmp_path / "cut") == _state(tmp_path / "whole")
    finally:
        server.stdin.close()
        server.stdout.close()
        server.wait()


def _state(folder: Path) -> tuple[dict[str, bytes], str]:
    saved = load_checkpoint(folder)
    facts = json.loads(json.dumps(saved.facts))
    facts.pop("wall_s")
    for row in facts["rows"]:
        row.pop("wall_s")
    return {n: t.contiguous().numpy().tobytes() for n, t in saved.tensors.items()}, json.dumps(facts, sort_keys=True)


def test_a_length_in_steps_ends_inside_an_epoch_and_resumes(tmp_path):
    settings = replace(SETTINGS, steps=11, schedule=Schedule.POLYNOMIAL)
    whole, history = go(tmp_path / "whole", settings)
    assert [(row["epoch"], row["step"]) for row in history.rows] == [(1, 8), (2, 11)]
    alone, first = go(None, replace(settings, steps=1))  # the loss of an epoch cut short is the mean of its steps
    assert first.rows[0]["train_loss"] == pytest.approx(0.7, abs=0.25) and first.rows[0]["epoch"] == 1
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path / "cut", settings, stop_after=1)
    resumed, later = go(tmp_path / "cut", settings, resume=True)
    assert same(whole, resumed) and not same(whole, alone)
    assert [row["train_loss"] for row in later.rows] == [row["train_loss"] for row in history.rows]


class Halves:
    """An exchange by hand: the mean of the gradients of two halves of a batch."""

    def attach(self, network: nn.Module) -> None:
        self.network, self.steps = network, []

    def backward(self, step, inputs, labels, one_worker) -> float:
        self.steps.append(step)
        losses = [one_worker(inputs[half::2], labels[half::2]) for half in range(2)]
        for parameter in self.network.parameters():
            parameter.grad = parameter.grad / 2
        return sum(losses) / 2

    def report(self):
        return {"last": self.steps[-1]}

    def settings(self):
        return {"kind": "halves"}


def test_an_exchange_makes_the_gradient_and_is_part_of_what_a_run_is(tmp_path):
    def learn(exchange: Halves | None, folder: Path | None = None) -> tuple[nn.Module, list]:
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.zero_()
        settings = replace(SETTINGS, precision=Precision.FLOAT32, clip_norm=0.1)
        batches = Batches(TRAINING, 32, drop_last=True)
        rows = train(net, batches, Batches(VALIDATION, 64), settings, run_dir=folder, resume=True, exchange=exchange)
        return net, rows.rows

    exchange = Halves()
    net, rows = learn(exchange, tmp_path)
    plain, _ = learn(None)
    for ours, theirs in zip(net.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert isinstance(exchange, GradientExchange)
    assert exchange.steps == list(range(24)) and [row["exchange"] for row in rows] == [{"last": n} for n in (7, 15, 23)]
    with pytest.raises(CheckpointError, match="other settings"):
        other = Halves()
        other.settings = lambda: {"kind": "thirds"}
        learn(other, tmp_path)


def test_resuming_on_other_images_is_refused(tmp_path: Path) -> None:
    """As many, with the same settings: only what they show differs."""
    train(network(), Batches(TRAINING, 32), Batches(VALIDATION, 64), replace(SETTINGS, epochs=1), run_dir=tmp_path)
    with pytest.raises(CheckpointError, match="other settings.*'data'"):
        other = Batches(striped(seed=2), 32)
        train(network(), other, Batches(VALIDATION, 64), replace(SETTINGS, epochs=1), run_dir=tmp_path, resume=True)


def test_a_run_is_not_resumed_under_another_pull(tmp_path):
    def learn(strength: float) -> None:
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
        pulls = (GroupLasso(net, rows=0.1, strength=strength),)
        train(net, Batches(TRAINING, 32), Batches(VALIDATION, 64), SETTINGS, pulls, run_dir=tmp_path, resume=True)

    learn(0.5)
    learn(0.5)
    with pytest.raises(CheckpointError, match="other settings.*'strength': 0.5.*'strength': 0.25"):
        learn(0.25)
    old = load_checkpoint(tmp_path)
    del old.facts["identity"]["regularizers"]
    save_checkpoint(tmp_path, old)
    learn(0.25)  # a checkpoint that was made before pulls were noted
