"""The paper's theory: unbiased codes, what clipping costs, the second moment; and what is not finite."""

import math
from contextlib import nullcontext

import pytest
import torch

from spokeshave.communication import ternary_codes
from spokeshave.communication.counter_random import stream_key
from spokeshave.communication.ternary_codes import (
    Deviation,
    decode_factors,
    draw_factors,
    joint_statistics,
    local_scalers,
    statistics_of,
    ternarize,
)


def normal(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed))


def scaler_of(gradient: torch.Tensor, clip: float | None, about: Deviation = Deviation.ABOUT_ZERO) -> torch.Tensor:
    return local_scalers(statistics_of(gradient)[None], clip, about)[0]


def test_codes_are_unbiased_and_have_the_second_moment_of_the_theory() -> None:
    gradient, draws = normal(60), 20_000
    scaler = scaler_of(gradient, None)
    # Every element of a stream is a draw of its own.
    values = ternarize(gradient.repeat(draws), scaler, stream_key(0, 0, 0, 0)).view(draws, -1) * scaler
    deviation = (scaler * gradient.abs() - gradient**2).clamp(min=0).sqrt()  # of one draw
    assert bool(((values.double().mean(0) - gradient).abs() <= 4 * deviation / draws**0.5 + 1e-6).all())
    moments = (values.double() ** 2).sum(1)
    theory = float(scaler * gradient.abs().sum())
    assert abs(float(moments.mean()) - theory) < 4 * float(moments.std()) / draws**0.5


def test_clipping_gaussian_gradients_at_2_5_does_what_the_paper_says() -> None:
    gradient = normal(4_000_000)
    scaler = scaler_of(gradient, 2.5)
    clipped = gradient.clamp(-scaler, scaler).double()
    length = float(clipped.norm() / gradient.double().norm() - 1)
    cosine = float(clipped @ gradient.double() / clipped.norm() / gradient.double().norm())
    assert length == pytest.approx(-0.0114, abs=2e-4)
    assert math.degrees(math.acos(cosine)) == pytest.approx(2.76, abs=0.02)
    zeros = float((ternarize(gradient, scaler, stream_key(0, 0, 0, 0)) == 0).double().mean())
    assert zeros == pytest.approx(0.682, abs=2e-3)


def test_a_worker_clips_at_its_own_scaler_when_the_shared_one_is_larger() -> None:
    gradient = torch.full((100_000,), 4.0)
    codes = ternarize(gradient, torch.tensor(8.0), stream_key(0, 0, 0, 0), torch.tensor(2.0))
    assert float(codes.float().mean()) == pytest.approx(0.25, abs=0.01)


def test_scalers() -> None:
    gradient = torch.tensor([3.0, -5.0, 1.0, 1.0])
    assert float(scaler_of(gradient, None)) == 5.0
    assert float(scaler_of(gradient, 1.0)) == 3.0  # sqrt(36 / 4)
    assert float(scaler_of(gradient, 1.0, Deviation.ABOUT_MEAN)) == 3.0  # the mean is 0
    alike = torch.full((50,), 5.0)
    assert float(scaler_of(alike, 2.5)) == 5.0 and float(scaler_of(alike, 2.5, Deviation.ABOUT_MEAN)) == 0.0
    for empty in (torch.zeros(9), torch.zeros(0), torch.full((9,), 1e-38)):
        assert float(scaler_of(empty, 2.5)) == 0.0
        assert not ternarize(empty, torch.tensor(0.0), stream_key(0, 0, 0, 0)).any()


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("clip", [None, 2.5])
def test_what_is_not_finite_survives_a_maximum_and_is_seen(poison: float, clip: float | None) -> None:
    gradient = torch.tensor([1.0, poison, 2.0])
    scaler = scaler_of(gradient, clip)
    assert float(scaler) == math.inf
    codes = ternarize(gradient, scaler, stream_key(0, 0, 0, 0), scaler)
    assert not codes.any()
    assert bool((codes * decode_factors(scaler[None], 2)).isnan().all())


def test_joint_statistics_are_those_of_one_tensor() -> None:
    parts = [normal(100, 1), normal(7, 2)]
    joint = joint_statistics(torch.stack([statistics_of(part) for part in parts]))
    assert torch.allclose(joint[1], statistics_of(torch.cat(parts)))
    assert torch.equal(joint[0], joint[1]) and joint_statistics(joint[:0]).shape == (0, 4)


@pytest.mark.parametrize("clip", [2.5, None])
@pytest.mark.parametrize("about", Deviation)
def test_scalers_have_the_same_bits_by_numpy_and_by_torch(monkeypatch, clip, about) -> None:
    sizes = torch.tensor([1e4, 3.0, 1.0, 1e4], dtype=torch.float64)
    table = torch.rand(500, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * sizes
    odd = [[0, 0, 0, 0], [4, 1e-40, 0, 1e-80], [3, 1e39, 0, 1e78], [4, math.inf, 0, math.inf], [4, 3.0, 0, math.nan]]
    table = torch.cat([table, torch.tensor(odd, dtype=torch.float64)])
    by_numpy = local_scalers(table, clip, about)
    factors = draw_factors(by_numpy)
    # What other devices compute with.
    monkeypatch.setattr(ternary_codes, "_small_arrays", lambda values: nullcontext((torch, values)))
    assert torch.equal(local_scalers(table, clip, about), by_numpy) and torch.equal(draw_factors(by_numpy), factors)
    assert by_numpy[-5:].tolist() == [0.0, 0.0, math.inf, math.inf, math.inf] and not factors[-5:].any()
