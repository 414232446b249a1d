"""Equal budget: same weights, same batches, float networks shared between runs and never mistaken."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from small_road import few_digits
from spokeshave.communication.ternary_options import TernaryOptions
from spokeshave.communication.virtual_workers import VirtualWorkers
from spokeshave.data import Augmentation, Normalization
from spokeshave.equal_budget import Budget, Course, Pair
from spokeshave.errors import CheckpointError
from spokeshave.train_settings import TrainSettings

HALF = torch.full((1, 1, 1), 0.5)
BUDGET = Budget(
    "line",
    lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 10)),
    TrainSettings(learning_rate=0.05, steps=12),
    40,
    Normalization(HALF, HALF),
    validation=100,
)


def same(first: nn.Module, second: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


class Everything:
    """An exchange that changes nothing, and remembers what it saw."""

    def attach(self, network: nn.Module) -> None:
        self.first = [parameter.detach().clone() for parameter in network.parameters()]
        self.labels: list[list[int]] = []

    def backward(self, step, inputs, labels, one_worker) -> float:
        self.labels.append(labels.tolist())
        return one_worker(inputs, labels)

    def report(self):
        return {}

    def settings(self):
        return {}


def test_an_exchange_that_changes_nothing_gives_the_float_network(tmp_path: Path) -> None:
    course = Course(BUDGET, few_digits(), tmp_path / "run")
    exact, rows = course.exact(3)
    exchange = Everything()
    exchanged, _ = course.exchanged(3, exchange)
    assert same(exact, exchanged) and rows[-1]["step"] == 12
    torch.manual_seed(3)
    assert all(torch.equal(a, b) for a, b in zip(BUDGET.network().parameters(), exchange.first, strict=True))
    assert len(exchange.labels) == 12 and {len(labels) for labels in exchange.labels} == {40}
    pair = Pair(3, course.score(exact, rows), course.score(exchanged, rows))
    assert pair.gap == 0 and pair.exact.test.images == 359 and pair.exact.validation.images == 100
    wrong = replace(pair.exchanged, test=replace(pair.exchanged.test, accuracy=pair.exact.test.accuracy - 0.01))
    assert replace(pair, exchanged=wrong).gap == pytest.approx(0.01)


def test_float_networks_are_shared_between_runs_and_only_where_all_agrees(tmp_path: Path) -> None:
    splits = few_digits()
    network, _ = Course(BUDGET, splits, tmp_path / "one").exact(0)
    (folder,) = tmp_path.glob("float-line-seed-0-*")
    written = (folder / "checkpoint.safetensors").stat().st_mtime_ns
    again, _ = Course(BUDGET, splits, tmp_path / "two").exact(0)
    assert same(network, again) and (folder / "checkpoint.safetensors").stat().st_mtime_ns == written
    others = [
        replace(BUDGET, settings=replace(BUDGET.settings, learning_rate=0.06)),
        replace(BUDGET, batch_size=20),
        replace(BUDGET, augment=Augmentation(pad=1)),
        replace(BUDGET, normalize=Normalization.scale_only(1)),
        replace(BUDGET, validation=50),
    ]
    for count, budget in enumerate(others, start=2):
        Course(budget, splits, tmp_path / "one").exact(0)
        assert len(list(tmp_path.glob("float-line-seed-0-*"))) == count
    rarely = replace(BUDGET, settings=replace(BUDGET.settings, checkpoint_every=5))
    Course(rarely, splits, tmp_path / "one").exact(0)
    assert len(list(tmp_path.glob("float-line-seed-0-*"))) == len(others) + 1


def test_a_run_is_not_taken_for_one_with_another_exchange(tmp_path: Path) -> None:
    splits = few_digits()
    Course(BUDGET, splits, tmp_path / "run").exchanged(0, VirtualWorkers(2, TernaryOptions()))
    with pytest.raises(CheckpointError, match="already holds a run"):
        Course(BUDGET, splits, tmp_path / "run").exchanged(0, VirtualWorkers(2, TernaryOptions()))
    with pytest.raises(CheckpointError, match="other settings"):
        Course(BUDGET, splits, tmp_path / "run", resume=True).exchanged(0, VirtualWorkers(4, TernaryOptions()))


def test_the_example_is_as_the_network_is_fed(tmp_path: Path) -> None:
    splits = few_digits()
    example = Course(replace(BUDGET, augment=Augmentation(crop=20)), splits, tmp_path / "run").example()
    assert example.shape == (2, 1, 20, 20) and -1 <= example.min() < example.max() <= 1


def test_a_stage_trains_on_in_place_and_its_order_is_its_own(tmp_path: Path) -> None:
    course = Course(BUDGET, few_digits(), tmp_path / "run")
    network, _ = course.exact(1)
    start = [parameter.detach().clone() for parameter in network.parameters()]
    settings = TrainSettings(learning_rate=0.05, steps=6)
    trained = {}
    for name in ("clip", "delete"):
        with torch.no_grad():
            for parameter, value in zip(network.parameters(), start, strict=True):
                parameter.copy_(value)
        rows = course.stage(1, name, network, settings)
        assert rows[-1]["step"] == 6 and (tmp_path / "run" / "seed-1" / name).is_dir()
        trained[name] = network[1].weight.detach().clone()
    assert not torch.equal(trained["clip"], trained["delete"]) and not torch.equal(trained["clip"], start[0])
    with pytest.raises(CheckpointError, match="already holds a run"):
        course.stage(1, "clip", network, settings)
    resumed = Course(BUDGET, few_digits(), tmp_path / "run", resume=True)
    resumed.stage(1, "clip", network, settings)
    assert torch.equal(network[1].weight, trained["clip"])
    assert course.validate(network).images == 100


def test_going_on_is_shared_between_runs_of_one_origin(tmp_path: Path) -> None:
    splits, settings = few_digits(), replace(BUDGET.settings, steps=5)
    torch.manual_seed(0)
    start = BUDGET.network()

    def gone_on(run: str, origin: int, settings: TrainSettings = settings) -> nn.Module:
        network = copy.deepcopy(start)
        Course(BUDGET, splits, tmp_path / run).further("line", {"origin": origin}, network, settings)
        return network

    first = gone_on("one", 1)
    (folder,) = tmp_path.glob("further-line-*")
    written = (folder / "checkpoint.safetensors").stat().st_mtime_ns
    assert not same(first, start) and same(first, gone_on("two", 1))
    assert (folder / "checkpoint.safetensors").stat().st_mtime_ns == written
    gone_on("two", 2)
    gone_on("two", 1, replace(settings, steps=6))
    assert len(list(tmp_path.glob("further-line-*"))) == 3
