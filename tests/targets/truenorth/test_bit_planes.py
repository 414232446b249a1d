"""Bit planes give the torch version's bits: sizes of batches, large weights, long runs, all sets of instructions."""

from dataclasses import replace

import pytest
import torch

from core_grid_cases import random_grid, random_inputs, random_spikes
from spokeshave.jit.host_cpu import VectorSet, host_cpu
from spokeshave.targets.truenorth.bit_planes import BitPlanes, why_not_bit_planes
from spokeshave.targets.truenorth.core_grid import CoreGrid
from spokeshave.targets.truenorth.spike_simulator import Engine, InputLines, SpikeSimulator


def agree(
    grid: CoreGrid, inputs: InputLines, spikes: torch.Tensor, ticks: int, vectors: VectorSet | None = None
) -> bool:
    wanted = SpikeSimulator(grid, inputs, Engine.TORCH).run(spikes, ticks).outputs
    got = BitPlanes(grid, inputs, vectors).run(spikes, ticks)
    return bool(wanted.any()) and torch.equal(got, wanted)


@pytest.mark.parametrize("images", [1, 7, 256, 300, 1100])
def test_any_number_of_images(images: int) -> None:
    grid = random_grid(20)
    assert agree(grid, random_inputs(20, grid), random_spikes(20, images, 12), 15)


@pytest.mark.parametrize("vectors", [one for one in VectorSet if host_cpu().supports(one)])
def test_every_set_of_instructions(vectors: VectorSet) -> None:
    grid = random_grid(21)
    assert agree(grid, random_inputs(21, grid), random_spikes(21, 70, 12), 15, vectors)


@pytest.mark.parametrize("seed", range(30, 36))
def test_weights_up_to_the_chip_s_largest_and_many_axons(seed: int) -> None:
    grid = random_grid(seed, weight=255, axons=256, neurons=20)
    wide = replace(
        grid.neurons, positive_threshold=grid.neurons.positive_threshold * 60,
        negative_threshold=grid.neurons.negative_threshold * 60,
    )  # fmt: skip
    grid = replace(grid, neurons=wide)
    assert agree(grid, random_inputs(seed, grid, entries=400), random_spikes(seed, 40, 20, share=0.3), 25)


def test_potentials_that_grow_for_many_ticks() -> None:
    """Linear resets that never catch up: potentials of some thousands."""
    grid = random_grid(40)
    neurons = replace(
        grid.neurons, reset_mode=torch.ones_like(grid.neurons.reset_mode), saturates=grid.neurons.saturates & False,
        leak=grid.neurons.leak.abs() * 20 + 1,
    )  # fmt: skip
    grid = replace(grid, neurons=neurons)
    assert agree(grid, random_inputs(40, grid), random_spikes(40, 5, 100), 500)


def test_a_second_run_begins_anew() -> None:
    grid = random_grid(41)
    inputs, spikes = random_inputs(41, grid), random_spikes(41, 20, 12)
    planes = BitPlanes(grid, inputs)
    first, longer = planes.run(spikes, 12), planes.run(spikes, 30)
    assert torch.equal(first, longer[:, :12]) and torch.equal(planes.run(spikes, 12), first)


def test_threads_share_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = random_grid(42)
    inputs, spikes = random_inputs(42, grid), random_spikes(42, 900, 8)
    wanted = BitPlanes(grid, inputs).run(spikes, 10)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert torch.equal(BitPlanes(grid, inputs).run(spikes, 10), wanted)


def test_a_grid_that_never_spikes_is_silent() -> None:
    grid = CoreGrid.empty(2, 4, 4, output=random_grid(0).output, width=3, height=2)
    inputs = random_inputs(0, grid)
    assert not BitPlanes(grid, inputs).run(random_spikes(0, 3, 5), 5).any()


def test_what_it_cannot_run_is_said() -> None:
    grid = random_grid(0)
    assert why_not_bit_planes(grid, torch.device("cpu")) == ""
    assert "on CPUs, not on meta" in why_not_bit_planes(grid, torch.device("meta"))
    turned = replace(grid, neurons=replace(grid.neurons, leak_reversal=~grid.neurons.leak_reversal))
    assert "change their sign" in why_not_bit_planes(turned, torch.device("cpu"))
    wide = CoreGrid.empty(1, 40000, 1)
    assert "40000 axons" in why_not_bit_planes(wide, torch.device("cpu"))
