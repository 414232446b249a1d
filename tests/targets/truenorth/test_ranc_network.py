"""Packets and input lines both ways, which neurons can spike, and what RANC lacks."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core_grid_cases import drawing, random_inputs, random_spikes
from ranc_grids import ranc_grid, ranc_network
from spokeshave.errors import InvalidArgument
from spokeshave.targets.truenorth.core_grid import NOWHERE, CoreGrid, NegativeTest, Neurons, OutputBus, ResetMode
from spokeshave.targets.truenorth.ranc_network import (
    RancNetwork,
    can_spike,
    require_ranc,
    stray_neuron,
    without_strays,
)
from spokeshave.targets.truenorth.spike_simulator import Engine, InputLines, SpikeSimulator

SEEDS = st.integers(0, 10_000)


def lone_neurons(seed: int, test: NegativeTest, cores: int = 80, axons: int = 3) -> CoreGrid:
    """Cores of one neuron each, so that a simulation counts its spikes; half of them are driven downwards only."""
    draw, _ = drawing(seed)
    one, most = (cores, 1), draw(-1, 2, cores, 1)
    neurons = replace(
        Neurons.inert(cores, 1),
        weights=torch.minimum(draw(-3, 3, *one, 4), most[:, :, None]),
        leak=torch.minimum(draw(-2, 2, *one), most),
        positive_threshold=draw(-2, 4, *one),
        negative_threshold=draw(-4, 4, *one),
        reset_potential=draw(-4, 4, *one),
        potential=draw(-4, 4, *one),
        reset_mode=draw(0, 2, *one).to(torch.uint8),
        saturates=draw(0, 3, *one) == 0,
        stochastic_leak=draw(0, 7, *one) == 0,
        leak_reversal=draw(0, 7, *one) == 0,
    )
    return CoreGrid.empty(
        cores, axons, 1, neurons=neurons, connections=draw(0, 1, cores, 1, axons) == 1, width=cores + 1,
        axon_types=draw(0, 3, cores, axons).to(torch.uint8), output=OutputBus(cores, 0, 1), negative_test=test,
    )  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, test=st.sampled_from(NegativeTest))
def test_neurons_that_cannot_spike_never_do(seed: int, test: NegativeTest) -> None:
    grid = lone_neurons(seed, test)
    entries = grid.cores * grid.axons_per_core
    line = torch.arange(entries)
    inputs = InputLines(entries, line, line // 3, line % 3, torch.ones_like(line))
    spikes = torch.rand(40, 12, entries) < torch.linspace(0, 1, 40)[:, None, None]
    record = SpikeSimulator(grid, inputs, Engine.TORCH).run(spikes, traffic=True)
    assert record.spikes_by_core is not None
    spiked, can = record.spikes_by_core > 0, can_spike(grid)[:, 0]
    assert not bool((spiked & ~can).any())
    assert bool(spiked.any()) and not bool(can.all())
    assert (spiked & can).sum() > 0.5 * can.sum()  # it would be no use if it said so of nearly all


def neuron(**changes: int) -> CoreGrid:
    """One neuron on one axon of type 1, and a bus beside it."""
    values = {name: torch.tensor([[value]], dtype=torch.int32) for name, value in changes.items() if name != "weight"}
    if "reset_mode" in values:
        values["reset_mode"] = values["reset_mode"].to(torch.uint8)
    values["weights"] = torch.tensor([[[-7, changes.get("weight", 0), 7, 7]]], dtype=torch.int32)
    return CoreGrid.empty(
        1, 1, 1, width=2, output=OutputBus(1, 0, 3), axon_types=torch.tensor([[1]], dtype=torch.uint8),
        connections=torch.ones(1, 1, 1, dtype=torch.bool), neurons=replace(Neurons.inert(1, 1), **values),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "can"),
    [
        ({}, False),
        ({"weight": 1}, True),
        ({"weight": -1}, False),
        ({"leak": 1}, True),
        ({"leak": -1}, False),
        ({"positive_threshold": 0}, True),
        ({"potential": 1}, True),
        ({"potential": 1, "leak": -1}, False),
        ({"reset_potential": -1, "negative_threshold": 1}, True),  # V = 0 is below 1 and becomes 1
        ({"reset_potential": -1, "negative_threshold": 1, "reset_mode": 1}, False),
    ],
)
def test_what_drives_a_neuron_upwards(changes: dict[str, int], can: bool) -> None:
    assert can_spike(neuron(**changes)).tolist() == [[can]]


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS)
def test_input_lines_become_packets_and_packets_lines(seed: int) -> None:
    grid = ranc_grid(seed, axons=10, neurons=8)
    inputs, spikes = random_inputs(seed, grid), random_spikes(seed, 1, 10)
    network = RancNetwork.given(grid, inputs, spikes)
    assert len(network.packets) == 10
    given_ = SpikeSimulator(grid, inputs, Engine.TORCH).run(spikes, 20).outputs
    again = SpikeSimulator(grid, network.inputs(), Engine.TORCH).run(network.spikes(), 20).outputs
    assert torch.equal(again, given_)
    twice = RancNetwork.given(grid, network.inputs(), network.spikes())
    assert torch.equal(twice.spikes(), network.spikes())


def test_packets_to_places_without_a_core_are_lost_and_repeated_ones_are_one() -> None:
    grid = CoreGrid.empty(1, 4, 4, width=3)
    packets = (torch.tensor([[0, 0, 3, 0], [2, 0, 1, 0], [0, 0, 3, 0]]), torch.zeros(0, 4, dtype=torch.int64),
               torch.tensor([[0, 0, 3, 1], [0, 0, 0, 15]]))  # fmt: skip
    network = RancNetwork(grid, packets)
    inputs = network.inputs()
    assert [inputs.core.tolist(), inputs.axon.tolist(), inputs.delay.tolist()] == [[0, 0, 0], [0, 3, 3], [16, 1, 2]]
    assert network.spikes()[0].int().tolist() == [[0, 1, 0], [0, 0, 0], [1, 0, 1]]


@pytest.mark.parametrize("engine", [Engine.TORCH, Engine.BIT_PLANES])
def test_a_network_without_packets_runs(engine: Engine) -> None:
    grid = neuron(leak=1, positive_threshold=3, target_axon=2)
    grid.neurons.target[0, 0, 0] = 1
    network = RancNetwork(grid)
    outputs = SpikeSimulator(grid, network.inputs(), engine).run(network.spikes(), 7).outputs
    assert outputs[0, :, 2].tolist() == [False, False, True, False, False, True, False]


@pytest.mark.parametrize(
    ("packet", "words"),
    [
        ([3, 0, 0, 0], "packet 1 of tick 1: got .3, 0., axon 0, delivery tick 0, but the grid has 3 x 2 cores"),
        ([0, -1, 0, 0], "3 x 2 cores"),
        ([0, 0, 8, 0], "a core has 8 axons"),
        ([0, 0, -1, 0], "a core has 8 axons"),
        ([0, 0, 0, 16], r"its delivery tick is to be 0\.\.15"),
        ([0, 0, 0, -1], "delivery tick"),
        ([1, 1, 0, 0], "straight to the output bus"),
    ],
)
def test_packets_that_do_not_fit_are_refused(packet: list[int], words: str) -> None:
    fine = torch.tensor([[0, 0, 0, 0]])
    with pytest.raises(InvalidArgument, match=words):
        RancNetwork(ranc_grid(0), (fine, torch.cat([fine, torch.tensor([packet])])))


def test_lines_and_spikes_that_do_not_belong_together_are_refused() -> None:
    grid = ranc_grid(0)
    inputs = random_inputs(0, grid)
    with pytest.raises(InvalidArgument, match="expected 30 lines, got 29"):
        RancNetwork.given(grid, inputs, random_spikes(0, 1, 5, 29))
    with pytest.raises(InvalidArgument, match="input entry 0: core"):
        RancNetwork.given(grid, replace(inputs, core=inputs.core + 3), random_spikes(0, 1, 5))


def changed(grid: CoreGrid, name: str, value: object) -> CoreGrid:
    tensor = getattr(grid.neurons, name).clone()
    tensor[1, 2] = torch.as_tensor(value).to(tensor.dtype)
    return replace(grid, neurons=replace(grid.neurons, **{name: tensor}))


def busy(seed: int = 3) -> CoreGrid:
    """A grid in which neuron 2 of core 1 spikes."""
    grid = changed(ranc_grid(seed), "leak", 1)
    for name, value in {"target": [0, 0], "target_axon": 0, "delay": 1}.items():
        grid = changed(grid, name, value)
    return grid


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("stochastic_weights", [False, True, False, False], "stochastic weights"),
        ("stochastic_leak", True, "a stochastic leak"),
        ("threshold_mask", 3, "a random threshold"),
        ("leak_reversal", True, "leak reversal"),
        ("saturates", True, "saturation"),
        ("reset_mode", ResetMode.KEEP, "KEEP"),
        ("target_axon", NOWHERE, "there is no such axon"),
        ("target_axon", 8, "a core has 8 axons"),
        ("target", [1, 0], r"sends to axon 0 at \(3, 0\), but the grid has 3 x 2 cores"),
        ("target", [0, -1], "3 x 2 cores"),
    ],
)
def test_what_ranc_lacks_is_refused_with_core_and_neuron(name: str, value: object, words: str) -> None:
    require_ranc(busy())
    with pytest.raises(InvalidArgument, match=rf"core 1 at \(2, 0\), neuron 2: .*{words}"):
        require_ranc(changed(busy(), name, value))


def test_a_spike_beyond_the_lines_of_the_bus_is_refused() -> None:
    grid = changed(changed(busy(), "target", [-1, 1]), "target_axon", 7)
    with pytest.raises(InvalidArgument, match=r"axon 7 at \(1, 1\), but the output bus there has 7 lines"):
        require_ranc(grid)
    require_ranc(changed(grid, "target_axon", 6))


def test_a_grid_without_a_bus_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="output bus"):
        require_ranc(replace(ranc_grid(0), output=None))


def test_neurons_that_never_spike_need_no_destination() -> None:
    quiet = changed(changed(changed(busy(), "leak", 0), "weights", [-1, 0, 0, -1]), "positive_threshold", 200)
    for name, value in (("target_axon", NOWHERE), ("target_axon", 99), ("target", [9, 9])):
        grid = changed(quiet, name, value)
        assert stray_neuron(grid) is None
        assert int(without_strays(grid).neurons.target_axon[1, 2]) == NOWHERE
        assert int(require_ranc(grid).neurons.target_axon[1, 2]) == 0
    for name, value in (("target_axon", 5), ("delay", 5), ("target", [-2, 0])):  # what files can tell is kept
        kept = without_strays(changed(quiet, name, value)).neurons
        assert int(kept.target_axon[1, 2]) == (value if name == "target_axon" else 0)


def test_a_random_network_is_one_that_ranc_runs() -> None:
    for seed in range(20):
        network = ranc_network(seed)
        require_ranc(network.grid)
        assert bool(can_spike(network.grid).any()) and not bool(can_spike(network.grid).all())
