"""Pictures of neurosynaptic cores at their places: what each sends, to whom, and how full the mesh between them is.

A core is a square, its colour the layer's, the deeper the more spikes it sends. Of one copy every pair of cores that
spikes go between is an arc; of many copies the links of the mesh are drawn, with the edges between copies. Widths are
spikes an image.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from spokeshave.report.core_traffic import CoreTraffic, mean_hops, mesh_load, places_of
from spokeshave.report.figures import Figure, LegendEntry
from spokeshave.report.svg_parts import svg_drawing, svg_number
from spokeshave.targets.truenorth.core_grid import NOWHERE, CoreGrid
from spokeshave.targets.truenorth.layers_to_cores import MappedCores

_WIDTH_PX, _HEIGHT_PX = 900.0, 900.0
_LARGEST_PX, _NUMBERS_PX = 54.0, 34.0
"""Distance between cores at most, and from which on numbers have room."""
_FILLED = 0.66
"""Side of a core's square, of the distance between cores."""
_MOST_HINTS = 600
"""Cores that are drawn one by one, with words for a pointer; of more, squares of one look are one path."""
_LEVELS = 12
_BEND = 0.16
"""How far an arc leaves the straight line, of its length: ways there and back, and in line, can be told apart."""


def copy_figure(mapped: MappedCores, traffic: CoreTraffic) -> Figure:
    """Draw one copy with an arc from every core to those that it sends to.

    Args:
        mapped: of one copy.
        traffic: between its cores.
    """
    grid, pitch = mapped.grid, _pitch(mapped.grid)
    places = places_of(grid)
    most = max(1e-12, float(traffic.spikes.max())) if len(traffic.spikes) else 1.0
    widest, arcs = min(7.0, pitch / 6), defaultdict(list)
    for sender, receiver, spikes in zip(*_listed(traffic), strict=True):
        ends = [_centre(places[core], pitch) for core in (sender, receiver)]
        arcs[_level(spikes / most), int(mapped.layer[sender])].append(_arc(*ends))
    drawn = [
        f'<path class="arc" style="{_tone(mapped, layer)};stroke-width:{_width(level, widest)}" d="{"".join(paths)}"/>'
        for (level, layer), paths in sorted(arcs.items())
    ]
    bus, *cores = _squares(mapped, traffic, pitch)
    parts = [*cores, *drawn, bus, *_numbers(grid, traffic, pitch)]
    title = f"One copy, {_counted(grid.cores, 'core')}: who sends to whom"
    legend = (*_layers(mapped), LegendEntry(f"widest: {_short(most)} spikes an image", mark="way"))
    return _figure(title, mapped, traffic, parts, pitch, legend)


def chip_figure(mapped: MappedCores, traffic: CoreTraffic) -> Figure:
    """Draw all copies, the edges between them, and the load of the links between neighbouring places.

    Args:
        mapped: of any number of copies.
        traffic: between its cores.
    """
    grid, pitch = mapped.grid, _pitch(mapped.grid)
    load = mesh_load(grid, traffic)
    most = max(float(load.along_x.max()) if load.along_x.numel() else 0.0, float(load.along_y.max()), 1e-12)
    links = defaultdict(list)
    for loads, step in ((load.along_x, "h"), (load.along_y, "v")):
        for y, x in loads.nonzero().tolist():
            across, down = _centre((x, y), pitch)
            links[_level(float(loads[y, x]) / most)].append(f"M{across:.4g} {down:.4g}{step}{pitch:.4g}")
    drawn = [
        f'<path class="mesh" style="stroke-width:{_width(level, 0.6 * pitch)}" d="{"".join(paths)}"/>'
        for level, paths in sorted(links.items())
    ]
    edges = f'<path class="copy-edge" d="{"".join(_edges(mapped, pitch))}"/>'
    parts = [*drawn, *_squares(mapped, traffic, pitch), edges, *_numbers(grid, traffic, pitch)]
    copies = f"{mapped.copies:,} copies" if mapped.copies > 1 else "One copy"
    legend = [
        *_layers(mapped),
        LegendEntry(f"link between neighbours, widest: {_short(most)} spikes an image", mark="way"),
    ]
    legend += [LegendEntry("edge between copies", mark="copies")] * (mapped.copies > 1)
    return _figure(f"{copies}, {_counted(grid.cores, 'core')}: load of the mesh", mapped, traffic, parts, pitch, legend)


def _figure(
    title: str, mapped: MappedCores, traffic: CoreTraffic, parts: Sequence[str], pitch: float,
    legend: Iterable[LegendEntry],
) -> Figure:  # fmt: skip
    grid, sent, layers = mapped.grid, traffic.sent, mapped.layer.repeat(mapped.copies)
    said = [
        f"layer {layer + 1}: {_counted(int((layers == layer).sum()), 'core')}, "
        f"{_short(float(sent[layers == layer].mean()))} spikes an image each"
        for layer in range(int(layers.max()) + 1)
    ]
    said.append(f"{mean_hops(grid, traffic):.1f} links a spike")
    width, height = grid.width * pitch, grid.height * pitch
    spoken = f"{title}. {'; '.join(said)}"
    return Figure(title, svg_drawing("chart cores", spoken, parts, width, height, width), tuple(legend))


def _squares(mapped: MappedCores, traffic: CoreTraffic, pitch: float) -> list[str]:
    """The output bus, then the cores."""
    sent, cores = traffic.sent, len(mapped.layer)
    most = max(1e-12, float(sent.max()))
    side = _FILLED * pitch
    bus = mapped.grid.output
    assert bus is not None
    corners = (places_of(mapped.grid).double() + 0.5) * pitch - side / 2
    out = f'x="{corners[-1, 0]:.1f}" y="{corners[-1, 1]:.1f}" width="{side:.1f}" height="{side:.1f}"'
    received = float(traffic.spikes[traffic.receiver == traffic.cores].sum())
    words = f"output bus, {bus.lines:,} lines: {_short(received)} spikes an image"
    drawn = [f'<rect class="bus" {out}><title>{words}</title></rect>']
    if mapped.grid.cores <= _MOST_HINTS:
        for core, (x, y) in enumerate(corners[:-1].tolist()):
            copy, layer = core // cores + 1, int(mapped.layer[core % cores])
            words = f"core {core}, copy {copy}, layer {layer + 1}: {_short(float(sent[core]))} spikes an image"
            style = f"{_tone(mapped, layer)};--depth:{float(sent[core]) / most:.2f}"
            box = f'x="{x:.1f}" y="{y:.1f}" width="{side:.1f}" height="{side:.1f}"'
            drawn.append(f'<rect class="core" style="{style}" {box}><title>{words}</title></rect>')
        return drawn
    looks = defaultdict(list)
    for core, (x, y) in enumerate(corners[:-1].tolist()):
        looks[int(mapped.layer[core % cores]), _level(float(sent[core]) / most)].append(
            f"M{x:.4g} {y:.4g}h{side:.3g}v{side:.3g}h{-side:.3g}z"
        )
    return drawn + [
        f'<path class="core small" style="{_tone(mapped, layer)};--depth:{level / _LEVELS:.2f}" d="{"".join(paths)}"/>'
        for (layer, level), paths in sorted(looks.items())
    ]


def _numbers(grid: CoreGrid, traffic: CoreTraffic, pitch: float) -> list[str]:
    if pitch < _NUMBERS_PX:
        return []
    sent = traffic.sent
    most = max(1e-12, float(sent.max()))
    drawn = []
    for place, spikes in zip(places_of(grid), [*sent.tolist(), None], strict=True):
        x, y = _centre(place, pitch)
        drawn.append(svg_number(x, y + 4, "out" if spikes is None else _short(spikes), (spikes or 0) / most))
    return drawn


def _edges(mapped: MappedCores, pitch: float) -> list[str]:
    """Lines between neighbouring cores of different copies."""
    places = mapped.grid.places()
    copy = torch.where(places == NOWHERE, NOWHERE, places // len(mapped.layer))
    beside = (copy[:, 1:] != copy[:, :-1]) & (copy[:, 1:] != NOWHERE) & (copy[:, :-1] != NOWHERE)
    below = (copy[1:] != copy[:-1]) & (copy[1:] != NOWHERE) & (copy[:-1] != NOWHERE)
    drawn = [f"M{(x + 1) * pitch:.4g} {y * pitch:.4g}v{pitch:.4g}" for y, x in beside.nonzero().tolist()]
    return drawn + [f"M{x * pitch:.4g} {(y + 1) * pitch:.4g}h{pitch:.4g}" for y, x in below.nonzero().tolist()]


def _pitch(grid: CoreGrid) -> float:
    return min(_LARGEST_PX, _WIDTH_PX / grid.width, _HEIGHT_PX / grid.height)


def _centre(place: Tensor | tuple[int, int], pitch: float) -> tuple[float, float]:
    return (int(place[0]) + 0.5) * pitch, (int(place[1]) + 0.5) * pitch


def _arc(start: tuple[float, float], end: tuple[float, float]) -> str:
    (x0, y0), (x1, y1) = start, end
    bend = (x0 + x1) / 2 - _BEND * (y1 - y0), (y0 + y1) / 2 + _BEND * (x1 - x0)
    return f"M{x0:.4g} {y0:.4g}Q{bend[0]:.4g} {bend[1]:.4g} {x1:.4g} {y1:.4g}"


def _listed(traffic: CoreTraffic) -> tuple[list[int], list[int], list[float]]:
    return traffic.sender.tolist(), traffic.receiver.tolist(), traffic.spikes.tolist()


def _level(share: float) -> int:
    """1 up to the number of levels."""
    return max(1, min(_LEVELS, round(share * _LEVELS + 0.499)))


def _width(level: int, widest: float) -> str:
    return f"{max(0.5, widest * level / _LEVELS):.2g}"


def _tone(mapped: MappedCores, layer: int) -> str:
    return f"--tone:{layer / max(1, int(mapped.layer.max())):.2f}"


def _layers(mapped: MappedCores) -> tuple[LegendEntry, ...]:
    last = int(mapped.layer.max())
    return tuple(LegendEntry(f"layer {layer + 1}", layer / max(1, last), mark="layer") for layer in range(last + 1))


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _short(spikes: float) -> str:
    """A number of at most five characters.

    Example:
        >>> _short(0.25), _short(31.4), _short(12345)
        ('0.2', '31', '12k')
    """
    for size, prefix in ((1e6, "M"), (1e3, "k")):
        if spikes >= 0.9995 * size:
            return f"{spikes / size:.1f}{prefix}" if spikes < 9.95 * size else f"{spikes / size:.0f}{prefix}"
    return f"{spikes:.1f}" if 0 < spikes < 9.95 else f"{spikes:.0f}"
