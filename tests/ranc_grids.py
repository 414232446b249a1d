"""Random grids that RANC can run, their packets, and how two grids are compared."""

from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from core_grid_cases import drawing
from spokeshave.targets.truenorth.core_grid import CoreGrid, NegativeTest, Neurons, OutputBus
from spokeshave.targets.truenorth.ranc_network import RancNetwork, without_strays


def ranc_grid(
    seed: int, axons: int = 8, neurons: int = 6, types: int = 4, slots: int = 16, largest: int = 9
) -> CoreGrid:
    """Three cores of a grid of 3 x 2 with the bus at (1, 1) and a place without a core; some neurons are inert."""
    draw, _ = drawing(seed)
    places = torch.tensor([[0, 0], [2, 0], [0, 1]])
    shape = cores, _ = len(places), neurons
    lines = axons - 1
    to = torch.tensor([*places.tolist(), [1, 1], [1, 1], [1, 1], [2, 1]])[draw(0, 6, *shape).long()]
    bus = (to == 1).all(2)
    programmed = Neurons.inert(cores, neurons, types)
    programmed = replace(
        programmed,
        weights=draw(-largest, largest, *shape, types),
        leak=draw(-2, 2, *shape),
        positive_threshold=draw(-3, largest, *shape),
        negative_threshold=draw(-largest, 3, *shape),
        reset_potential=draw(-3, 5, *shape),
        potential=draw(-largest, largest, *shape),
        reset_mode=draw(0, 1, *shape).to(torch.uint8),
        target=(to - places[:, None]).int(),
        target_axon=torch.where(bus, draw(0, lines - 1, *shape), draw(0, axons - 1, *shape)).int(),
        delay=draw(1, slots, *shape),
    )
    inert, none = draw(0, 4, *shape) == 0, Neurons.inert(cores, neurons, types)
    inert[:, neurons - 2 :] |= draw(0, 1, cores, 1) == 0  # so that a file may leave the last ones out
    inert[:, 0], programmed.leak[:, 0] = False, 1  # so that no core is inert
    mixed = {
        item.name: torch.where(
            inert.view(*shape, *[1] * (getattr(none, item.name).ndim - 2)),
            getattr(none, item.name),
            getattr(programmed, item.name),
        )
        for item in fields(Neurons)
    }
    return without_strays(
        CoreGrid(
            width=3, height=2, coordinates=places, axon_types=draw(0, types - 1, cores, axons).to(torch.uint8),
            connections=(draw(0, 2, *shape, axons) == 0) & ~inert[:, :, None], neurons=Neurons(**mixed),
            output=OutputBus(1, 1, lines), negative_test=(NegativeTest.BELOW, NegativeTest.AT_OR_BELOW)[seed % 2],
            slots=slots,
        )
    )  # fmt: skip


def ranc_network(seed: int, ticks: int = 12, most: int = 6, **sizes: int) -> RancNetwork:
    """A random grid and up to so many packets a tick, some of them to a place without a core."""
    grid, (draw, _) = ranc_grid(seed, **sizes), drawing(seed + 1)
    places = torch.tensor([*grid.coordinates.tolist(), [2, 1]])
    packets = []
    for _ in range(ticks):
        count = int(draw(0, most, 1))
        place = places[draw(0, 3, count).long()]
        axon, late = draw(0, grid.axons_per_core - 1, count), draw(0, grid.slots - 1, count)
        late = torch.where(draw(0, 1, count) == 0, 0, late)
        packets.append(torch.cat([place, axon[:, None], late[:, None]], 1))
    return RancNetwork(grid, tuple(packets))


def tea_256(real_data_dir: Path) -> Path:
    """The folder of RANC's memory files and vectors for cores of 256 x 256."""
    folder = real_data_dir / "ranc" / "tea_256"
    if not folder.is_dir():
        pytest.skip("SPOKESHAVE_DATA is not set to a folder with ranc/tea_256")
    return folder


def assert_same_grid(got: CoreGrid, wanted: CoreGrid) -> None:
    for name in ("width", "height", "output", "negative_test", "slots"):
        assert getattr(got, name) == getattr(wanted, name), name
    for name in ("coordinates", "axon_types", "connections"):
        assert torch.equal(getattr(got, name), getattr(wanted, name)), name
    for item in fields(Neurons):
        one, other = getattr(got.neurons, item.name), getattr(wanted.neurons, item.name)
        assert one.dtype == other.dtype and torch.equal(one, other), item.name


def assert_same_packets(got: RancNetwork, wanted: RancNetwork) -> None:
    assert [rows.tolist() for rows in got.packets] == [rows.tolist() for rows in wanted.packets]
