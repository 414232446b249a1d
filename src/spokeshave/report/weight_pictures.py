"""Pictures of weight matrices in which zero rows and zero columns show: PNGs that travel inside the page.

Nonzero weights are dots of one colour, the more opaque the larger; zeros are transparent, so they take the page's own
background, light or dark. Ticks in the margins mark rows and columns that are zero throughout.
"""

import base64
import io
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

INK = (38, 138, 115)
_DEAD = (201, 122, 44)
_LONGEST_PX = 900
_SHORTEST_DOT_SIDE = 320
_LEVELS = 14
_MARGIN_PX = 7
_TICK_PX = 4


@dataclass(frozen=True)
class WeightPicture:
    """A picture of a layer's lowered weight matrix, and what it shows in numbers."""

    layer: str
    rows: int
    columns: int
    dead_rows: int
    dead_columns: int
    zeros: float
    width_px: int
    height_px: int
    weights_per_dot: int
    data_uri: str

    @property
    def kept_share(self) -> float:
        """Share of the matrix that is left once its zero rows and columns are gone."""
        return (self.rows - self.dead_rows) * (self.columns - self.dead_columns) / (self.rows * self.columns)


def draw_weights(layer: str, matrix: Float[Tensor, "rows columns"]) -> WeightPicture:
    """Draw one matrix.

    Args:
        layer: its name.
        matrix: filters x (channels x height x width), or outputs x inputs.

    Returns:
        The picture.

    Example:
        >>> import torch
        >>> picture = draw_weights("conv1", torch.tensor([[1.0, 0.0, 2.0], [0.0, 0.0, 0.0]]))
        >>> picture.dead_rows, picture.dead_columns, round(picture.kept_share, 3)
        (1, 1, 0.333)
    """
    weights = matrix.detach().float().abs().nan_to_num(0.0).cpu().numpy()
    rows, columns = weights.shape
    pool = int(np.ceil(max(rows, columns) / _LONGEST_PX))
    dots = _pooled(opacities(weights), pool)
    zoom = max(1, min(_SHORTEST_DOT_SIDE // max(dots.shape), 16))
    alpha = np.kron(dots, np.ones((zoom, zoom), dtype=np.uint8)).astype(np.uint8)
    dead_rows, dead_columns = weights.max(axis=1) == 0, weights.max(axis=0) == 0
    picture = np.zeros((alpha.shape[0] + _MARGIN_PX, alpha.shape[1] + _MARGIN_PX, 4), dtype=np.uint8)
    picture[..., :3] = INK
    picture[_MARGIN_PX:, _MARGIN_PX:, 3] = alpha
    _tick(picture[_MARGIN_PX:, :_TICK_PX], _pooled_marks(dead_rows, pool).repeat(zoom))
    _tick(picture[:_TICK_PX, _MARGIN_PX:].swapaxes(0, 1), _pooled_marks(dead_columns, pool).repeat(zoom))
    uri = png_uri(picture)
    height_px, width_px = picture.shape[:2]
    zeros = float((weights == 0).mean())
    return WeightPicture(
        layer,
        rows,
        columns,
        int(dead_rows.sum()),
        int(dead_columns.sum()),
        zeros,
        width_px,
        height_px,
        pool * pool,
        uri,
    )


def png_uri(picture: UInt8[np.ndarray, "rows columns 4"]) -> str:
    """A picture (red, green, blue, opacity) as a PNG in a data URI."""
    buffer = io.BytesIO()
    Image.fromarray(picture, "RGBA").save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def opacities(weights: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, "rows columns"]:
    """Turn magnitudes into opacity 0..255: zero stays 0, every other weight is visible."""
    nonzero = weights[weights > 0]
    top = float(np.quantile(nonzero, 0.98)) if nonzero.size else 1.0
    level = np.ceil(np.clip(weights / top, 0, 1) * _LEVELS) / _LEVELS
    return np.where(weights > 0, 60 + 195 * level, 0).astype(np.float32)


def _pooled(values: np.ndarray, pool: int) -> UInt8[np.ndarray, "rows columns"]:
    """Average squares of pool x pool weights, edges included."""
    if pool > 1:
        rows, columns = (int(np.ceil(side / pool)) * pool for side in values.shape)
        padded = np.pad(values, ((0, rows - values.shape[0]), (0, columns - values.shape[1])), mode="edge")
        values = padded.reshape(rows // pool, pool, columns // pool, pool).mean(axis=(1, 3))
        values = np.ceil(values / 255 * _LEVELS) / _LEVELS * 255
    return values.astype(np.uint8)


def _pooled_marks(dead: np.ndarray, pool: int) -> np.ndarray:
    """Share of dead rows in each group of `pool`."""
    padded = np.pad(dead.astype(np.float32), (0, -len(dead) % pool), mode="edge")
    return padded.reshape(-1, pool).mean(axis=1)


def _tick(strip: np.ndarray, dead: np.ndarray) -> None:
    """Paint ticks into the first axis of a strip of the picture where rows are dead."""
    strip[..., :3] = _DEAD
    strip[..., 3] = (255 * dead).astype(np.uint8)[:, None]
