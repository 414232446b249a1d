"""Pictures of crossbars: what is drawn is read back from the SVG and compared with the matrix."""

import base64
import io
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from spokeshave.errors import InvalidArgument
from spokeshave.models import LeNet
from spokeshave.report.crossbar_pictures import bars_figure, tiles_figure
from spokeshave.rewrites.delete_connections import delete_connections
from spokeshave.structures.factorized_layer import FactorizedLayer
from spokeshave.structures.tiles import TileGrid, Tiling
from spokeshave.targets.crossbar.wires_and_area import price


def pieces(svg: ET.Element, kind: str) -> list[str]:
    """Outlines inside the paths of one class."""
    found = [path.get("d", "") for path in svg.iter("path") if path.get("class") == kind]
    return [piece for outline in found for piece in re.findall(r"M[^M]+", outline)]


def pixels(image: ET.Element) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(image.get("href", "").split(",")[1]))))


def test_wires_deleted_rows_and_weights_are_those_of_the_matrix():
    matrix = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))
    matrix[1:3] = 0  # two rows of the first tile, one stretch
    matrix[4:8, 2] = 0  # a column of the second
    matrix[8:] = 0  # all of the third, which is smaller
    figure = tiles_figure("fc", matrix, TileGrid(10, 3, 4, 3))
    assert figure.title == "fc: 11 of 19 wires left, in 2 of 3 crossbars of 4 x 3"
    svg = ET.fromstring(str(figure.chart))
    assert len(pieces(svg, "wire in")) == 2 + 4 and len(pieces(svg, "wire out")) == 3 + 2
    assert len(pieces(svg, "box")) == 2 and len(pieces(svg, "box empty")) == 1 and len(pieces(svg, "cut")) == 2
    images = list(svg.iter("image"))
    assert len(images) == 2
    for image, tile in zip(images, (matrix[:4], matrix[4:8]), strict=True):
        assert ((pixels(image)[..., 3] > 0) == (tile != 0).numpy()).all()
    hints = [title.text for title in svg.iter("title")]
    assert hints[1] == "inputs 5 to 8: 4 of 4 wires left; outputs 1 to 3: 2 of 3"
    assert hints[2] == "inputs 9 to 10: 0 of 2 wires left; outputs 1 to 3: 0 of 3"


@pytest.mark.parametrize("shape", [(1, 1), (500, 12), (36, 500), (64, 64), (300, 200), (70, 700), (1, 2000)])
def test_drawings_stay_inside_their_frame_and_tiles_do_not_overlap(shape):
    grid = TileGrid.of(*shape, (64, 64))
    svg = ET.fromstring(str(tiles_figure("layer", torch.ones(shape), grid).chart))
    width, height = map(float, svg.get("viewBox", "").split()[2:])
    assert width <= 930 and height <= 560
    boxes = []
    for piece in pieces(svg, "box"):
        x, y, wide, high = map(float, re.match(r"M(\S+) (\S+)h([\d.]+)v([\d.]+)", piece).groups())
        assert x >= 0 and y >= 0 and x + wide <= width and y + high <= height
        boxes.append((x, y, x + wide, y + high))
    assert len(boxes) == grid.rows * grid.columns
    for place, a in enumerate(boxes):
        assert all(a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1] for b in boxes[place + 1 :])


def test_a_matrix_of_many_tiles_is_drawn_tile_by_tile():
    matrix = torch.ones(64 * 40, 64 * 20 + 7)
    matrix[: 64 * 10, : 64 * 20] = 0
    figure = tiles_figure("fc", matrix, TileGrid(*matrix.shape, 64, 64))
    svg = ET.fromstring(str(figure.chart))
    (image,) = svg.iter("image")
    alpha = pixels(image)[..., 3]  # inputs lie flat: 21 rows of 40 squares
    side = alpha.shape[0] // 21
    assert alpha.shape == (21 * side, 40 * side) and "inputs run from left to right" in "".join(svg.itertext())
    assert (alpha[: 20 * side, : 10 * side] == 0).all()
    assert alpha[20 * side, 0] == 255 and alpha[0, 10 * side] == 255
    assert len(str(figure.chart)) < 20_000


def test_bars_hold_the_numbers_and_put_the_parts_of_a_factorized_layer_together():
    torch.manual_seed(0)
    dense, net = LeNet(), LeNet()
    net.ip1 = FactorizedLayer.of("ip1", net.ip1, 36)
    new, report = delete_connections(net, torch.randn(1, 1, 28, 28), keep=0.5, tiling=Tiling.DIVISOR)
    before = price(dense, tiling=Tiling.DIVISOR)
    words = "".join(ET.fromstring(str(bars_figure(before, report.after).chart)).itertext())
    assert "46,800 of 400 k: 11.7 %" in words  # 36 (800 + 500) cells
    parts = [layer for layer in report.after.layers if layer.name.startswith("ip1.")]
    assert len(parts) == 2
    wires = sum(layer.wires for layer in parts)
    assert f"{wires:,} of 16,000: {100 * wires / 16_000:.3g} %" in words
    svg = ET.fromstring(str(bars_figure(price(new, tiling=Tiling.DIVISOR), report.after).chart))
    shares = {float(bar.get("width", "")) for bar in svg.iter("rect") if bar.get("class") == "new"}
    assert shares == {248.0}
    grown = ET.fromstring(str(bars_figure(report.after, report.before).chart))
    assert any(bar.get("class") == "new over" for bar in grown.iter("rect"))


def test_bars_of_other_layers_are_refused_and_many_layers_are_cut_short():
    with pytest.raises(InvalidArgument, match="got 0"):
        bars_figure(price(nn.Linear(2, 2)), price(nn.Sequential(nn.Linear(2, 2))))
    deep = nn.Sequential(*(nn.Linear(8, 8 + place % 3) for place in range(30)))
    words = [text.text for text in ET.fromstring(str(bars_figure(price(deep), price(deep)).chart)).iter("text")]
    assert words.count("cells") == 1 + 24
