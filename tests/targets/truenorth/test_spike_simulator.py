"""The simulator against its definition in plain Python, and statistics of what is random."""

from dataclasses import replace

import pytest
import torch

from core_grid_cases import random_grid, random_inputs, random_spikes, written_out
from spokeshave.errors import InvalidArgument, JitRefused
from spokeshave.targets.truenorth.core_grid import CoreGrid, Neurons, OutputBus
from spokeshave.targets.truenorth.spike_simulator import Engine, InputLines, SpikeSimulator

TICKS = 40


@pytest.mark.parametrize("engine", [Engine.TORCH, Engine.BIT_PLANES])
@pytest.mark.parametrize("seed", range(12))
def test_random_grids_do_what_the_definition_says(seed: int, engine: Engine) -> None:
    """Delays up to the one that is too long, all reset modes, both negative tests, duplicates, lost packets."""
    grid = random_grid(seed)
    inputs, spikes = random_inputs(seed, grid), random_spikes(seed, 3, 30)
    got = SpikeSimulator(grid, inputs, engine).run(spikes, TICKS).outputs
    assert got.shape == (3, TICKS, 17) and got.any()
    for image in range(3):
        wanted = written_out(grid, inputs, spikes[image], TICKS)
        assert [set(tick.nonzero().flatten().tolist()) for tick in got[image]] == wanted


def test_the_sign_of_the_leak_may_follow_the_potential() -> None:
    grid = random_grid(3)
    grid = replace(grid, neurons=replace(grid.neurons, leak_reversal=torch.rand(4, 12) < 0.7))
    inputs, spikes = random_inputs(3, grid), random_spikes(3, 2, 30)
    simulator = SpikeSimulator(grid, inputs)
    assert simulator.engine is Engine.TORCH  # AUTO, since bit planes have no such leak
    got = simulator.run(spikes, TICKS).outputs
    for image in range(2):
        wanted = written_out(grid, inputs, spikes[image], TICKS)
        assert [set(tick.nonzero().flatten().tolist()) for tick in got[image]] == wanted


def one_neuron(**changes: object) -> tuple[CoreGrid, InputLines]:
    """A neuron that the only line reaches by the only axon, with the bus beside it."""
    one = torch.ones(1, 1, dtype=torch.int32)
    neurons = replace(
        Neurons.inert(1, 1), weights=torch.full((1, 1, 4), 64, dtype=torch.int32), target_axon=0 * one,
        target=torch.tensor([[[1, 0]]], dtype=torch.int32),
    )  # fmt: skip
    grid = CoreGrid.empty(
        1, 1, 1, neurons=replace(neurons, **changes), width=2, output=OutputBus(1, 0, 1),
        connections=torch.ones(1, 1, 1, dtype=torch.bool),
    )  # fmt: skip
    zero = torch.zeros(1, dtype=torch.int64)
    return grid, InputLines(1, zero, zero, zero, zero + 1)


IMAGES = 4000
NOISE = 5 * (0.25 / IMAGES) ** 0.5
"""Five standard deviations of a share of that many draws, at most."""


def share_of_spikes(expected_engine: Engine = Engine.TORCH, seed: int = 1, **changes: object) -> float:
    grid, inputs = one_neuron(**changes)
    simulator = SpikeSimulator(grid, inputs, seed=seed)
    assert simulator.engine is expected_engine
    spikes = torch.ones(IMAGES, 1, 1, dtype=torch.bool)
    outputs = simulator.run(spikes).outputs
    assert torch.equal(outputs, simulator.run(spikes).outputs)  # the seed is the run's
    return float(outputs.float().mean())


def test_a_stochastic_synapse_adds_its_sign_with_its_weight_as_chance() -> None:
    random = torch.ones(1, 1, 4, dtype=torch.bool)
    assert abs(share_of_spikes(stochastic_weights=random) - 64 / 256) < NOISE
    below = torch.full((1, 1), -5, dtype=torch.int32)
    negative = {"weights": torch.full((1, 1, 4), -192, dtype=torch.int32), "positive_threshold": 0 * below}
    assert abs(share_of_spikes(stochastic_weights=random, negative_threshold=below, **negative) - 64 / 256) < NOISE


def test_a_stochastic_leak_adds_its_sign_with_its_size_as_chance() -> None:
    found = share_of_spikes(
        weights=torch.zeros(1, 1, 4, dtype=torch.int32), leak=torch.full((1, 1), 100, dtype=torch.int32),
        stochastic_leak=torch.ones(1, 1, dtype=torch.bool),
    )  # fmt: skip
    assert abs(found - 100 / 256) < NOISE


def test_a_random_threshold_is_masked() -> None:
    """V = 64 and alpha = 62: with the lowest three bits random, 0..2 of 8 let it fire."""
    high, mask = torch.full((1, 1), 62, dtype=torch.int32), torch.full((1, 1), 7, dtype=torch.int32)
    assert abs(share_of_spikes(positive_threshold=high, threshold_mask=mask) - 3 / 8) < NOISE
    assert share_of_spikes(Engine.BIT_PLANES, positive_threshold=high) == 1


def test_traffic_counts_what_was_sent_where() -> None:
    grid = random_grid(5)
    inputs, spikes = random_inputs(5, grid), random_spikes(5, 4, 30)
    record = SpikeSimulator(grid, inputs, Engine.TORCH).run(spikes, TICKS, traffic=True)
    assert record.spikes_by_core is not None and record.traffic is not None
    routes = grid.routes()
    assert record.traffic.shape == (4, 5)
    assert (record.traffic.sum(1) <= record.spikes_by_core).all()  # some are lost
    assert (record.traffic[:, :4][torch.stack([(routes.core == c).any(1) for c in range(4)], 1) == 0] == 0).all()
    alone = [SpikeSimulator(grid, inputs, Engine.TORCH).run(one[None], TICKS, traffic=True) for one in spikes]
    assert torch.equal(sum(one.traffic for one in alone), record.traffic)
    plain = SpikeSimulator(grid, inputs).run(spikes, TICKS)
    assert plain.traffic is None and torch.equal(plain.outputs, record.outputs)


def test_what_does_not_fit_is_refused_with_its_place() -> None:
    grid, inputs = one_neuron()
    with pytest.raises(InvalidArgument, match=r"input entry 0: axon: expected 0\.\.0, got 3"):
        SpikeSimulator(grid, replace(inputs, axon=torch.tensor([3])))
    with pytest.raises(InvalidArgument, match="no output bus"):
        SpikeSimulator(replace(grid, output=None), inputs)
    with pytest.raises(InvalidArgument, match=r"expected booleans \[images, ticks, 1\], got torch.bool \(1, 1, 2\)"):
        SpikeSimulator(grid, inputs).run(torch.ones(1, 1, 2, dtype=torch.bool))
    with pytest.raises(InvalidArgument, match="at least one image and one tick"):
        SpikeSimulator(grid, inputs).run(torch.ones(1, 0, 1, dtype=torch.bool))
    random = replace(grid, neurons=replace(grid.neurons, stochastic_leak=torch.ones(1, 1, dtype=torch.bool)))
    with pytest.raises(InvalidArgument, match="bit planes cannot run this grid: its neurons draw random numbers"):
        SpikeSimulator(random, inputs, Engine.BIT_PLANES)


def test_large_grids_make_their_weights_for_some_cores_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = random_grid(7)
    inputs, spikes = random_inputs(7, grid), random_spikes(7, 2, 20)
    wanted = SpikeSimulator(grid, inputs, Engine.TORCH).run(spikes).outputs
    monkeypatch.setattr("spokeshave.targets.truenorth.spike_simulator._KEPT_WEIGHTS", 600)
    assert torch.equal(SpikeSimulator(grid, inputs, Engine.TORCH).run(spikes).outputs, wanted)


@pytest.mark.parametrize("engine", [Engine.TORCH, Engine.BIT_PLANES])
@pytest.mark.parametrize("seed", range(3))
def test_numbers_near_their_bounds_are_exact(seed: int, engine: Engine) -> None:
    """Weights, thresholds, leaks and potentials up to what a grid may hold, over ticks that exceed 32 bits."""
    grid = random_grid(60 + seed)
    n, scale = grid.neurons, 2**24 // 10
    large = {
        name: getattr(n, name) * scale for name in ("leak", "positive_threshold", "negative_threshold", "potential")
    }
    grid = replace(
        grid, neurons=replace(n, weights=n.weights * (2**24 // 101), reset_potential=n.reset_potential * scale, **large)
    )
    inputs, spikes = random_inputs(seed, grid), random_spikes(seed, 2, 30, share=0.4)
    got = SpikeSimulator(grid, inputs, engine).run(spikes, 60).outputs
    assert got.any()
    for image in range(2):
        wanted = written_out(grid, inputs, spikes[image], 60)
        assert [set(tick.nonzero().flatten().tolist()) for tick in got[image]] == wanted


def test_torch_runs_what_no_code_can_be_made_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise JitRefused("not here")

    monkeypatch.setattr("spokeshave.targets.truenorth.spike_simulator.BitPlanes", refuse)
    grid, inputs = one_neuron()
    assert SpikeSimulator(grid, inputs).engine is Engine.TORCH
    with pytest.raises(JitRefused, match="not here"):
        SpikeSimulator(grid, inputs, Engine.BIT_PLANES)


def test_too_many_ticks_for_bit_planes_are_refused() -> None:
    grid, inputs = one_neuron(
        reset_mode=torch.ones(1, 1, dtype=torch.uint8), leak=torch.full((1, 1), 2**24, dtype=torch.int32)
    )
    with pytest.raises(InvalidArgument, match=r"after 65536 ticks potentials may need \d+ bits, more than the 40"):
        SpikeSimulator(grid, inputs, Engine.BIT_PLANES).run(torch.ones(1, 65536, 1, dtype=torch.bool))
