"""The cut at the last pooling, feature maps in place of images, and whose statistics the trunk has."""

import pytest
import torch
from torch import Tensor, nn

from spokeshave.adaptation.domain_pair import DomainPair
from spokeshave.adaptation.frozen_trunk import (
    FeatureMaps,
    cut_at_last_pooling,
    pair_through_trunk,
    through_trunk,
)
from spokeshave.data import Batches, Split, Splits
from spokeshave.errors import DataError, UnsupportedLayer
from spokeshave.models import AlexNet, CompactNet, GoogLeNet, SqueezeNet
from spokeshave.rewrites import shrink
from spokeshave.rewrites.constant_input import ConstantInput

STAGES = ((8, 8, 1), (8, 12, 2))


def split(count: int, brightness: float, seed: int) -> Split:
    drawn = torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
    return Split((255 * (drawn * 0.5 + brightness)).to(torch.uint8), torch.arange(count) % 3)


def fed(part: Split) -> Batches:
    return Batches(part, 7, shuffle=False)


@pytest.mark.parametrize(
    ("network", "first"),
    [
        (CompactNet(5, 224, stages=STAGES), "stages.3.branches"),
        (GoogLeNet(5), "stages.10.branches"),
        (SqueezeNet(5), "fires.6.squeeze"),
        (AlexNet(5, size=64), "fc6"),
    ],
)
def test_trunk_and_rest_are_the_network(network: nn.Module, first: str) -> None:
    images = torch.rand(2, 3, 64, 64)
    trunk, rest = cut_at_last_pooling(network.eval())
    torch.testing.assert_close(rest(trunk(images)), network(images), rtol=0, atol=0)
    names = [[name for name, _ in part.named_parameters()] for part in (trunk, rest)]
    assert names[0] + names[1] == [name for name, _ in network.named_parameters()]
    assert names[1][0].startswith(first)
    own = dict(network.named_parameters())
    assert all(one is own[name] for name, one in rest.named_parameters())


def test_dropout_of_the_rest_follows_its_mode() -> None:
    torch.manual_seed(0)
    rest = cut_at_last_pooling(nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(), nn.Linear(12, 2)))[1]
    maps = torch.rand(4, 3, 2, 2)
    assert not torch.equal(rest.train()(maps), rest(maps))
    assert torch.equal(rest.eval()(maps), rest(maps))


class Branching(nn.Module):
    """What comes after the pooling also needs what was before it."""

    def __init__(self) -> None:
        super().__init__()
        self.pool, self.fc = nn.MaxPool2d(2), nn.Linear(6, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(torch.cat([self.pool(images).mean((2, 3)), images.mean((2, 3))], 1))


class Shared(nn.Module):
    """One layer before and after the pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.pool = nn.Conv2d(3, 3, 1), nn.MaxPool2d(2)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(self.pool(self.conv(images))).mean((2, 3))


class FunctionalDropout(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pool, self.fc = nn.MaxPool2d(2), nn.Linear(3, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(nn.functional.dropout(self.pool(images).mean((2, 3)), 0.5, self.training))


class Undecided(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images if images.sum() > 0 else -images


@pytest.mark.parametrize(
    "network", [Branching(), Shared(), FunctionalDropout(), Undecided(), nn.Sequential(nn.Flatten(), nn.Linear(3, 2))]
)
def test_a_network_that_cannot_be_cut(network: nn.Module) -> None:
    for training in (True, False):
        with pytest.raises(UnsupportedLayer, match="adapt the whole network"):
            cut_at_last_pooling(network.train(training))
        assert all(module.training is training for module in network.modules())


def test_a_shrunk_network_is_cut_where_channels_were_constant() -> None:
    images = torch.rand(2, 3, 8, 8)
    network = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3, padding=1), nn.MaxPool2d(2), nn.Flatten(),
                            nn.Linear(36, 2))  # fmt: skip
    with torch.no_grad():
        network[0].weight[:2] = 0
        network[0].bias[:2] = 1  # they send ones, which the border of the next layer's padding lacks
    shrunk = shrink(network.eval(), images)[0]
    assert any(isinstance(layer, ConstantInput) for layer in shrunk.modules())
    trunk, rest = cut_at_last_pooling(shrunk)
    torch.testing.assert_close(rest(trunk(images)), shrunk(images), rtol=0, atol=0)


def test_maps_stand_in_for_images() -> None:
    trunk = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2))
    part = split(10, 0.2, seed=0)
    maps = through_trunk(trunk, fed(part))
    assert maps.images.dtype == torch.float32 and torch.equal(maps.labels, part.labels)
    with torch.no_grad():
        torch.testing.assert_close(maps.images, trunk(part.images.float() / 255))
    rest, held = maps.hold_out(3, seed=1)
    assert isinstance(rest, FeatureMaps) and len(rest) == 7 and isinstance(held, FeatureMaps)
    images, _ = Batches(maps, 4, shuffle=False).batch(0, 1)
    torch.testing.assert_close(images, maps.images[4:8])
    with pytest.raises(DataError, match="float32"):
        FeatureMaps(part.images.double(), part.labels)


@pytest.mark.parametrize("own", [False, True])
def test_statistics_of_the_trunk(own: bool) -> None:
    source, target = split(14, 0.0, seed=0), split(21, 0.4, seed=1)
    classes = ("a", "b", "c")
    dark, light = Splits("dark", source, split(7, 0.0, seed=2), classes), Splits("light", target, target, classes)
    domains = DomainPair(dark, light, classes)
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.MaxPool2d(2))
    maps = pair_through_trunk(trunk, domains, fed, own)
    assert maps.target.test is maps.target.train and maps.source.test is not maps.source.train
    assert [len(one) for one in (maps.source.train, maps.source.test, maps.target.train)] == [14, 7, 21]

    def by_hand(images: Tensor, statistics: Tensor) -> Tensor:
        with torch.no_grad():
            seen = [trunk[0](one / 255) for one in (images.float(), statistics.float())]
            mean = seen[1].mean((0, 2, 3), keepdim=True)
            # The mean over batches of their unbiased variances, as batch normalization keeps it.
            labels = torch.zeros(len(statistics), dtype=torch.int64)
            parts = [trunk[0](one) for one, _ in fed(Split(statistics, labels)).evenly()]
            variance = torch.stack([part.var((0, 2, 3)) for part in parts]).mean(0).view(1, -1, 1, 1)
            return nn.functional.max_pool2d((seen[0] - mean) / (variance + trunk[1].eps).sqrt(), 2)

    torch.testing.assert_close(maps.source.train.images, by_hand(source.images, source.images), rtol=1e-3, atol=1e-4)
    whose = target.images if own else source.images
    torch.testing.assert_close(maps.target.train.images, by_hand(target.images, whose), rtol=1e-3, atol=1e-4)
