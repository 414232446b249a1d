"""Sampling: shares, poles, seeds."""

import pytest
import torch

from spokeshave.errors import InvalidArgument
from spokeshave.targets.truenorth.connection_sampling import sample_connections, synaptic_variance


def test_every_connection_is_on_as_often_as_its_probability_says() -> None:
    p = torch.tensor([0.0, 0.1, 0.5, 0.9, 1.0])
    drawn = sample_connections(p, 5000, torch.Generator().manual_seed(0)).float()
    assert drawn.shape == (5000, 5)
    assert (drawn.mean(0) - p).abs().max() < 5 * (0.25 / 5000) ** 0.5
    assert drawn[:, 0].sum() == 0 and drawn[:, 4].sum() == 5000


def test_the_seed_tells_the_draws() -> None:
    p = torch.full((300,), 0.5)
    one, two, other = (sample_connections(p, 2, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, two) and not torch.equal(one, other) and not torch.equal(one[0], one[1])


@pytest.mark.parametrize("wrong", [-0.1, 1.1, float("nan")])
def test_what_is_no_probability_is_refused(wrong: float) -> None:
    with pytest.raises(InvalidArgument, match="probabilities of 0..1"):
        sample_connections(torch.tensor([0.5, wrong]), 1, torch.Generator())


def test_copies_vary_by_the_stated_variance() -> None:
    p = torch.tensor([0.0, 0.2, 0.5, 1.0])
    drawn = sample_connections(p, 20000, torch.Generator().manual_seed(3)).float()
    assert (drawn.var(0) - synaptic_variance(p)).abs().max() < 0.01
