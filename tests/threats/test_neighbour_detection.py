"""Disagreement of neighbours against scikit-learn's neighbours."""

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
    expected = (known_labels[torch.as_tensor(places)] != labels[:, None]).float().mean(1)
    assert torch.equal(disagreement(points, labels, known, known_labels, 7, itself), expected)


def test_pixels_and_features_are_compared_each_in_their_space():
    images, labels = two_blobs(100)
    for space in Space:
        detector = NeighbourDetector(5, space).fit(judge_of_blobs(), images, labels)
        assert detector.scores(*two_blobs(20, seed=1)).max() == 0
        assert detector.scores(two_blobs(20, seed=1)[0], 1 - two_blobs(20)[1]).min() == 1


def test_too_few_clean_images_are_refused():
    with pytest.raises(InvalidArgument, match="need more than 20 clean images"):
        NeighbourDetector(20).fit(judge_of_blobs(), *two_blobs(20))
    with pytest.raises(InvalidArgument, match="at least 1"):
        NeighbourDetector(0)
