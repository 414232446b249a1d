"""Pictures of crossbars: every tile of a matrix with the wires that are left, and bars of area and wires.

A tile is drawn as its crossbar: inputs from top to bottom, outputs from left to right. Weights are dots, the more
opaque the larger; a deleted input is a grey row, a deleted output a grey column; a wire that is left is a stub at the
left edge (input) or at the lower edge (output). A row of many tiles is broken into lines. Matrices of too many tiles to
be drawn wire by wire are drawn tile by tile, the darker the more wires are left.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from markupsafe import Markup, escape
from torch import Tensor

from spokeshave.errors import InvalidArgument
from spokeshave.report.figures import Figure, LegendEntry
from spokeshave.report.weight_pictures import INK, opacities, png_uri
from spokeshave.structures.tiles import TileGrid
from spokeshave.structures.wires import LiveWires, live_wires
from spokeshave.targets.crossbar.wires_and_area import CrossbarCost, LayerCrossbars

_WIDTH_PX, _HEIGHT_PX = 900, 520
_GAP_PX, _STUB_PX = 14, 5
_CELLS_PX = (8.0, 6.0, 5.0, 4.0, 3.0, 2.5, 2.0, 1.5, 1.0)
"""Sides of a cell that are tried, the largest first."""
_BARS_WIDTH, _BAR_LEFT, _BAR_RIGHT, _BAR_PITCH = 480, 48, 296, 17
_MOST_LAYERS = 24


def tiles_figure(
    layer: str,
    matrix: Float[Tensor, "inputs outputs"],
    grid: TileGrid,
    used: Bool[Tensor, "inputs outputs"] | None = None,
) -> Figure:
    """Draw the crossbars of one matrix.

    Args:
        layer: its name.
        matrix: as crossbars hold it, one of `crossbar_matrices`.
        grid: how it is cut.
        used: cells that wires are needed for, where those are not the ones of weights that are not zero: a device may
            be stuck.

    Returns:
        The figure; its title says how many wires are left.

    Raises:
        InvalidArgument: for a matrix of another shape than the grid's.

    Example:
        >>> tiles_figure("fc", torch.eye(4), TileGrid.of(4, 4, (2, 2))).title
        'fc: 8 of 16 wires left, in 2 of 4 crossbars of 2 x 2'
    """
    wires = live_wires(matrix if used is None else used.to(matrix.dtype), grid)
    title = f"{layer}: {wires.count:,} of {grid.wires:,} wires left, in {wires.crossbars:,} of "
    title += f"{grid.rows * grid.columns:,} crossbars of {grid.tile_inputs} x {grid.tile_outputs}"
    cell, per_line = _layout(grid)
    if not cell:
        squares = LegendEntry("crossbar, the darker the more wires are left", mark="now")
        return Figure(title, _overview(title, wires, grid), (squares,))
    legend = (
        LegendEntry("input wire", mark="wires-in"),
        LegendEntry("output wire", mark="wires-out"),
        LegendEntry("deleted", mark="cut"),
    )
    return Figure(title, _drawing(title, matrix, grid, wires, cell, per_line), legend)


def bars_figure(before: CrossbarCost, after: CrossbarCost) -> Figure:
    """Draw what is left of each layer's cells, wires and squared wires.

    Args:
        before: such as of the dense network.
        after: such as of the factorized one with wires deleted; the parts of a factorized layer are put together. Wires
            of layers that fit one crossbar do not count.

    Returns:
        The figure, of the 24 layers with most cells before.

    Raises:
        InvalidArgument: where `after` has a layer that is no part of one of `before`.
    """
    parts = {layer.name: _parts(layer.name, after) for layer in before.layers}
    unknown = {layer.name for layer in after.layers} - {part.name for found in parts.values() for part in found}
    if unknown:
        raise InvalidArgument(f"expected the layers of before, or parts of them, got {', '.join(sorted(unknown))}")
    shown = sorted(before.layers, key=lambda layer: -layer.area_cells)[:_MOST_LAYERS]
    blocks = [(f"all {len(before.layers)} layers", _amounts(before.layers), _amounts(after.layers))]
    for layer in before.layers:
        if layer in shown:
            blocks.append((layer.name, _amounts((layer,)), _amounts(parts[layer.name])))
    y, drawn, spoken = 14.0, [], []
    for name, old, new in blocks:
        drawn.append(_text("mark-label", 0, y, name))
        for label, a, b in zip(("cells", "wires", "wires²"), old, new, strict=True):
            if not a and not b:
                continue
            y += _BAR_PITCH
            share = b / a if a else 1.0
            drawn.append(_bar(y, label, share, f"{_short(b)} of {_short(a)}: {100 * share:.3g} %"))
            spoken.append(f"{name}, {label}: {100 * share:.3g} %")
        y += 1.7 * _BAR_PITCH
    title = "Cells, wires and squared wires of the crossbars"
    legend = (LegendEntry("after", mark="now"), LegendEntry("before", mark="full"))
    chart = _svg(f"{title}. {'; '.join(spoken)}", drawn, _BARS_WIDTH, y - 1.7 * _BAR_PITCH + 8, "chart wide crossbars")
    return Figure(title, chart, legend)


def _layout(grid: TileGrid) -> tuple[float, int]:
    """Side of a cell in px and tiles in a line, so that the drawing fits; side 0 where it would not."""
    tiles = grid.rows * grid.columns
    strip = min(grid.rows, grid.columns) == 1
    for cell in _CELLS_PX:
        wide, high = grid.tile_outputs * cell + _GAP_PX, grid.tile_inputs * cell + _GAP_PX
        per_line = max(1, min(tiles, int(_WIDTH_PX // wide))) if strip else grid.columns
        lines = -(-tiles // per_line)
        if per_line * wide <= _WIDTH_PX and lines * high <= _HEIGHT_PX:
            return cell, -(-tiles // lines) if strip else per_line
    return 0.0, 0


@dataclass
class _Paths:
    """Outlines of everything of one kind, each one path of the drawing."""

    boxes: list[str]
    empty: list[str]
    cut: list[str]
    inputs: list[str]
    outputs: list[str]


def _drawing(title: str, matrix: Tensor, grid: TileGrid, wires: LiveWires, cell: float, per_line: int) -> Markup:
    strengths = opacities(matrix.detach().float().abs().nan_to_num(0.0).cpu().numpy())
    tiles = grid.cut(torch.from_numpy(strengths)).numpy().astype(np.uint8)
    wide, high = grid.tile_outputs * cell, grid.tile_inputs * cell
    lines = -(-grid.rows * grid.columns // per_line)
    paths = _Paths([], [], [], [], [])
    images, hints = [], []
    for number in range(grid.rows * grid.columns):
        row, column = divmod(number, grid.columns)
        x = _STUB_PX + (number % per_line) * (wide + _GAP_PX)
        y = (number // per_line) * (high + _GAP_PX) + 1
        inputs = min(grid.tile_inputs, grid.inputs - row * grid.tile_inputs)
        outputs = min(grid.tile_outputs, grid.outputs - column * grid.tile_outputs)
        rows, columns = wires.rows[row, column, :inputs], wires.columns[row, column, :outputs]
        box = _rectangle(x, y, outputs * cell, inputs * cell)
        hints.append(_hint(box, grid, row, column, rows, columns))
        if not rows.any():
            paths.empty.append(box)
            continue
        paths.boxes.append(box)
        for start, length in _runs(~rows):
            paths.cut.append(_rectangle(x, y + start * cell, outputs * cell, length * cell))
        for start, length in _runs(~columns):
            paths.cut.append(_rectangle(x + start * cell, y, length * cell, inputs * cell))
        paths.inputs += [f"M{x - _STUB_PX:.4g} {y + (i + 0.5) * cell:.5g}h{_STUB_PX}" for i in _places(rows)]
        below = y + inputs * cell
        paths.outputs += [f"M{x + (i + 0.5) * cell:.5g} {below:.5g}v{_STUB_PX}" for i in _places(columns)]
        picture = np.zeros((inputs, outputs, 4), dtype=np.uint8)
        picture[..., :3] = INK
        picture[..., 3] = tiles[row, column, :inputs, :outputs]
        size = f'width="{outputs * cell:g}" height="{inputs * cell:g}" preserveAspectRatio="none"'
        images.append(f'<image x="{x:.5g}" y="{y:.5g}" {size} href="{png_uri(picture)}"/>')
    thin = f' style="stroke-width:{min(1.2, 0.6 * cell):.2g}"'
    parts = [_path("cut", paths.cut), *images, _path("wire in", paths.inputs, thin)]
    parts += [_path("wire out", paths.outputs, thin), _path("box", paths.boxes), _path("box empty", paths.empty)]
    width = _STUB_PX + per_line * (wide + _GAP_PX) - _GAP_PX + 1
    height = lines * (high + _GAP_PX) - _GAP_PX + _STUB_PX + 2
    return _svg(title, [*parts, *hints], width, height, "chart crossbars", natural=True)


def _overview(title: str, wires: LiveWires, grid: TileGrid) -> Markup:
    """One square for each tile, of the opacity of its share of wires; the longer side of the matrix lies flat."""
    inputs = (grid.inputs - torch.arange(grid.rows) * grid.tile_inputs).clamp(max=grid.tile_inputs)
    outputs = (grid.outputs - torch.arange(grid.columns) * grid.tile_outputs).clamp(max=grid.tile_outputs)
    left = (wires.rows.sum(-1) + wires.columns.sum(-1)).cpu()
    shares = (left / (inputs[:, None] + outputs)).numpy()
    shares = shares.T if grid.rows > grid.columns else shares
    side = int(max(1, min(40, _WIDTH_PX // shares.shape[1], _HEIGHT_PX // shares.shape[0])))
    gap = 1 if side >= 4 else 0
    block = np.ones((side, side))
    block[side - gap :, :] = 0
    block[:, side - gap :] = 0
    alpha = np.kron(np.where(shares > 0, 30 + 225 * shares, 0), block)
    height, width = len(alpha), len(alpha[0])
    picture = np.zeros((height, width, 4), dtype=np.uint8)
    picture[..., :3] = INK
    picture[..., 3] = alpha
    flat = "inputs" if grid.rows > grid.columns else "outputs"
    note = f"one square a crossbar; {flat} run from left to right"
    image = f'<image x="0" y="0" width="{width}" height="{height}" href="{png_uri(picture)}"/>'
    frame = f'<path class="box" d="{_rectangle(0.5, 0.5, width, height)}"/>'
    parts = [image, frame, _text("tick", 0, height + 16, note)]
    return _svg(title, parts, max(width + 1, 300), height + 22, "chart crossbars", natural=True)


def _parts(name: str, cost: CrossbarCost) -> tuple[LayerCrossbars, ...]:
    return tuple(layer for layer in cost.layers if layer.name == name or layer.name.startswith(f"{name}."))


def _amounts(layers: Sequence[LayerCrossbars]) -> tuple[int, int, int]:
    """Cells, wires and squared wires; the latter two of routed layers only."""
    routed = [layer for layer in layers if not layer.single]
    wires, squares = sum(layer.wires for layer in routed), sum(layer.routing_area for layer in routed)
    return sum(layer.area_cells for layer in layers), wires, squares


def _bar(y: float, label: str, share: float, words: str) -> str:
    full = _BAR_RIGHT - _BAR_LEFT
    over = " over" if share > 1 else ""
    return (
        _text("tick", _BAR_LEFT - 6, y, label, "end")
        + f'<rect class="old" x="{_BAR_LEFT}" y="{y - 9:.1f}" width="{full}" height="10"/>'
        + f'<rect class="new{over}" x="{_BAR_LEFT}" y="{y - 9:.1f}" width="{full * min(share, 1):.1f}" height="10"/>'
        + _text("tick", _BAR_RIGHT + 8, y, words)
    )


def _short(number: int) -> str:
    for size, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= max(size, 1e5):
            return f"{number / size:.3g} {prefix}"
    return f"{number:,}"


def _places(marks: Bool[Tensor, " n"]) -> list[int]:
    return marks.nonzero().flatten().tolist()


def _runs(marks: Bool[Tensor, " n"]) -> list[tuple[int, int]]:
    """Start and length of every stretch of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], marks.cpu().numpy().astype(np.int8), [0]])))
    return [(int(start), int(end - start)) for start, end in zip(edges[::2], edges[1::2], strict=True)]


def _rectangle(x: float, y: float, wide: float, high: float) -> str:
    return f"M{x:.5g} {y:.5g}h{wide:.5g}v{high:.5g}h{-wide:.5g}z"


def _hint(box: str, grid: TileGrid, row: int, column: int, rows: Tensor, columns: Tensor) -> str:
    first = row * grid.tile_inputs + 1, column * grid.tile_outputs + 1
    words = f"inputs {first[0]:,} to {first[0] + len(rows) - 1:,}: {int(rows.sum())} of {len(rows)} wires left; "
    words += f"outputs {first[1]:,} to {first[1] + len(columns) - 1:,}: {int(columns.sum())} of {len(columns)}"
    return f'<path class="hit" d="{box}"><title>{words}</title></path>'


def _path(kind: str, pieces: Sequence[str], style: str = "") -> str:
    return f'<path class="{kind}"{style} d="{"".join(pieces)}"/>' if pieces else ""


def _text(kind: str, x: float, y: float, words: str, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _svg(spoken: str, parts: Sequence[str], width: float, height: float, kind: str, natural: bool = False) -> Markup:
    """`natural` keeps the drawing from growing beyond one px a unit, so that small layers stay small."""
    limit = f' style="max-width:{width:.0f}px"' if natural else ""
    frame = (
        f'<svg class="{kind}"{limit} viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(spoken)}">'
    )
    return Markup(frame + "".join(parts) + "</svg>")
