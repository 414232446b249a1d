"""The objective: its sum by hand, switches of the terms, schedules, what is reported, bad weights."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from spokeshave.adaptation.adaptation_objective import SOURCE_ONLY, Adaptation, Growth, Term, Terms
from spokeshave.adaptation.adapting_network import AdaptingNetwork
from spokeshave.adaptation.correlation_alignment import coral_distance
from spokeshave.adaptation.domain_classifier import domain_loss
from spokeshave.adaptation.maximum_mean_discrepancy import squared_mmd
from spokeshave.adaptation.prediction_entropy import entropy_of_mean, mean_entropy
from spokeshave.adaptation.sliced_wasserstein import sliced_wasserstein
from spokeshave.data import Batches, Split
from spokeshave.errors import InvalidArgument


@pytest.fixture
def target() -> Batches:
    images = torch.randint(0, 256, (12, 1, 4, 4), dtype=torch.uint8)
    return Batches(Split(images, torch.zeros(12, dtype=torch.int64)), 4, seed=1)


@pytest.fixture
def adapting() -> AdaptingNetwork:
    return AdaptingNetwork(
        nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.ReLU(), nn.Linear(6, 3)), torch.rand(2, 1, 4, 4)
    )


SOURCE, LABELS = torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0])
CONSTANT = Terms(
    **{name: Term(0.1 * (1 + place), Growth.CONSTANT) for place, name in enumerate(Terms.__dataclass_fields__)}
)


def test_the_sum_by_hand(target: Batches, adapting: AdaptingNetwork) -> None:
    found = Adaptation(target, CONSTANT).loss(adapting, 4, 10, SOURCE, LABELS)
    seen = adapting(SOURCE, target.batch(1, 1)[0])  # step 4 of three batches an epoch
    first, second = seen.source_features, seen.target_features
    expected = functional.cross_entropy(seen.source_answers, LABELS) + domain_loss(
        seen.source_domain, seen.target_domain
    )
    expected = expected + 0.2 * (squared_mmd(first, second) + squared_mmd(seen.source_answers, seen.target_answers))
    expected = expected + 0.3 * coral_distance(first, second)
    drawn = torch.Generator().manual_seed(4)
    expected = expected + 0.4 * sliced_wasserstein(first, second, generator=drawn)
    expected = expected + 0.5 * mean_entropy(seen.target_answers) - 0.6 * entropy_of_mean(seen.target_answers)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", [*Terms.__dataclass_fields__])
def test_each_term_moves_the_features_by_itself(name: str, target: Batches, adapting: AdaptingNetwork) -> None:
    gradients = []
    for terms in (SOURCE_ONLY, Terms(**{one: Term() for one in Terms.__dataclass_fields__} | {name: Term(1.0)})):
        adapting.zero_grad()
        Adaptation(target, terms).loss(adapting, 9, 10, SOURCE, LABELS).backward()
        grad = adapting.network[1].weight.grad  # pyright: ignore
        gradients.append(grad.clone())
    assert not torch.allclose(gradients[0], gradients[1])


def test_source_only_is_the_cross_entropy_for_the_classifier(target: Batches, adapting: AdaptingNetwork) -> None:
    Adaptation(target, SOURCE_ONLY).loss(adapting, 3, 10, SOURCE, LABELS).backward()
    found = [parameter.grad.clone() for parameter in adapting.network.parameters()]  # pyright: ignore
    adapting.zero_grad()
    functional.cross_entropy(adapting(SOURCE), LABELS).backward()
    for one, parameter in zip(found, adapting.network.parameters(), strict=True):
        torch.testing.assert_close(one, parameter.grad)


def test_schedules() -> None:
    assert [growth.at(0.0) for growth in Growth] == [1.0, 0.0, 0.0]
    assert [round(growth.at(1.0), 3) for growth in Growth] == [1.0, 1.0, 1.0]
    assert Growth.LINEAR.at(0.25) == 0.25 < Growth.RAMP.at(0.25) < 1


def test_a_report_has_means_and_starts_anew(target: Batches, adapting: AdaptingNetwork) -> None:
    objective = Adaptation(target, CONSTANT)
    for step in range(3):
        objective.loss(adapting, step, 3, SOURCE, LABELS)
    state = objective.state_dict()
    report = objective.report()
    assert 0 <= report["domain_accuracy"] <= 1 and report["mmd"] >= 0 and report["diversity"] <= 0
    assert objective.report() == {}
    again = Adaptation(target, CONSTANT)
    again.load_state_dict(state)
    assert again.report() == report


def test_settings_tell_targets_and_terms_apart(target: Batches) -> None:
    other = Batches(Split(255 - target.split.images, target.split.labels), 4, seed=1)
    found = [Adaptation(target).settings(), Adaptation(other).settings(), Adaptation(target, SOURCE_ONLY).settings()]
    assert found[0] != found[1] and found[0] != found[2] and found[0] == Adaptation(target).settings()


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_bad_weights_are_refused(weight: float) -> None:
    with pytest.raises(InvalidArgument, match="mmd: expected a weight of at least 0"):
        Terms(mmd=Term(weight))
