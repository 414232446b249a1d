import math

import numpy as np
import pytest
import torch
from scipy import stats

from spokeshave.errors import InvalidArgument
from spokeshave.targets.crossbar.memristor import Memristor, Spread, fit_levels, program, seeded


def test_ready_devices():
    assert Memristor.ideal() == Memristor() and Memristor.ideal().on_off_ratio == math.inf
    device = Memristor.n_level(3, on_off_ratio=50.0, g_max_s=2e-5, variation=0.2)
    assert (device.levels, device.g_min_s, device.variation) == (3, pytest.approx(4e-7), 0.2)
    assert device.on_off_ratio == pytest.approx(50) and device.off == pytest.approx(0.02)


@pytest.mark.parametrize(
    "wrong",
    [
        {"levels": 0},
        {"g_max_s": 0.0},
        {"g_min_s": 1e-3},
        {"g_max_s": math.inf},
        {"variation": -0.1},
        {"read_noise": math.nan},
        {"stuck_on": 0.6, "stuck_off": 0.6},
        {"stuck_on": -0.1},
    ],
)
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(InvalidArgument):
        Memristor(**wrong)
    with pytest.raises(InvalidArgument, match="on_off_ratio"):
        Memristor.one_level(on_off_ratio=1.0)


@pytest.mark.parametrize("levels", [1, 2, 5])
def test_the_levels_found_are_nearly_the_best_of_a_fine_search(levels):
    weight = np.random.default_rng(levels).normal(size=2000)
    largest, shares = fit_levels(torch.from_numpy(weight), levels)
    steps = shares.numpy() * levels
    assert np.array_equal(steps, np.round(steps)) and np.abs(steps).max() <= levels

    def error(top: float) -> float:
        nearest = np.clip(np.round(weight / top * levels), -levels, levels) / levels * top
        return float(np.sum((nearest - weight) ** 2))

    found = float(np.sum((shares.numpy() * largest - weight) ** 2))
    best = min(error(top) for top in np.linspace(0.05, 1, 400) * np.abs(weight).max())
    assert found <= best * 1.02


def test_weights_that_fit_are_kept():
    weight = 0.37 * torch.tensor([0.0, 1, -1, 0, 0.5, -0.5, 1])
    largest, shares = fit_levels(weight, 2)
    assert largest == pytest.approx(0.37)
    assert shares.tolist() == [0, 1, -1, 0, 0.5, -0.5, 1]
    assert fit_levels(torch.zeros(3), 1)[0] == 0
    assert fit_levels(torch.tensor([1.0, -4.0]), None)[1].tolist() == [0.25, -1]


@pytest.mark.parametrize("spread", Spread)
def test_variation_has_the_distribution_that_it_is_named_for(spread):
    made = (
        program(torch.full((20_000,), 0.5).double(), Memristor(variation=0.1, spread=spread), seeded(3)).numpy() / 0.5
    )
    expected = stats.lognorm(0.1) if spread is Spread.LOGNORMAL else stats.norm(1, 0.1)
    assert stats.kstest(made, expected.cdf).pvalue > 1e-3
    assert (made >= 0).all()


def test_stuck_devices_are_at_either_end_in_the_shares_asked_for():
    device = Memristor(g_min_s=1e-6, stuck_on=0.1, stuck_off=0.3)
    made = program(torch.full((50_000,), 0.5), device, seeded(1))
    on, off = int((made == 1).sum()), int((made == 0.01).sum())
    assert on + off + int((made == 0.5).sum()) == 50_000
    assert stats.binomtest(on, 50_000, 0.1).pvalue > 1e-3
    assert stats.binomtest(off, 50_000, 0.3).pvalue > 1e-3


def test_a_perfect_device_draws_nothing_and_generators_are_unrelated():
    generator = seeded(0, "a")
    state = generator.get_state()
    assert torch.equal(program(torch.ones(3), Memristor(), generator), torch.ones(3))
    assert torch.equal(generator.get_state(), state)
    first, again, other = (torch.rand(1000, generator=seeded(*facts)) for facts in ((0, "a"), (0, "a"), (1, "a")))
    assert torch.equal(first, again)
    assert abs(float(torch.corrcoef(torch.stack([first, other]))[0, 1])) < 0.15
