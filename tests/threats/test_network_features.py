"""Features are what the last linear layer is fed, by running the layers before it by hand."""

import pytest
import torch
from torch import nn

from blob_cases import judge_of_blobs, two_blobs
from spokeshave.errors import UnsupportedLayer
from spokeshave.threats import network_features
from spokeshave.threats.network_features import Space, features_of


def test_features_are_the_last_linear_layers_input_whatever_the_chunk(monkeypatch):
    model, (images, _) = judge_of_blobs(), two_blobs(30)
    expected = model.eval()[:5](images).detach()
    model.train()
    assert torch.equal(features_of(model, images), expected) and model.training
    monkeypatch.setattr(network_features, "_CHUNK", 7)
    assert torch.allclose(features_of(model, images), expected)


def test_pixels_are_the_images_and_ask_no_network():
    images, _ = two_blobs(4)
    assert torch.equal(features_of(nn.Identity(), images, Space.PIXELS), images.flatten(1))


def test_a_network_without_a_linear_layer_is_refused_and_keeps_no_hook():
    model = nn.Sequential(nn.Conv2d(1, 2, 2), nn.Flatten())
    with pytest.raises(UnsupportedLayer, match="runs no linear layer"):
        features_of(model, two_blobs(4)[0])
    unused = nn.Sequential(nn.Flatten())
    unused[0].spare = nn.Linear(1, 1)
    with pytest.raises(UnsupportedLayer, match="runs no linear layer"):
        features_of(unused, two_blobs(4)[0])
    assert not unused[0].spare._forward_pre_hooks
