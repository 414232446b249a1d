"""Disagreement of neighbours against scikit-learn's neighbours; clean images with wrong labels do not blind it."""

import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from blob_cases import judge_of_blobs, two_blobs
from spokeshave.errors import InvalidArgument
from spokeshave.threats import neighbour_detection
from spokeshave.threats.neighbour_detection import NeighbourDetector, disagreement
from spokeshave.threats.network_features import Space


@pytest.mark.parametrize("itself", [False, True])
def test_shares_are_those_of_scikit_learns_neighbours(itself, monkeypatch):
    monkeypatch.setattr(neighbour_detection, "_CHUNK", 13)
    known, known_labels = torch.randn(60, 5), torch.randint(0, 3, (60,))
    points, labels = (known, known_labels) if itself else (torch.randn(40, 5), torch.randint(0, 3, (40,)))
    places = (
        NearestNeighbors(n_neighbors=7)
        .fit(known.numpy())
        .kneighbors(None if itself else points.numpy(), return_distance=False)
    )
    share = (known_labels[torch.as_tensor(places)] != labels[:, None]).float().mean(1)
    apart = torch.as_tensor([[(a - b).norm().item() for b in known] for a in points])
    apart = apart.masked_fill(torch.eye(len(known), dtype=torch.bool), torch.inf) if itself else apart
    own, other = (apart.masked_fill((known_labels == labels[:, None]) != same, torch.inf).amin(1) for same in (1, 0))
    found = disagreement(points, labels, known, known_labels, 7, itself)
    assert torch.allclose(found, share + own / (own + other) / 8, atol=1e-5)


def test_ties_are_broken_by_less_than_a_neighbour_also_without_a_label_or_a_distance():
    known, labels = torch.tensor([[0.0], [0.0], [1.0], [5.0]]), torch.tensor([0, 1, 1, 1])
    points, given = torch.tensor([[0.0], [1.0], [1.0], [9.0]]), torch.tensor([0, 0, 1, 2])
    # Both labels at distance 0; another's at 0; the own at 0; a label that nobody has.
    expected = torch.tensor([1 / 2 + 0.5 / 3, 1 / 2 + 1 / 3, 1 / 2, 1 + 1 / 3])
    found = disagreement(points, given, known, labels, 2)
    assert torch.allclose(found[[0, 3]], expected[[0, 3]])
    assert disagreement(points[:1], given[:1], known[:1], labels[:1], 1).tolist() == [0.0], "no other label is known"
    assert torch.allclose(found % 0.5, expected % 0.5)


@pytest.mark.parametrize("space", Space)
def test_clean_images_with_wrong_labels_do_not_blind_it(space):
    images, labels = two_blobs(400)
    noisy = torch.where(torch.arange(400) % 50 == 7, 1 - labels, labels)  # two in a hundred
    detector = NeighbourDetector(10, space).fit(judge_of_blobs(), images, noisy)
    others, given = two_blobs(200, seed=1)
    assert detector.suspicious(others, 1 - given).double().mean() > 0.2
    assert detector.suspicious(others, given).double().mean() <= 0.03


def test_pixels_and_features_are_compared_each_in_their_space():
    images, labels = two_blobs(100)
    for space in Space:
        detector = NeighbourDetector(5, space).fit(judge_of_blobs(), images, labels)
        assert detector.scores(*two_blobs(20, seed=1)).max() < 1 / 6
        assert detector.scores(two_blobs(20, seed=1)[0], 1 - two_blobs(20)[1]).min() >= 1


def test_too_few_clean_images_are_refused():
    with pytest.raises(InvalidArgument, match="need more than 20 clean images"):
        NeighbourDetector(20).fit(judge_of_blobs(), *two_blobs(20))
    with pytest.raises(InvalidArgument, match="at least 1"):
        NeighbourDetector(0)
