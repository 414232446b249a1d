"""Pictures of cores: what is drawn is read back from the SVG and compared with places and counts."""

import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
import torch

from spokeshave.report.core_pictures import chip_figure, copy_figure
from spokeshave.report.core_traffic import CoreTraffic, count_traffic, mesh_load
from spokeshave.report.figures import Figure
from spokeshave.targets.truenorth.deployed_network import TrueNorth
from spokeshave.targets.truenorth.layers_to_cores import MappedCores
from tea_cases import one_core_tea, small_tea


def drawn(copies: int = 1) -> tuple[MappedCores, CoreTraffic]:
    deployed = TrueNorth(copies, 4, seed=2).map(small_tea())
    return deployed.mapped, count_traffic(deployed, torch.rand(6, 36))


def parsed(figure: Figure) -> ET.Element:
    return ET.fromstring(str(figure.chart))


def style(item: ET.Element, name: str) -> float:
    return float(dict(part.split(":") for part in item.get("style", "").split(";"))[name])


def centres(svg: ET.Element, kind: str) -> list[tuple[float, float]]:
    numbers = [
        [float(box.get(side, "")) for side in ("x", "y", "width")]
        for box in svg.iter("rect")
        if box.get("class") == kind
    ]
    return [(x + side / 2, y + side / 2) for x, y, side in numbers]


@pytest.mark.parametrize("draw", [copy_figure, chip_figure])
def test_every_core_is_at_its_place_in_its_layer_s_colour_and_as_deep_as_it_sends(draw) -> None:
    mapped, traffic = drawn()
    svg = parsed(draw(mapped, traffic))
    places = [(54 * (x + 0.5), 54 * (y + 0.5)) for x, y in mapped.grid.coordinates.tolist()]
    torch.testing.assert_close(torch.tensor(centres(svg, "core")), torch.tensor(places), atol=0.11, rtol=0)
    assert mapped.grid.output is not None
    bus = 54 * (mapped.grid.output.x + 0.5), 54 * (mapped.grid.output.y + 0.5)
    torch.testing.assert_close(torch.tensor(centres(svg, "bus")), torch.tensor([bus]), atol=0.11, rtol=0)
    cores = [box for box in svg.iter("rect") if box.get("class") == "core"]
    assert [style(core, "--tone") for core in cores] == [0, 0, 0, 0, 1, 1]
    sent = torch.zeros(6, dtype=torch.float64)
    for sender, spikes in zip(traffic.sender.tolist(), traffic.spikes.tolist(), strict=True):
        sent[sender] += spikes
    assert [style(core, "--depth") for core in cores] == pytest.approx((sent / sent.max()).tolist(), abs=0.006)
    assert cores[4][0].text == f"core 4, copy 1, layer 2: {sent[4]:.0f} spikes an image"
    texts = [text.text for text in svg.iter("text")]
    assert texts == [f"{spikes:.{int(spikes < 9.95)}f}" for spikes in sent.tolist()] + ["out"]


def test_arcs_lead_from_senders_to_receivers_the_wider_the_more_spikes() -> None:
    mapped, traffic = drawn()
    svg = parsed(copy_figure(mapped, traffic))
    places = [*mapped.grid.coordinates.tolist(), [mapped.grid.output.x, mapped.grid.output.y]]  # type: ignore[union-attr]
    wanted = {}
    for sender, receiver, spikes in zip(
        traffic.sender.tolist(), traffic.receiver.tolist(), traffic.spikes.tolist(), strict=True
    ):
        wanted[sender, receiver] = spikes / float(traffic.spikes.max())
    assert set(wanted) == {(0, 4), (1, 4), (2, 5), (3, 5), (4, 6), (5, 6)}
    found = {}
    for path in svg.iter("path"):
        assert path.get("class") == "arc"
        for arc in re.findall(r"M([\d.]+) ([\d.]+)Q[-\d.]+ [-\d.]+ ([\d.]+) ([\d.]+)", path.get("d", "")):
            x0, y0, x1, y1 = (int(float(number) // 54) for number in arc)
            pair = places.index([x0, y0]), places.index([x1, y1])
            found[pair] = style(path, "stroke-width")
            assert style(path, "--tone") == (pair[0] >= 4)
    assert set(found) == set(wanted)
    for pair, width in found.items():  # in twelve steps up to seven px
        assert width == pytest.approx(7 * wanted[pair], abs=7 / 12 + 0.06)
    assert max(found.values()) == 7


@pytest.mark.parametrize("copies", [1, 3, 11])
def test_links_of_the_mesh_are_as_wide_as_their_load(copies: int) -> None:
    mapped, traffic = drawn(copies)
    svg, load = parsed(chip_figure(mapped, traffic)), mesh_load(mapped.grid, traffic)
    most, pitch, found = float(max(load.along_x.max(), load.along_y.max())), 54.0, {}
    for path in svg.iter("path"):
        if path.get("class") == "mesh":
            for x, y, step in re.findall(r"M([\d.]+) ([\d.]+)([hv])", path.get("d", "")):
                found[step, int(float(y) // pitch), int(float(x) // pitch)] = style(path, "stroke-width")
    loads = {("h", *place): float(load.along_x[*place]) for place in load.along_x.nonzero().tolist()}
    loads |= {("v", *place): float(load.along_y[*place]) for place in load.along_y.nonzero().tolist()}
    assert set(found) == set(loads) and max(found.values()) == pytest.approx(0.6 * pitch, abs=0.5)
    for place, width in found.items():
        assert width == pytest.approx(0.6 * pitch * loads[place] / most, abs=0.6 * pitch / 12 + 0.5)


@pytest.mark.parametrize("copies", [1, 2, 7])
def test_edges_part_neighbours_of_different_copies(copies: int) -> None:
    mapped, traffic = drawn(copies)
    (edges,) = [
        path.get("d", "")
        for path in parsed(chip_figure(mapped, traffic)).iter("path")
        if path.get("class") == "copy-edge"
    ]
    copy = {tuple(place): core // 6 for core, place in enumerate(mapped.grid.coordinates.tolist())}
    wanted = set()
    for (x, y), one in copy.items():
        if copy.get((x + 1, y), one) != one:
            wanted.add(("v", x + 1, y))
        if copy.get((x, y + 1), one) != one:
            wanted.add(("h", x, y + 1))
    found = {
        (step, round(float(x) / 54), round(float(y) / 54))
        for x, y, step in re.findall(r"M([\d.]+) ([\d.]+)([hv])", edges)
    }
    assert found == wanted and (len(wanted) > 0) == (copies > 1)


def test_a_whole_chip_stays_small_and_every_core_is_drawn() -> None:
    mapped = TrueNorth(4096, 1).map(one_core_tea()).mapped
    core = torch.arange(4096)
    spikes = torch.linspace(0.1, 99, 4096, dtype=torch.float64)
    figure = chip_figure(mapped, CoreTraffic(4096, core, torch.full_like(core, 4096), spikes, 1))
    svg = parsed(figure)
    assert len(str(figure.chart)) < 500_000 and not list(svg.iter("text"))
    squares = [path for path in svg.iter("path") if path.get("class") == "core small"]
    assert sum(path.get("d", "").count("M") for path in squares) == 4096
    assert len({path.get("style") for path in squares}) == len(squares) == 12
    assert figure.title == "4,096 copies, 4,096 cores: load of the mesh"
    width, height = map(float, svg.get("viewBox", "").split()[2:])
    assert width <= 900 and height <= 900


def test_words_count_layers_and_what_they_send() -> None:
    mapped, traffic = drawn(3)
    figure = chip_figure(mapped, traffic)
    label = parsed(figure).get("aria-label", "")
    each = float(traffic.sent.view(3, 6)[:, 4:].mean())
    assert label.startswith("3 copies, 18 cores: load of the mesh. layer 1: 12 cores, ")
    assert f"layer 2: 6 cores, {each:.0f} spikes an image each; " in label
    assert [entry.label for entry in figure.legend][:2] == ["layer 1", "layer 2"]
    assert figure.legend[-1].label == "edge between copies"
    assert [entry.mark for entry in copy_figure(*drawn()).legend] == ["layer", "layer", "way"]


def test_cores_that_send_nothing_are_drawn() -> None:
    mapped, traffic = drawn()
    none = torch.zeros(0, dtype=torch.int64)
    silent = replace(traffic, sender=none, receiver=none, spikes=torch.zeros(0, dtype=torch.float64))
    for draw in (copy_figure, chip_figure):
        svg = parsed(draw(mapped, silent))
        assert len(centres(svg, "core")) == 6 and "nan" not in ET.tostring(svg, "unicode")
