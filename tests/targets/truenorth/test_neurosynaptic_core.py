"""What a neuron does in one tick, by the published table of resets, and where it draws random numbers."""

from dataclasses import replace

import pytest
import torch

from spokeshave.targets.truenorth.core_grid import NegativeTest, Neurons, ResetMode
from spokeshave.targets.truenorth.neurosynaptic_core import fired_and_reset, leaked, stochastic_input, synapse_weights

ALPHA, BETA, R = 5, 3, 2


def number(value: int) -> torch.Tensor:
    return torch.full((1, 1), value, dtype=torch.int32)


def neuron(**changes: torch.Tensor) -> Neurons:
    made = replace(
        Neurons.inert(1, 1),
        positive_threshold=number(ALPHA),
        negative_threshold=number(-BETA),
        reset_potential=number(R),
    )
    return replace(made, **changes)


@pytest.mark.parametrize(
    ("mode", "saturates", "up", "down"),
    [
        (ResetMode.RESTORE, False, R, -R),
        (ResetMode.RESTORE, True, R, -BETA),
        (ResetMode.LINEAR, False, 7 - ALPHA, -6 + BETA),
        (ResetMode.LINEAR, True, 7 - ALPHA, -BETA),
        (ResetMode.KEEP, False, 7, -6),
        (ResetMode.KEEP, True, 7, -BETA),
    ],
)
def test_resets_are_those_of_the_published_table(mode: ResetMode, saturates: bool, up: int, down: int) -> None:
    made = neuron(reset_mode=torch.full((1, 1), int(mode), dtype=torch.uint8), saturates=torch.full((1, 1), saturates))
    potentials = torch.tensor([[[7, 5, 4, 0, -3, -6]]], dtype=torch.int32)
    spikes, after = fired_and_reset(potentials, made, NegativeTest.BELOW, None)
    assert spikes.flatten().tolist() == [True, True, False, False, False, False]
    assert after.flatten().tolist()[0] == up and after.flatten().tolist()[2:] == [4, 0, -3, down]


def test_the_negative_threshold_itself_counts_where_the_test_says_so() -> None:
    at = torch.tensor([[[-BETA]]], dtype=torch.int32)
    below, at_or_below = (fired_and_reset(at, neuron(), test, None)[1].item() for test in NegativeTest)
    assert (below, at_or_below) == (-BETA, -R)


def test_a_random_threshold_moves_both_away_from_zero_but_not_a_saturating_one() -> None:
    """With the mask 2 it is 0 or 2 more: at 6 and at -4 half of the draws cross."""
    made = neuron(threshold_mask=number(2), reset_mode=torch.full((1, 1), int(ResetMode.KEEP), dtype=torch.uint8))
    images = 4000
    high = torch.full((1, 1, images), 6, dtype=torch.int32)
    spikes, _ = fired_and_reset(high, made, NegativeTest.BELOW, torch.Generator().manual_seed(0))
    assert abs(float(spikes.float().mean()) - 0.5) < 5 * 0.5 / images**0.5
    low = torch.full((1, 1, images), -4, dtype=torch.int32)
    for saturates, share in ((False, 0.5), (True, 1.0)):
        some = replace(made, saturates=torch.full((1, 1), saturates), reset_mode=torch.zeros(1, 1, dtype=torch.uint8))
        _, after = fired_and_reset(low, some, NegativeTest.BELOW, torch.Generator().manual_seed(0))
        moved = (after != low).float().mean().item()
        assert moved == pytest.approx(share, abs=5 * 0.5 / images**0.5)


def test_weights_are_those_of_the_axon_s_type_where_the_crosspoint_is_on() -> None:
    weights = torch.tensor([[[1, -2, 3, -4]]], dtype=torch.int32)
    types = torch.tensor([[0, 1, 2, 3, 1]], dtype=torch.uint8)
    on = torch.tensor([[[True, True, False, True, True]]])
    made = neuron(weights=weights)
    assert synapse_weights(on, types, made).tolist() == [[[1, -2, 0, -4, -2]]]
    random = replace(made, stochastic_weights=torch.tensor([[[False, True, False, False]]]))
    assert synapse_weights(on, types, random).tolist() == [[[1, 0, 0, -4, 0]]]


def test_stochastic_synapses_add_a_binomial_number() -> None:
    """Three arriving spikes of weight -64: mean -3/4 and variance 9/16."""
    made = neuron(
        weights=torch.full((1, 1, 4), -64, dtype=torch.int32), stochastic_weights=torch.ones(1, 1, 4, dtype=torch.bool)
    )
    spikes, on = torch.ones(1, 4, 5000, dtype=torch.bool), torch.tensor([[[True, True, True, False]]])
    types = torch.zeros(1, 4, dtype=torch.uint8)
    added = stochastic_input(spikes, on, types, made, torch.Generator().manual_seed(1)).float()
    assert added.mean().item() == pytest.approx(-0.75, abs=0.06) and added.var().item() == pytest.approx(
        9 / 16, abs=0.06
    )


def test_the_leak_may_follow_the_sign_of_the_potential() -> None:
    potentials = torch.tensor([[[4, 0, -4]]], dtype=torch.int32)
    made = neuron(leak=number(-1))
    assert leaked(potentials, made, None).flatten().tolist() == [3, -1, -5]
    turned = replace(made, leak_reversal=torch.ones(1, 1, dtype=torch.bool))
    assert leaked(potentials, turned, None).flatten().tolist() == [3, 0, -3]
