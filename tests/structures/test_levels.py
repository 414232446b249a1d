"""Levels: the nearest one against all of them, the best scale against a search over every g that matters."""

import inspect
import itertools

import pytest
import torch
from torch import Tensor

from spokeshave.errors import InvalidArgument
from spokeshave.structures.levels import best_scale, multiples_of, nearest_level, relative_level_error

PATTERNS = [(1.0,), (1.0, 2.0), (1.0, 2.0, 3.0, 4.0), (1.0, 2.0, 4.0), (0.5, 0.7)]


def closest(weight: Tensor, scale: float, multiples: tuple[float, ...]) -> Tensor:
    """Every level looked at, for every weight."""
    levels = sorted({sign * scale * m for m in (0.0, *multiples) for sign in (-1, 1)}, key=abs)
    distances = torch.stack([(weight.double() - level).abs() for level in levels])
    return torch.tensor(levels, dtype=torch.float64)[distances.argmin(0)]


def squared_error(weight: Tensor, scale: float, multiples: tuple[float, ...]) -> float:
    return float(((weight.double() - closest(weight, scale, multiples)) ** 2).sum())


@pytest.mark.parametrize("multiples", PATTERNS)
@pytest.mark.parametrize("seed", range(3))
def test_the_nearest_level_is_the_nearest_of_all(multiples, seed):
    weight = torch.randn(7, 11, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = nearest_level(weight, 0.37, multiples)
    assert torch.allclose(found, closest(weight, 0.37, multiples), rtol=1e-15)
    assert found.shape == weight.shape and found.dtype == weight.dtype


@pytest.mark.parametrize("multiples", PATTERNS)
def test_quantizing_twice_is_quantizing_once_and_signs_follow(multiples):
    weight = torch.randn(200, generator=torch.Generator().manual_seed(1))
    once = nearest_level(weight, 0.6, multiples)
    assert torch.equal(nearest_level(once, 0.6, multiples), once)
    assert torch.equal(nearest_level(-weight, 0.6, multiples), -once)
    assert not torch.signbit(once[once == 0]).any(), "no negative zeros"


@pytest.mark.parametrize("multiples", PATTERNS)
@pytest.mark.parametrize("seed", range(4))
def test_the_best_scale_beats_every_scale_at_which_a_weight_changes_its_level(multiples, seed):
    weight = torch.randn(40, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).pow(3)
    scale = best_scale(weight, multiples)
    least = squared_error(weight, scale, multiples)
    # Inside an interval between two changes the error is a parabola: its vertex, or an end, is its least value.
    middles = [(a + b) / 2 for a, b in itertools.pairwise((0.0, *multiples))]
    changes = sorted({float(w) / m for w in weight.abs() for m in middles})
    for low, high in itertools.pairwise(changes):
        level = closest(weight, (low + high) / 2, multiples) / ((low + high) / 2)
        vertex = float((level * weight).sum() / (level * level).sum())
        for tried in (low, high, min(max(vertex, low), high)):
            assert squared_error(weight, tried, multiples) >= least * (1 - 1e-12)
    for tried in torch.linspace(0.01, 4, 300).tolist():
        assert squared_error(weight, tried, multiples) >= least * (1 - 1e-12)


@pytest.mark.parametrize("multiples", PATTERNS)
def test_the_best_scale_is_a_fixed_point_and_grows_with_the_weights(multiples):
    weight = torch.randn(500, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    scale = best_scale(weight, multiples)
    level = nearest_level(weight, scale, multiples) / scale
    assert scale == pytest.approx(float((level * weight).sum() / (level * level).sum()), rel=1e-12)
    assert best_scale(-3 * weight, multiples) == pytest.approx(3 * scale, rel=1e-12)
    assert best_scale(nearest_level(weight, scale, multiples), multiples) == pytest.approx(scale, rel=1e-12)


def test_of_gaussian_weights_it_is_1_224_standard_deviations():
    """Three levels of least squared error for a normal density (Lloyd and Max): 0, +-1.2240 sigma."""
    normal = torch.distributions.Normal(0.0, 1.0).icdf((torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000)
    assert best_scale(0.1 * normal) == pytest.approx(0.12240, abs=2e-5)


@pytest.mark.parametrize("multiples", PATTERNS)
def test_zeros_nothing_and_a_single_weight(multiples):
    assert best_scale(torch.zeros(3, 2), multiples) == 0.0 == best_scale(torch.zeros(0), multiples)
    assert nearest_level(torch.tensor([0.0, 1.0, -2.0]), 0.0, multiples).tolist() == [0.0, 0.0, 0.0]
    weight = torch.tensor([-0.3], dtype=torch.float64)
    assert nearest_level(weight, best_scale(weight, multiples), multiples).item() == pytest.approx(-0.3)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(bad):
    with pytest.raises(InvalidArgument, match="finite"):
        best_scale(torch.tensor([1.0, bad]))


@pytest.mark.parametrize("multiples", [(1.0,), (1.0, 2.0)])
def test_what_is_not_finite_stays(multiples):
    weight = torch.tensor([0.9, float("nan"), float("inf"), -float("inf")])
    found = nearest_level(weight, 1.0, multiples)
    assert torch.equal(found.nan_to_num(7.0, 8.0, 9.0), torch.tensor([1.0, 7.0, 8.0, 9.0]))


@pytest.mark.parametrize(
    "levels", [0, -1, (), (0.0, 1.0), (2.0, 1.0), (1.0, 1.0), (1.0, float("inf")), (float("nan"),)]
)
def test_levels_that_are_none_are_refused(levels):
    with pytest.raises(InvalidArgument, match="levels"):
        multiples_of(levels)


def test_a_number_of_levels_is_whole():
    with pytest.raises(InvalidArgument, match=r"levels.*got 2\.0"):
        inspect.unwrap(multiples_of)(2.0)  # past the types' check of the tests


def test_the_relative_error_by_hand():
    assert relative_level_error(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 3.0])) == pytest.approx(0.2)
    assert relative_level_error(torch.zeros(2), torch.zeros(2)) == 0.0
