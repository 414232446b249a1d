"""Features of networks of many forms, found by running them."""

import pytest
import torch
from torch import nn

from spokeshave.adaptation.feature_layer import features_of, first_layer, last_layer
from spokeshave.errors import InvalidArgument, UnsupportedLayer
from spokeshave.models import CompactNet, GoogLeNet, LeNet, SqueezeNet


@pytest.mark.parametrize(
    ("network", "shape", "layer", "width"),
    [
        (LeNet(), (2, 1, 28, 28), "ip2", 500),
        (CompactNet(7, size=32), (2, 3, 32, 32), "fc", 624),
        (GoogLeNet(7, size=32), (2, 3, 32, 32), "fc", 1024),
        (SqueezeNet(7, size=32), (2, 3, 32, 32), "fc", 512),
    ],
)
def test_the_last_layer_and_its_input(network: nn.Module, shape: tuple[int, ...], layer: str, width: int) -> None:
    images = torch.rand(shape)
    before = [tensor.clone() for tensor in network.state_dict().values()]
    assert last_layer(network, images) == layer
    with features_of(network.eval(), layer) as found:
        network(images)
    assert found[0].shape == (2, width)
    if not isinstance(network, LeNet):
        torch.testing.assert_close(found[0], network.features(images))
    assert all(torch.equal(one, other) for one, other in zip(before, network.state_dict().values(), strict=True))


def test_a_hook_stays_only_inside(splits: object) -> None:
    network = LeNet()
    with features_of(network, "ip2"):
        assert network.ip2._forward_pre_hooks
    assert not network.ip2._forward_pre_hooks


def test_what_has_no_such_layer_is_refused() -> None:
    class Mean(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.flatten(1)[:, :3]

    with pytest.raises(UnsupportedLayer, match="Mean: no linear or convolutional layer gives 3 numbers"):
        last_layer(Mean(), torch.zeros(1, 3))
    with pytest.raises(InvalidArgument, match=r"expected logits of shape \(images, classes\), got \(1, 4, 2, 2\)"):
        last_layer(nn.Conv2d(3, 4, 3), torch.zeros(1, 3, 4, 4))
    with pytest.raises(InvalidArgument, match="Linear has no layer 'fc'"), features_of(nn.Linear(2, 2), "fc"):
        pass


class Tokens(nn.Module):
    """Scores of tokens, averaged."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(5, 3)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(tokens).mean(1)


def test_features_of_tokens_are_averaged_over_tokens() -> None:
    network, tokens = Tokens(), torch.rand(2, 7, 5)
    with features_of(network, "head") as found:
        network(tokens)
    torch.testing.assert_close(found[0], tokens.mean(1))


def test_a_network_that_fails_says_on_what() -> None:
    with pytest.raises(InvalidArgument, match=r"LeNet fails on images of shape \(1, 30, 30\)"):
        last_layer(LeNet(), torch.rand(2, 1, 30, 30))


def test_the_first_layer() -> None:
    padded = nn.Sequential(nn.ZeroPad2d(1), nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.Conv2d(4, 3, 1), nn.Flatten())
    assert first_layer(padded, torch.rand(2, 3, 6, 6)) == "2"
    with pytest.raises(UnsupportedLayer, match="no linear or convolutional layer runs"):
        first_layer(nn.Flatten(), torch.rand(2, 3, 6, 6))
