"""Weight pictures: zeros stay blank, dead rows and columns are ticked, however large the matrix."""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from spokeshave.report.weight_pictures import WeightPicture, draw_weights

MARGIN = 7


def pixels(picture: WeightPicture) -> np.ndarray:
    header, data = picture.data_uri.split(",")
    assert header == "data:image/png;base64"
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert image.size == (picture.width_px, picture.height_px)
    return np.asarray(image)


def test_zeros_are_transparent_and_weights_are_not() -> None:
    matrix = torch.tensor([[0.0, 1.0, -2.0], [0.0, 0.0, 0.0], [0.0, 1e-6, 0.0]])
    picture = draw_weights("a", matrix)
    alpha = pixels(picture)[MARGIN:, MARGIN:, 3]
    zoom = alpha.shape[0] // 3
    cells = alpha.reshape(3, zoom, 3, zoom)
    assert (cells.min(axis=(1, 3)) == cells.max(axis=(1, 3))).all()
    assert ((cells[:, 0, :, 0] > 0) == (matrix != 0).numpy()).all()
    assert cells[0, 0, 2, 0] > cells[0, 0, 1, 0] > cells[2, 0, 1, 0] > 50
    assert (picture.dead_rows, picture.dead_columns, picture.rows, picture.columns) == (1, 1, 3, 3)
    assert picture.zeros == pytest.approx(6 / 9)
    assert picture.kept_share == pytest.approx(4 / 9)


def test_margins_tick_dead_rows_and_columns() -> None:
    matrix = torch.ones(4, 6)
    matrix[1] = 0
    matrix[:, 5] = 0
    image = pixels(draw_weights("a", matrix))
    zoom = (image.shape[0] - MARGIN) // 4
    rows = image[MARGIN::zoom, 0, 3]
    columns = image[0, MARGIN::zoom, 3]
    assert rows.tolist() == [0, 255, 0, 0]
    assert columns.tolist() == [0, 0, 0, 0, 0, 255]


def test_large_matrices_are_averaged_and_stay_small() -> None:
    matrix = torch.randn(1000, 4000)
    matrix[:500] = 0
    picture = draw_weights("fc", matrix)
    image = pixels(picture)
    assert max(image.shape) <= 1000 and picture.weights_per_dot == 25
    assert (picture.dead_rows, picture.dead_columns) == (500, 0)
    assert (image[MARGIN : MARGIN + 100, MARGIN:, 3] == 0).all()
    assert (image[MARGIN + 101 :, MARGIN:, 3] > 0).all()
    assert len(picture.data_uri) < 600_000


@pytest.mark.parametrize("matrix", [torch.zeros(3, 4), torch.ones(1, 1), torch.full((2, 2), torch.nan)])
def test_odd_matrices(matrix: torch.Tensor) -> None:
    picture = draw_weights("a", matrix)
    assert pixels(picture).shape[2] == 4
    assert 0 <= picture.kept_share <= 1
