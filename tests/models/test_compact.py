"""The compact network: the published number of parameters, every size of image, equal ablations, tracing."""

import pytest
import torch

from spokeshave.errors import InvalidArgument
from spokeshave.models import AlexNet, Branch, CompactNet, GoogLeNet


def count(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_it_has_the_published_number_of_parameters() -> None:
    own = count(CompactNet())
    assert abs(own / 4.1e6 - 1) <= 0.01
    assert own <= 0.59 * count(GoogLeNet()) and own <= 0.067 * count(AlexNet())


@pytest.mark.parametrize("size", [32, 64, 224])
def test_every_size_gives_scores_and_624_features(size: int) -> None:
    network, images = CompactNet(7, size).eval(), torch.rand(1, 3, size, size)
    with torch.no_grad():
        assert network(images).shape == (1, 7) and network.features(images).shape == (1, 624)


@pytest.mark.parametrize(
    "branches",
    [
        (Branch.CONV,) * 3,
        (Branch.CONV, Branch.DILATED, Branch.CONV),
        (Branch.CONV, Branch.DILATED, Branch.DECONV_STRIDE_1),
    ],
)
def test_ablations_have_as_many_parameters(branches: tuple[Branch, ...]) -> None:
    network = CompactNet(branches=branches)
    assert count(network) == count(CompactNet())
    assert sum(isinstance(layer, torch.nn.BatchNorm2d) for layer in network.modules()) == 25


def test_torch_export_takes_it() -> None:
    network = CompactNet(5, 32).eval()
    program = torch.export.export(network, (torch.rand(2, 3, 32, 32),))
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(program.module()(images), network(images))


def test_another_size_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="one of 32, 64, 224 pixels, got 48"):
        CompactNet(size=48)
