"""Softmax in both layouts against torch in float64."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparse_cases import LAYOUTS, SETS, in_double, steps_of, thin, through
from spokeshave.rewrites.to_sparse import to_sparse
from spokeshave.targets.cpu_sparse.sparse_network_file import load_sparse, save_sparse

SIZES = [1, 7, 10, 16, 17, 1000]


def differs(got: Tensor, wanted: Tensor) -> float:
    """Largest difference; shares are at most 1, so it is absolute."""
    return float((got.double() - wanted).abs().max())


@pytest.mark.parametrize("vectors", SETS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", SIZES)
def test_features_match_torch(layout, vectors, size):
    torch.manual_seed(0)
    network, x = nn.Softmax(1), 5 * torch.randn(vectors.lanes + 3, size)
    got = through(layout, network, x, vectors)
    assert differs(got, in_double(network, x)) < 1e-6
    assert differs(got.double().sum(1), torch.ones(len(x))) < 1e-6


@pytest.mark.parametrize("vectors", SETS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_small_shares_are_as_precise_as_large_ones(layout, vectors):
    x = -torch.arange(1000).repeat(2, 1) * 11 / 128  # differences are exact, down to exp(-86)
    got, wanted = through(layout, nn.Softmax(1), x, vectors), x.double().softmax(1)
    assert float(((got - wanted) / wanted).abs().max()) < 1e-6


@pytest.mark.parametrize("vectors", SETS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_many_equal_features_keep_their_digits(layout, vectors):
    x = torch.full((1, 100_000), 0.3)
    x[0, ::2] = 0.1  # exponentials that are no round numbers: a plain sum loses digits
    got, wanted = through(layout, nn.Softmax(1), x, vectors), x.double().softmax(1)
    assert float(((got - wanted) / wanted).abs().max()) < 1e-6


@pytest.mark.parametrize("vectors", SETS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", SIZES)
def test_huge_values_do_not_overflow(layout, vectors, size):
    torch.manual_seed(0)
    x = 1e4 * torch.randn(3, size).sign() + torch.randn(3, size)
    x[1], x[2] = -1e4, 3e38
    x[2, 0] = -3e38  # further from the largest than float32 reaches
    got = through(layout, nn.Softmax(1), x, vectors)
    assert not got.isnan().any() and differs(got, x.double().softmax(1)) < 1e-6


def strange(size: int) -> Tensor:
    """Rows with NaN and infinities in various places, the last row plain."""
    x = torch.randn(9, size)
    x[0, -1] = torch.nan
    x[1, 0] = torch.nan
    x[2] = torch.nan
    x[3, 1:] = -torch.inf
    x[4] = -torch.inf
    x[5, size // 2] = torch.inf
    x[6] = torch.inf
    x[7, 0], x[7, -1] = torch.inf, torch.nan
    return x


@pytest.mark.parametrize("vectors", SETS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("poison", [torch.nan, torch.inf, 0.0])
def test_nan_and_infinity_are_treated_as_torch_does(layout, vectors, size, poison):
    torch.manual_seed(0)
    x = strange(size)
    got = through(layout, nn.Softmax(1), x, vectors, poison=poison)
    torch.testing.assert_close(got.double(), x.double().softmax(1), rtol=0, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("vectors", SETS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_kind_of_nan_stays_nan(layout, vectors):
    x = torch.zeros(512, 7)
    x[:, 3] = torch.arange(0x7FC00000, 0x7FC00200, dtype=torch.int32).view(torch.float32)  # last bits are an exponent's
    assert through(layout, nn.Softmax(1), x, vectors).isnan().all()


PLANES = [(1, 3, 5), (7, 2, 19), (21, 4, 16)]


@pytest.mark.parametrize("vectors", SETS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", PLANES)
@pytest.mark.parametrize("softmax", [nn.Softmax2d(), nn.Softmax(1), nn.Softmax(-3)])
def test_planes_match_torch(layout, vectors, shape, softmax):
    torch.manual_seed(0)
    network, x = nn.Sequential(softmax), 5 * torch.randn(vectors.lanes + 1, *shape)
    x[0, -1, 1, 2], x[1, 0, 0, 1] = torch.nan, -torch.inf
    got = through(layout, network, x, vectors, threads=2)
    torch.testing.assert_close(got.double(), in_double(network, x), rtol=0, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("vectors", SETS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", PLANES)
def test_planes_between_padded_convolutions_match_torch(layout, vectors, shape):
    torch.manual_seed(0)
    first, last = (nn.Conv2d(shape[0], shape[0], 3, padding=1) for _ in range(2))
    network, x = nn.Sequential(nn.Softmax(1), first, nn.Softmax(1), last), torch.randn(vectors.lanes + 1, *shape)
    assert differs(through(layout, network, x, vectors), in_double(network, x)) < 1e-6


class Head(nn.Module):
    """Ends in a softmax of planes that become features, and of features, in every way of writing it."""

    def __init__(self, way: int) -> None:
        super().__init__()
        self.way, self.softmax = way, nn.Softmax(-1)
        self.first, self.next = (nn.Conv2d(count, 3, 3, padding=1) for count in (2, 3))
        self.last = nn.Linear(3 * 5 * 7, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        features = (y + self.next(y) if self.way % 2 else y).flatten(1)  # one has a border in between
        match self.way // 2:
            case 0:
                shares = F.softmax(features, dim=1)
            case 1:
                shares = features.softmax(-1)
            case 2:
                shares = torch.softmax(features, 1)
            case _:
                shares = self.softmax(features)
        return F.softmax(self.last(shares), -1)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("way", range(8))
def test_every_way_of_writing_it_is_known(layout, way):
    torch.manual_seed(way)
    network, x = Head(way), torch.randn(3, 2, 5, 7)
    assert sum(type(step).__name__ == "Softmax" for step in steps_of(network, x).steps) == 2
    assert differs(through(layout, network, x, SETS[0]), in_double(network, x)) < 1e-6


@pytest.mark.parametrize("batch", [1, 5, 37])
def test_a_classifier_stays_in_one_piece_and_can_be_stored(batch, tmp_path):
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10), nn.Softmax(1)
    network, x = thin(nn.Sequential(*layers), 0.3), torch.randn(batch, 1, 8, 8)
    fast, _ = to_sparse(network, x[:1], tune_s=0)
    assert not fast.fallbacks and len(fast.direct().pieces) == 1
    wanted = in_double(network, x)
    assert differs(fast(x), wanted) < 1e-6
    loaded = load_sparse(save_sparse(fast, tmp_path / "net.safetensors"), tune_s=0)
    assert differs(loaded(x), wanted) < 1e-6
    loaded.plain = True
    assert differs(loaded(x), wanted) < 1e-6


@pytest.mark.parametrize("network", [nn.Softmax(0), nn.Softmax(-1), nn.Softmax(2), nn.LogSoftmax(1)])
def test_other_axes_are_left_to_torch(network):
    x = torch.randn(3, 2, 4, 5)
    fast, _ = to_sparse(nn.Sequential(nn.Conv2d(2, 2, 1), network), x[:1], tune_s=0)
    assert [step.layer for step in fast.fallbacks] == ["1"]
