"""What a grid of cores refuses, and where its spikes go."""

from dataclasses import replace

import pytest
import torch

from core_grid_cases import random_grid
from spokeshave.errors import InvalidArgument
from spokeshave.targets.truenorth.core_grid import NOWHERE, CoreGrid, Neurons, OutputBus


def test_routes_lead_to_cores_lines_or_nowhere() -> None:
    neurons = Neurons.inert(2, 5)
    target = torch.tensor([[[1, 0], [2, 0], [0, 0], [-1, 0], [1, 0]], [[0, 0]] * 5], dtype=torch.int32)
    axon = torch.tensor([[3, 1, 2, 0, NOWHERE], [0, 1, 2, 3, 9]], dtype=torch.int32)
    delay = torch.tensor([[1, 1, 16, 1, 1], [1, 15, 1, 1, 1]], dtype=torch.int32)
    grid = CoreGrid.empty(
        2, 4, 5, neurons=replace(neurons, target=target, target_axon=axon, delay=delay), width=3,
        output=OutputBus(2, 0, 2),
    )  # fmt: skip
    routes = grid.routes()
    assert routes.core.tolist() == [[1, -1, -1, -1, -1], [1, 1, 1, 1, -1]]  # the last delay and the axon 9 are lost
    assert routes.axon.tolist() == [[3, -1, -1, -1, -1], [0, 1, 2, 3, -1]]
    assert routes.line.tolist() == [[-1, 1, -1, -1, -1], [-1] * 5]


def test_places_number_the_cores() -> None:
    assert random_grid(0).places().tolist() == [[0, 1, 2], [3, -1, -1]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"coordinates": torch.tensor([[0, 0], [1, 0], [1, 0], [0, 1]])}, r"two cores at \(1, 0\)"),
        (
            {"coordinates": torch.tensor([[0, 0], [1, 0], [3, 0], [0, 1]])},
            r"core 2: its place \(3, 0\) is outside the grid of 3 x 2",
        ),
        ({"output": OutputBus(0, 1, 4)}, r"output bus: a core is in its place, \(0, 1\)"),
        ({"output": OutputBus(4, 0, 4)}, r"expected a place in the grid of 3 x 2"),
        ({"slots": 1}, r"two slots"),
        ({"slots": 4}, r"delay number \d+: expected 1\.\.4"),
        ({"axon_types": torch.full((4, 20), 4, dtype=torch.uint8)}, r"core 0, axon type number 0: expected below 4"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        replace(random_grid(0), **changes)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("reset_mode", 3, "reset mode number 5: expected 0, 1 or 2"),
        ("delay", 0, "delay number 5: expected 1..16"),
        ("threshold_mask", 256, "threshold mask number 5: expected 0..255"),
        ("leak", 2**24 + 1, "leak number 5: expected within 16777216 of 0"),
        ("positive_threshold", -(2**31), "positive_threshold number 5: expected within 16777216 of 0"),
        ("weights", 2**24 // 20 + 1, "weights number 5: expected within 838860 of 0"),
    ],
)
def test_a_neuron_out_of_its_range_is_named(name: str, value: int, message: str) -> None:
    grid = random_grid(0)
    changed = getattr(grid.neurons, name).clone()
    changed[2, 5] = value
    with pytest.raises(InvalidArgument, match=f"core 2, {message}"):
        replace(grid, neurons=replace(grid.neurons, **{name: changed}))


def test_shapes_must_agree() -> None:
    grid = random_grid(0)
    with pytest.raises(InvalidArgument, match=r"neurons.weights: expected shape \(4, 12, 4\) .* got \(4, 11, 4\)"):
        replace(grid, neurons=Neurons.inert(4, 11))
