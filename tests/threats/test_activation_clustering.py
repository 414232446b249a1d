"""Shares of clusters that can be counted, poison apart from its class, labels too small to split."""

import pytest
import torch

from blob_cases import judge_of_blobs, two_blobs
from spokeshave.errors import InvalidArgument
from spokeshave.threats.activation_clustering import ClusteringDetector, clustering_scores
from spokeshave.threats.network_features import Space


def test_scores_are_one_minus_the_share_of_the_cluster():
    sizes, centres = (30, 10, 15, 5), (0.0, 50.0, 0.0, -50.0)
    features = torch.cat([torch.randn(n, 12) + centre for n, centre in zip(sizes, centres, strict=True)])
    labels = torch.tensor([0] * 40 + [1] * 20)
    expected = [0.25] * 30 + [0.75] * 10 + [0.25] * 15 + [0.75] * 5
    assert clustering_scores(features, labels).tolist() == expected
    assert torch.equal(clustering_scores(features, labels, seed=3), clustering_scores(features, labels, seed=3))


def test_a_small_group_apart_from_its_class_is_found():
    images, labels = two_blobs(400)
    detector = ClusteringDetector(space=Space.PIXELS).fit(judge_of_blobs(), images, labels)
    odd = two_blobs(40, seed=1)[0][::2] + 0.6
    found = detector.judge(images, labels, odd, torch.zeros(20, dtype=torch.int64))
    assert found.caught_share == 1 and found.lost_share == 0 and not detector.judges_alone


def test_labels_of_equal_images_are_not_split():
    assert clustering_scores(torch.ones(4, 2), torch.tensor([0, 0, 0, 1])).tolist() == [0.0] * 4
    with pytest.raises(InvalidArgument, match="at least 1"):
        ClusteringDetector(0)
