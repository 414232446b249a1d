"""Norms, balls and directions against closed forms, brute force over grids, and moments of what is drawn."""

import itertools
import math

import pytest
import torch

from spokeshave.errors import InvalidArgument
from spokeshave.threats.perturbation import Norm, ascent, project, random_start, sizes, strengths_of


def random_perturbations(count: int = 50, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(count, 2, 3, dtype=dtype)


def test_sizes_are_the_largest_change_and_the_root_of_the_squares():
    moved = random_perturbations()
    for one, largest, length in zip(moved, sizes(moved, Norm.LINF), sizes(moved, Norm.L2), strict=True):
        assert float(largest) == max(abs(value) for value in one.flatten().tolist())
        assert float(length) == pytest.approx(math.sqrt(sum(value**2 for value in one.flatten().tolist())))


def test_projection_on_the_euclidean_ball_is_a_scaling_down_to_the_radius():
    moved, strengths = random_perturbations(), torch.linspace(0, 5, 50, dtype=torch.float64)
    for one, strength, found in zip(moved, strengths, project(moved, strengths, Norm.L2), strict=True):
        torch.testing.assert_close(found, one * min(1.0, float(strength / one.norm())))


@pytest.mark.parametrize("norm", Norm)
def test_no_point_of_a_grid_in_the_ball_is_nearer_than_the_projection(norm):
    axis = [index / 20 for index in range(-20, 21)]
    grid = torch.tensor(list(itertools.product(axis, axis)), dtype=torch.float64)
    grid = grid[sizes(grid, norm) <= 1]
    moved = 2 * torch.randn(30, 2, dtype=torch.float64)
    found = project(moved, torch.ones(30, dtype=torch.float64), norm)
    assert bool((sizes(found, norm) <= 1 + 1e-12).all())
    assert bool(((moved - found).norm(dim=1) <= torch.cdist(moved, grid).amin(1) + 1e-12).all())


@pytest.mark.parametrize("norm", Norm)
def test_projection_leaves_what_is_inside_and_keeps_nothing_nothing(norm):
    inside = torch.tensor([[0.1, -0.2], [0.0, 0.0]])
    assert torch.equal(project(inside, torch.tensor([0.5, 0.0]), norm), inside)
    assert torch.equal(project(torch.ones(1, 2), torch.zeros(1), norm), torch.zeros(1, 2))


@pytest.mark.parametrize("norm", Norm)
def test_no_direction_of_size_1_rises_faster(norm):
    gradients = random_perturbations().flatten(1)
    tried = torch.randn(20000, 6, dtype=torch.float64)
    tried = tried / sizes(tried, norm)[:, None]
    best = (gradients * ascent(gradients, norm)).sum(1)
    torch.testing.assert_close(sizes(ascent(gradients, norm), norm), torch.ones(50, dtype=torch.float64))
    assert bool((best >= (gradients @ tried.T).amax(1)).all())
    dual = gradients.abs().sum(1) if norm is Norm.LINF else gradients.square().sum(1).sqrt()
    torch.testing.assert_close(best, dual)


@pytest.mark.parametrize("norm", Norm)
def test_tiny_gradients_still_have_a_direction_and_none_has_none(norm):
    tiny = torch.tensor([[3e-30, -4e-30]])
    torch.testing.assert_close(sizes(ascent(tiny, norm), norm), torch.ones(1))
    assert torch.equal(ascent(torch.zeros(1, 2), norm), torch.zeros(1, 2))


def test_starts_are_drawn_evenly_from_each_ball():
    images = torch.zeros(20000, 1, 1, 3)
    strengths = torch.tensor([0.5, 2.0]).repeat(10000)
    generator = torch.Generator().manual_seed(0)
    square = random_start(images, strengths, Norm.LINF, generator) / strengths.reshape(-1, 1, 1, 1)
    ball = random_start(images, strengths, Norm.L2, generator) / strengths.reshape(-1, 1, 1, 1)
    assert float(square.abs().max()) <= 1 and float(sizes(ball, Norm.L2).max()) <= 1 + 1e-6
    for drawn, variance in ((square, 1 / 3), (ball, 1 / 5)):  # of one coordinate; in three dimensions E r^2 = 3/5
        assert float(drawn.mean()) == pytest.approx(0, abs=0.01)
        torch.testing.assert_close(drawn.square().mean((0, 1, 2)), torch.full((3,), variance), rtol=0.04, atol=0)
    inner = (sizes(ball, Norm.L2) < 0.5).double().mean()
    assert float(inner) == pytest.approx(0.5**3, abs=0.01)


@pytest.mark.parametrize("norm", Norm)
def test_starts_follow_their_generator_and_else_torchs_state(norm):
    images, strengths = torch.zeros(4, 1, 2, 2), torch.full((4,), 0.1)
    first, again = (random_start(images, strengths, norm, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, again)
    before = torch.get_rng_state()
    first = random_start(images, strengths, norm, None)
    torch.set_rng_state(before)
    assert torch.equal(first, random_start(images, strengths, norm, None)) and bool(first.count_nonzero())


def test_one_strength_stands_for_all_and_wrong_ones_are_refused():
    images = torch.zeros(3, 2)
    assert strengths_of(0.25, images).tolist() == [0.25] * 3
    assert strengths_of(torch.tensor([0.0, 0.5, 1.0]), images).tolist() == [0.0, 0.5, 1.0]
    assert strengths_of(0.25, images.double()).dtype == torch.float64
    for strengths in (-0.1, float("nan"), float("inf"), torch.tensor([0.1, -0.1, 0.2])):
        with pytest.raises(InvalidArgument, match="strengths: expected finite numbers of at least 0"):
            strengths_of(strengths, images)
    unchecked = getattr(strengths_of, "__wrapped__", strengths_of)
    with pytest.raises(InvalidArgument, match=r"one for each of 3 images, got shape \(2,\)"):
        unchecked(torch.tensor([0.1, 0.2]), images)


@pytest.mark.parametrize("norm", Norm)
def test_several_generators_draw_what_each_draws_alone(norm: Norm):
    images, strengths = torch.rand(6, 1, 4, 4), torch.rand(6)
    together = random_start(images, strengths, norm, [torch.Generator().manual_seed(seed) for seed in (1, 2, 3)])
    parts = [slice(0, 2), slice(2, 4), slice(4, 6)]
    alone = [
        random_start(images[part], strengths[part], norm, torch.Generator().manual_seed(seed))
        for seed, part in enumerate(parts, 1)
    ]
    assert torch.equal(together, torch.cat(alone))
