"""Neurosynaptic core: what the neurons of a core do in one tick, on tensors of any number of cores and images.

TrueNorth's neuron (Cassidy et al., IJCNN 2013), V the potential, A the arriving spikes, w the crosspoints, G types:

    V += sum_i A_i w_ij s_j^G(i);   V += leak;   V >= alpha + eta: spike, reset;   else V < -beta - eta: reset

Departs from the chip: its random number generator is not reproduced, draws come from torch's; with kappa, beta alone is
the negative threshold, as published.
"""

import torch
from jaxtyping import Bool, Float, Int, Integer
from torch import Tensor

from spokeshave.targets.truenorth.core_grid import NegativeTest, Neurons, ResetMode

_DRAWS = 256
"""Values of the chip's random number."""


def synapse_weights(
    connections: Bool[Tensor, "cores neurons axons"], axon_types: Integer[Tensor, "cores axons"], neurons: Neurons
) -> Float[Tensor, "cores neurons axons"]:
    """What a spike on an axon adds to a neuron: its weight for the axon's type where the crosspoint is on, else 0.

    Stochastic weights are left out: see `stochastic_input`.
    """
    fixed = torch.where(neurons.stochastic_weights, 0, neurons.weights).float()
    by_axon = fixed.gather(2, axon_types.long()[:, None].expand(-1, fixed.shape[1], -1))
    return by_axon * connections


def stochastic_input(
    spikes: Bool[Tensor, "cores axons images"],
    connections: Bool[Tensor, "cores neurons axons"],
    axon_types: Integer[Tensor, "cores axons"],
    neurons: Neurons,
    generator: torch.Generator | None,
) -> Int[Tensor, "cores neurons images"]:
    """What stochastic synapses add: sign(s) with probability |s|/256 for each arriving spike."""
    total = torch.zeros(*connections.shape[:2], spikes.shape[2], dtype=torch.int32, device=spikes.device)
    for kind in range(neurons.weights.shape[2]):
        random = neurons.stochastic_weights[:, :, kind]
        if not bool(random.any()):
            continue
        crosspoints = (connections & (axon_types == kind)[:, None] & random[:, :, None]).float()
        arriving = crosspoints @ spikes.float()
        weight = neurons.weights[:, :, kind, None]
        chance = (weight.abs().float() / _DRAWS).expand_as(arriving).contiguous()
        total += torch.binomial(arriving, chance, generator=generator).int() * weight.sign()
    return total


def leaked(
    potential: Int[Tensor, "cores neurons images"], neurons: Neurons, generator: torch.Generator | None
) -> Int[Tensor, "cores neurons images"]:
    """The potential after the leak."""
    leak = neurons.leak[:, :, None]
    if bool(neurons.stochastic_leak.any()):
        drawn = torch.randint(0, _DRAWS, potential.shape, generator=generator, device=potential.device)
        leak = torch.where(neurons.stochastic_leak[:, :, None], leak.sign() * (drawn < leak.abs()), leak)
    if bool(neurons.leak_reversal.any()):
        leak = torch.where(neurons.leak_reversal[:, :, None], potential.sign() * leak, leak)
    return potential + leak


def fired_and_reset(
    potential: Int[Tensor, "cores neurons images"],
    neurons: Neurons,
    test: NegativeTest,
    generator: torch.Generator | None,
) -> tuple[Bool[Tensor, "cores neurons images"], Int[Tensor, "cores neurons images"]]:
    """Spikes, and the potential that the next tick begins with.

    Args:
        potential: after the leak.
        neurons: thresholds, reset modes.
        test: for the negative threshold.
        generator: of the random thresholds.
    """
    high, low = neurons.positive_threshold[:, :, None], neurons.negative_threshold[:, :, None]
    saturates = neurons.saturates[:, :, None]
    if bool(neurons.threshold_mask.any()):
        drawn = torch.randint(0, _DRAWS, potential.shape, generator=generator, device=potential.device).int()
        extra = drawn & neurons.threshold_mask[:, :, None]
        high, low = high + extra, torch.where(saturates, low, low - extra)
    spikes = potential >= high
    under = (potential <= low if test is NegativeTest.AT_OR_BELOW else potential < low) & ~spikes
    mode, restored = neurons.reset_mode[:, :, None], neurons.reset_potential[:, :, None]
    up = torch.where(
        mode == ResetMode.RESTORE, restored, torch.where(mode == ResetMode.LINEAR, potential - high, potential)
    )
    down = torch.where(
        mode == ResetMode.RESTORE, -restored, torch.where(mode == ResetMode.LINEAR, potential - low, potential)
    )
    down = torch.where(saturates, low, down)
    return spikes, torch.where(spikes, up, torch.where(under, down, potential)).to(potential.dtype)
