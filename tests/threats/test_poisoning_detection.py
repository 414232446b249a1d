"""The loss detector, and what all detectors promise: the model and the random state as they were, clear refusals."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from blob_cases import judge_of_blobs, two_blobs
from spokeshave.errors import InvalidArgument
from spokeshave.threats import poisoning_detection
from spokeshave.threats.activation_clustering import ClusteringDetector
from spokeshave.threats.joint_detection import AnyDetector
from spokeshave.threats.neighbour_detection import NeighbourDetector
from spokeshave.threats.own_label_distance import DistanceDetector
from spokeshave.threats.poisoning_detection import LossDetector, Weights, losses
from spokeshave.threats.spectral_signatures import SpectralDetector

DETECTORS = [LossDetector, NeighbourDetector, DistanceDetector, SpectralDetector, ClusteringDetector, AnyDetector]


@pytest.fixture
def model() -> nn.Sequential:
    return judge_of_blobs()


def test_scores_are_cross_entropies_whatever_the_chunk(model, monkeypatch):
    images, labels = two_blobs(50)
    expected = functional.cross_entropy(model.eval()(images), labels, reduction="none")
    assert torch.allclose(losses(model, images, labels), expected.detach())
    monkeypatch.setattr(poisoning_detection, "CHUNK", 7)
    assert torch.allclose(losses(model, images, labels), expected.detach(), atol=1e-6)


@pytest.mark.parametrize("kind", DETECTORS)
def test_a_detector_leaves_the_model_and_the_random_state_as_they_were(kind, model):
    model.train()
    model[2].eval()
    before, modes = copy.deepcopy(model.state_dict()), [module.training for module in model.modules()]
    random_state = torch.get_rng_state()
    images, labels = two_blobs(200)
    detector = kind().fit(model, images, labels)
    first = detector.scores(images, labels)
    assert torch.equal(first, detector.scores(images, labels)) and first.shape == (200,) and first.isfinite().all()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("kind", DETECTORS)
def test_no_more_clean_images_are_suspicious_than_asked_for(kind, model):
    images, labels = two_blobs(300)
    detector = kind().fit(model, images, labels, false_positive_share=0.05)
    assert (detector.clean_scores() > detector.threshold).double().mean() <= 0.05
    assert detector.calibrate() == detector.threshold


@pytest.mark.parametrize("kind", [LossDetector, NeighbourDetector, DistanceDetector, AnyDetector])
def test_a_flipped_label_is_found_and_judged_by_itself(kind, model):
    detector = kind().fit(model, *two_blobs(400))
    images, labels = two_blobs(100, seed=1)
    found = detector.judge(images, labels, images[:10], 1 - labels[:10])
    assert found.area > 0.999 and found.found_share == 1 and found.caught_share == 1 and found.lost_share <= 0.05
    assert detector.judges_alone
    single = torch.cat([detector.scores(images[i : i + 1], labels[i : i + 1]) for i in range(5)])
    assert torch.allclose(single, detector.scores(images, labels)[:5], atol=1e-5)


def test_a_frozen_detector_stays_clean_and_a_current_one_follows_the_training(model):
    images, labels = two_blobs(100)
    frozen, current = (
        LossDetector().fit(model, images, labels),
        LossDetector(Weights.CURRENT).fit(model, images, labels),
    )
    earlier = current.threshold
    with torch.no_grad():
        model[5].weight.mul_(-1)  # by now it takes each class for the other
    assert frozen.suspicious(images, labels).sum() <= 1 and frozen.suspicious(images, 1 - labels).all()
    assert current.suspicious(images, labels).all() and current.suspicious(images, 1 - labels).sum() <= 1
    assert current.calibrate() > earlier and current.suspicious(images, labels).sum() <= 1


def test_an_exact_threshold_by_hand():
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2, bias=False))
    model[1].weight.data.copy_(torch.tensor([[1.0], [-1.0]]))
    images = torch.arange(1.0, 11)[:, None, None, None] / 10
    detector = LossDetector().fit(model, images, torch.zeros(10, dtype=torch.int64), false_positive_share=0.1)
    assert detector.threshold == pytest.approx(math.log1p(math.exp(-0.4)))  # the second greatest loss, at x = 0.2


@pytest.mark.parametrize("kind", DETECTORS)
def test_what_does_not_fit_is_refused(kind, model):
    images, labels = two_blobs(200)
    for call in (lambda: kind().scores(images, labels), kind().calibrate, lambda: kind().suspicious(images, labels)):
        with pytest.raises(InvalidArgument, match="has no threshold yet"):
            call()
    with pytest.raises(InvalidArgument, match="NaN or infinite ones in 200 of 200 images"):
        kind().fit(model, images * torch.nan, labels)
    with pytest.raises(InvalidArgument, match="false_positive_share"):
        kind().fit(model, images, labels, false_positive_share=1.0)
    with pytest.raises(InvalidArgument, match="expected class numbers at least 0, got -1..0"):
        kind().fit(model, images, labels).scores(images, labels - 1)


def test_a_model_that_does_not_classify_is_refused(model):
    images, labels = two_blobs(20)
    with pytest.raises(InvalidArgument, match="below the network's 2 classes, got 2"):
        LossDetector().fit(model, images, labels + 1)
    with pytest.raises(InvalidArgument, match="expected finite class scores"):
        LossDetector().fit(nn.Flatten(0), images, labels)
    with torch.no_grad():
        model[5].bias[0] = torch.nan
    with pytest.raises(InvalidArgument, match="20 that are not finite"):
        LossDetector().fit(model, images, labels)
