"""Codes: as many spikes as the value says, when they come."""

import numpy as np
import pytest
import torch

from spokeshave.errors import InvalidArgument
from spokeshave.targets.truenorth.spike_coding import SpikeCode, encode


def test_the_stochastic_code_spikes_as_often_as_the_value_says() -> None:
    values = torch.linspace(0, 1, 11).repeat(2000, 1)
    spikes = encode(values, 2, SpikeCode.STOCHASTIC, np.random.default_rng(0)).float()
    assert (spikes.mean((0, 1)) - values[0]).abs().max() < 5 * (0.25 / 4000) ** 0.5 + 1 / 512
    assert spikes[:, :, 0].sum() == 0 and spikes[:, :, 10].min() == 1
    again = encode(values, 2, SpikeCode.STOCHASTIC, np.random.default_rng(0)).float()
    assert torch.equal(spikes, again)


@pytest.mark.parametrize("ticks", [1, 3, 8, 16])
def test_the_rate_code_spreads_its_spikes_evenly(ticks: int) -> None:
    values = torch.linspace(0, 1, 33)[None]
    spikes = encode(values, ticks, SpikeCode.RATE, np.random.default_rng(0))
    assert torch.equal(spikes.sum(1).float(), (values * ticks).round())
    for line in range(33):
        at = spikes[0, :, line].nonzero().flatten()
        if len(at) > 1:
            assert at.diff().max() - at.diff().min() <= 1


def test_the_threshold_code() -> None:
    spikes = encode(torch.tensor([[0.0, 0.49, 0.5, 1.0]]), 2, SpikeCode.THRESHOLD, np.random.default_rng(0))
    assert spikes.tolist() == [[[False, False, True, True]] * 2]


@pytest.mark.parametrize("code", SpikeCode)
def test_other_values_are_refused_with_their_range(code: SpikeCode) -> None:
    with pytest.raises(InvalidArgument, match=r"0\.\.1, the probabilities of spikes, got -1\.0\.\.2\.0"):
        encode(torch.tensor([[-1.0, 2.0]]), 1, code, np.random.default_rng(0))
    with pytest.raises(InvalidArgument, match="got nan"):
        encode(torch.tensor([[float("nan")]]), 1, code, np.random.default_rng(0))
