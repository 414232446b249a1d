"""The most suspicious opinion on one scale: ranks by counting, false alarms of all together."""

import pytest
import torch

from blob_cases import judge_of_blobs, two_blobs
from spokeshave.errors import InvalidArgument
from spokeshave.threats.joint_detection import AnyDetector
from spokeshave.threats.own_label_distance import DistanceDetector
from spokeshave.threats.poisoning_detection import LossDetector
from spokeshave.threats.spectral_signatures import SpectralDetector


def test_scores_are_the_greatest_share_of_clean_scores_below():
    images, labels = two_blobs(200)
    detector = AnyDetector().fit(judge_of_blobs(), images, labels)
    others, given = two_blobs(30, seed=1)
    expected = torch.stack([
        (part.clean_scores()[None] < part.scores(others, given)[:, None]).float().mean(1) for part in detector.detectors
    ]).max(0)  # fmt: skip
    found = detector.scores(others, given)
    inside = found <= 1
    assert inside.sum() > 20 and torch.allclose(found[inside], expected.values[inside])
    assert (expected.values[~inside] == 1).all()


def test_it_finds_what_either_finds_and_keeps_the_share_of_false_alarms():
    images, labels = two_blobs(400)
    detector = AnyDetector().fit(judge_of_blobs(), images, labels, false_positive_share=0.02)
    assert 0 < (detector.clean_scores() > detector.threshold).double().mean() <= 0.02
    noise = torch.tensor([0.2, 0.2, 1.0, 1.0]).view(1, 1, 2, 2)
    assert detector.suspicious(noise, torch.tensor([1])).all()
    assert detector.suspicious(images[:2], 1 - labels[:2]).all()


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3])
def test_limits_of_its_parts_are_its_own(share):
    detector = AnyDetector().fit(judge_of_blobs(), *two_blobs(300), false_positive_share=share)
    images, labels = two_blobs(300, seed=1)
    labels = torch.where(torch.arange(300) < 20, 1 - labels, labels)
    beyond = [
        part.scores(images, labels) > limit for part, limit in zip(detector.detectors, detector.limits, strict=True)
    ]
    assert torch.equal(detector.suspicious(images, labels), beyond[0] | beyond[1])
    assert 0 < beyond[0].sum() < 300 and 0 < beyond[1].sum() < 300


def test_images_beyond_all_clean_ones_keep_their_order():
    detector = AnyDetector().fit(judge_of_blobs(), *two_blobs(100))
    far = torch.tensor([1.0, 2.0, 4.0]).view(3, 1, 1, 1).expand(3, 1, 2, 2)
    first, second, third = detector.scores(far, torch.ones(3, dtype=torch.int64)).tolist()
    assert 1 < first < second < third


def test_parts_decide_whether_images_are_judged_alone():
    assert AnyDetector().judges_alone
    assert not AnyDetector((LossDetector(), SpectralDetector())).judges_alone
    with pytest.raises(InvalidArgument, match="two or more detectors, got 1"):
        AnyDetector((DistanceDetector(),))
