"""The network of two domains: what it hands out with either kind of statistics, and what it answers alone."""

import pytest
import torch
from torch import nn

from spokeshave.adaptation.adapting_network import AdaptingNetwork, Statistics
from spokeshave.errors import InvalidArgument


def small() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 5))


def test_alone_it_answers_as_the_classifier() -> None:
    network, images = small(), torch.rand(3, 1, 4, 4)
    adapting = AdaptingNetwork(network, images).eval()
    assert adapting.layer == "4" and torch.equal(adapting(images), network(images))


@pytest.mark.parametrize("statistics", list(Statistics))
def test_two_domains(statistics: Statistics) -> None:
    network, source, target = small(), torch.rand(6, 1, 4, 4), 3 * torch.rand(4, 1, 4, 4)
    adapting = AdaptingNetwork(network, source, statistics=statistics).train()
    seen = adapting(source, target, 0.5)
    if statistics is Statistics.EACH:
        answers = network(source), network(target)
    else:
        answers = network(torch.cat([source, target])).split([6, 4])
    torch.testing.assert_close(seen.source_answers, answers[0])
    torch.testing.assert_close(seen.target_answers, answers[1])
    torch.testing.assert_close(network[4](seen.target_features), answers[1])
    assert seen.source_domain.shape == (6,) and seen.target_domain.shape == (4,)
    assert seen.source_scores is not None and torch.equal(seen.source_scores, seen.source_answers)


def test_the_domain_classifiers_gradient_comes_back_reversed() -> None:
    images = torch.rand(4, 1, 4, 4)
    network = small()
    adapting = AdaptingNetwork(network, images)
    gradients = []
    for scale in (-1.0, 0.5, 0.0):
        adapting.zero_grad()
        adapting(images, images, scale).source_domain.sum().backward()
        weight, own = network[0].weight.grad, adapting.domain_classifier.layers[0].weight.grad
        assert weight is not None and own is not None and bool(own.count_nonzero())
        gradients.append(weight.clone())
    torch.testing.assert_close(gradients[1], -0.5 * gradients[0])
    assert not bool(gradients[2].count_nonzero())


def test_a_residual_classifier_stands_between_scores() -> None:
    images = torch.rand(4, 1, 4, 4)
    adapting = AdaptingNetwork(small(), images, residual=True).eval()
    nn.init.ones_(adapting.residual.second.bias)  # pyright: ignore
    seen = adapting(images, images)
    torch.testing.assert_close(seen.source_scores, seen.source_answers + 1)
    assert torch.equal(adapting(images), seen.source_answers)


def test_a_layer_that_is_not_there_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="Sequential has no layer 'head'; its layers are 0, 1"):
        AdaptingNetwork(small(), torch.rand(2, 1, 4, 4), "head")
