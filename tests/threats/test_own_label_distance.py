"""Distances to a label's own images against scikit-learn, and what only they see."""

import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from blob_cases import judge_of_blobs, two_blobs
from spokeshave.errors import InvalidArgument
from spokeshave.threats import own_label_distance as module
from spokeshave.threats.own_label_distance import DistanceDetector, own_label_distance
from spokeshave.threats.poisoning_detection import LossDetector


@pytest.mark.parametrize("itself", [False, True])
def test_distances_are_those_of_scikit_learns_neighbours(itself, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", 6)
    known, known_labels = torch.randn(60, 5), torch.randint(0, 3, (60,))
    points, labels = (known, known_labels) if itself else (torch.randn(40, 5), torch.randint(0, 3, (40,)))
    found = own_label_distance(points, labels, known, known_labels, 4, itself)
    for label in range(3):
        peer = NearestNeighbors(n_neighbors=4).fit(known[known_labels == label].numpy())
        apart, _ = peer.kneighbors(None if itself else points[labels == label].numpy())
        assert found[labels == label].tolist() == pytest.approx(apart.mean(1).tolist(), abs=1e-4)


def test_noise_that_the_network_agrees_with_is_found_by_distance_alone():
    images, labels = two_blobs(400)
    noise = torch.tensor([0.5, 0.5, 1.0, 1.0]).view(1, 1, 2, 2)
    loss, distance = (kind().fit(judge_of_blobs(), images, labels) for kind in (LossDetector, DistanceDetector))
    assert not loss.suspicious(noise, torch.tensor([1])).any()
    assert distance.suspicious(noise, torch.tensor([1])).all()


def test_a_label_that_no_clean_image_has_is_as_far_as_can_be():
    detector = DistanceDetector().fit(judge_of_blobs(), *two_blobs(50))
    images, labels = two_blobs(2)
    assert detector.scores(images, labels + 5).isinf().all() and detector.suspicious(images, labels + 5).all()


def test_too_few_clean_images_of_a_label_are_refused():
    with pytest.raises(InvalidArgument, match="label 0: 5 neighbours need more than 5 clean"):
        DistanceDetector().fit(judge_of_blobs(), *two_blobs(10))
    with pytest.raises(InvalidArgument, match="at least 1"):
        DistanceDetector(0)
