"""Squared projections on the top singular vector, by the singular value decomposition itself."""

import pytest
import torch

from blob_cases import judge_of_blobs, two_blobs
from spokeshave.threats.network_features import Space
from spokeshave.threats.spectral_signatures import SpectralDetector, spectral_scores


def test_scores_are_those_of_the_singular_vectors_label_by_label():
    features, labels = torch.randn(50, 6), torch.arange(50) % 2
    found = spectral_scores(features, labels)
    for label in range(2):
        mine = features[labels == label].double()
        _, _, right = torch.linalg.svd(mine - mine.mean(0))
        expected = ((mine - mine.mean(0)) @ right[0]).square()
        assert found[labels == label].tolist() == pytest.approx(expected.tolist(), rel=1e-4)


def test_a_group_that_shares_a_direction_is_found_among_its_class():
    images, labels = two_blobs(400)
    detector = SpectralDetector(Space.PIXELS).fit(judge_of_blobs(), images, labels)
    odd = two_blobs(20, seed=1)[0][::2] + torch.tensor([0.5, -0.2, 0.0, 0.0]).view(1, 2, 2)
    found = detector.judge(images, labels, odd, torch.zeros(10, dtype=torch.int64))
    assert found.area > 0.99 and found.caught_share == 1 and not detector.judges_alone


def test_a_single_image_of_a_label_is_not_suspicious():
    assert spectral_scores(torch.randn(1, 3), torch.tensor([4])).tolist() == [0.0]
