"""Learning rates by hand, weight decay where it belongs, bad settings refused."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from spokeshave import train_settings
from spokeshave.errors import InvalidArgument
from spokeshave.jit.host_cpu import host_cpu
from spokeshave.train_settings import OptimizerName, Precision, Schedule, TrainSettings, make_optimizer, rate_at


def test_rates_of_the_schedules_by_hand():
    cosine = TrainSettings(epochs=2, learning_rate=1.0, warmup_epochs=0.4)
    assert [rate_at(cosine, s, 10) for s in range(4)] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert rate_at(cosine, 4, 10) == 1.0
    assert rate_at(cosine, 12, 10) == pytest.approx(0.5)
    steps = TrainSettings(epochs=4, learning_rate=1.0, schedule=Schedule.STEPS, milestones=(0.5, 0.75))
    assert [rate_at(steps, s, 10) for s in (19, 20, 29, 30, 39)] == pytest.approx([1, 0.1, 0.1, 0.01, 0.01])


@pytest.mark.parametrize("bad", [{"epochs": 0}, {"learning_rate": 0.0}, {"learning_rate": float("nan")}])
def test_bad_settings_are_refused(bad):
    with pytest.raises(InvalidArgument, match="at least"):
        TrainSettings(**bad)


@pytest.mark.parametrize("name", list(OptimizerName))
def test_weight_decay_is_on_matrices_only(name):
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2))
    optimizer = make_optimizer(net, TrainSettings(optimizer=name, weight_decay=0.25))
    decayed = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert {n: decayed[id(p)] for n, p in net.named_parameters() if decayed[id(p)]} == {
        "0.weight": 0.25,
        "3.weight": 0.25,
    }
    assert isinstance(
        optimizer, {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name.value]
    )


def test_the_polynomial_schedule_falls_to_nothing_in_so_many_steps():
    root = TrainSettings(learning_rate=2.0, schedule=Schedule.POLYNOMIAL, steps=16)
    assert [rate_at(root, step, 1000) for step in (0, 7, 12, 15)] == pytest.approx([2, 1.5, 1, 0.5])
    line = TrainSettings(epochs=2, learning_rate=1.0, schedule=Schedule.POLYNOMIAL, power=1.0, warmup_epochs=0.2)
    assert [rate_at(line, step, 10) for step in (1, 2, 11, 19)] == pytest.approx([2 / 3, 1, 0.5, 1 / 18])


@pytest.mark.parametrize("bad", [{"steps": -1}, {"power": 0.0}])
def test_a_negative_length_and_a_flat_polynomial_are_refused(bad):
    with pytest.raises(InvalidArgument, match="steps must be"):
        TrainSettings(**bad)


def test_weight_decay_can_be_given_to_some_modules():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2, 2))
    optimizer = make_optimizer(net, TrainSettings(weight_decay=0.25, decayed=("2",)))
    decayed = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert [name for name, p in net.named_parameters() if decayed[id(p)]] == ["2.weight"]
    assert len(decayed) == 4
    with pytest.raises(InvalidArgument, match="no module called fc"):
        make_optimizer(net, TrainSettings(decayed=("fc",)))


@pytest.mark.parametrize(
    ("features", "asked", "device", "wanted"),
    [
        ({"avx2"}, Precision.BFLOAT16, "cpu", Precision.FLOAT32),
        ({"avx512bf16"}, Precision.BFLOAT16, "cpu", Precision.BFLOAT16),
        ({"amx-bf16"}, Precision.BFLOAT16, "cpu", Precision.BFLOAT16),
        ({"neon", "bf16"}, Precision.BFLOAT16, "cpu", Precision.BFLOAT16),
        ({"avx2"}, Precision.BFLOAT16, "cuda", Precision.BFLOAT16),
        ({"avx2"}, Precision.FLOAT16, "cpu", Precision.FLOAT16),
        ({"amx-bf16"}, Precision.FLOAT32, "cpu", Precision.FLOAT32),
    ],
)
def test_bfloat16_is_not_emulated(monkeypatch, features, asked, device, wanted):
    monkeypatch.setattr(train_settings, "host_cpu", lambda: replace(host_cpu(), features=frozenset(features)))
    assert asked.on(torch.device(device)) is wanted


def test_parts_that_were_trained_before_learn_slowly() -> None:
    net = nn.ModuleDict({"body": nn.Linear(2, 3), "head": nn.Linear(3, 2), "header": nn.Linear(2, 2)})
    settings = TrainSettings(slow=0.1, fast=("head",), weight_decay=0.01)
    groups = make_optimizer(net, settings).param_groups
    found = {id(one): (group["share"], group["weight_decay"]) for group in groups for one in group["params"]}
    assert found[id(net["head"].weight)] == (1.0, 0.01) and found[id(net["head"].bias)] == (1.0, 0.0)
    assert found[id(net["body"].weight)] == found[id(net["header"].weight)] == (0.1, 0.01)
    assert len(found) == 6
    with pytest.raises(InvalidArgument, match="fast: the model has no module called tail"):
        make_optimizer(net, TrainSettings(slow=0.1, fast=("tail",)))
    with pytest.raises(InvalidArgument, match="slow must be positive, got 0"):
        TrainSettings(slow=0.0)


def test_settings_without_slow_parts_are_written_as_before() -> None:
    assert not {"slow", "fast"} & set(TrainSettings().to_dict())
    assert TrainSettings(slow=0.5, fast=("a",)).to_dict()["slow"] == 0.5
