"""Sparse AlexNet (CaffeNet) convolutions that the papers' authors trained and published with SkimCaffe (BSD-2-clause).

`ssl_0.54214` is the row- and column-sparse network of Wen et al., NIPS 2016, Table 4 #2, before fine-tuning (top-1
0.54214); `l1_0.56256` is an l1-pruned one (top-1 0.56256). Each layer is a CSR matrix of the lowered weights: a row is
an output channel, a column an (input channel of the group, kernel row, kernel column).
"""

import hashlib
import json
from dataclasses import dataclass, fields
from enum import StrEnum
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from spokeshave.data.data_folders import data_folders
from spokeshave.errors import DataError

FOLDER = "skimcaffe-alexnet"
_AGAIN = "copy it again from its source"


class PublishedWeights(StrEnum):
    """The sets of weights that can be loaded."""

    SSL = "ssl_0.54214"
    L1 = "l1_0.56256"


@dataclass(frozen=True)
class Geometry:
    """Where a convolution stands in AlexNet.

    Args:
        in_channels: of its input.
        out_channels: of its output.
        kernel: side of the square kernel in pixels.
        stride: in pixels.
        padding: zeros on each side, in pixels.
        groups: into which its channels fall.
        input_pixels: side of its square input.
    """

    in_channels: int
    out_channels: int
    kernel: int
    stride: int
    padding: int
    groups: int
    input_pixels: int

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """(filters, channels of a group, kernel rows, kernel columns)."""
        return self.out_channels, self.in_channels // self.groups, self.kernel, self.kernel


@dataclass(frozen=True, eq=False)
class PublishedConvolution:
    """One layer: dense weights with their zeros, and the layer's geometry."""

    weight: Float[Tensor, "n c kh kw"]
    geometry: Geometry


def load_alexnet_convolutions(
    data_dir: Path | str | None = None, which: PublishedWeights | str = PublishedWeights.SSL
) -> dict[str, PublishedConvolution]:
    """Load conv1 to conv5.

    Args:
        data_dir: holds skimcaffe-alexnet/; else SPOKESHAVE_DATA and the user's cache are searched.
        which: of the published networks.

    Returns:
        Layer name -> weights and geometry, in the order of the network.

    Raises:
        DataError: where the files are missing, damaged or not those published (their sha256 is checked).
    """
    try:
        name = PublishedWeights(which).value
    except ValueError:
        raise DataError(f"which must be one of {', '.join(PublishedWeights)}, got {which!r}") from None
    searched = []
    for root in data_folders(data_dir):
        folder = root / FOLDER / name
        if (folder / "layers.json").is_file():
            return {layer: _read_layer(folder / f"{layer}.npz", entry) for layer, entry in _layers(folder).items()}
        searched.append(str(root))
    raise DataError(
        f"{FOLDER}/{name}/layers.json is not in {', '.join(searched)}; it cannot be downloaded: give the folder that "
        "holds it as --data-dir (data_dir in Python) or in the environment variable SPOKESHAVE_DATA"
    )


def _layers(folder: Path) -> dict[str, dict[str, Any]]:
    path = folder / "layers.json"
    try:
        table = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not a JSON file: {error}; {_AGAIN}") from error
    if not isinstance(table, dict) or not all(isinstance(entry, dict) for entry in table.values()):
        raise DataError(f"{path}: expected a table of layers, each a table of its geometry; {_AGAIN}")
    return dict(sorted(table.items()))


def _geometry(path: Path, entry: dict[str, Any]) -> Geometry:
    keys = {field.name: "input" if field.name == "input_pixels" else field.name for field in fields(Geometry)}
    try:
        return Geometry(**{name: int(entry[key]) for name, key in keys.items()})
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"layers.json has no whole geometry for {path}: {error!r}; {_AGAIN}") from error


def _read_layer(path: Path, entry: dict[str, Any]) -> PublishedConvolution:
    geometry = _geometry(path, entry)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}; {_AGAIN}") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != entry.get("sha256"):
        raise DataError(
            f"{path} ({len(content)} bytes): expected sha256 {entry.get('sha256')}, got {digest}; the file is damaged "
            f"or another one: {_AGAIN}"
        )
    lowered = read_csr(path, content)
    expected = geometry.weight_shape
    if lowered.shape != (expected[0], expected[1] * expected[2] * expected[3]):
        raise DataError(f"{path}: a layer of shape {expected} cannot have a lowered matrix {tuple(lowered.shape)}")
    return PublishedConvolution(lowered.view(expected), geometry)


def read_csr(path: Path, content: bytes) -> Float32[Tensor, "rows columns"]:
    """Turn a CSR matrix as `scipy.sparse.save_npz` writes it into a dense one, without unpickling anything.

    Args:
        path: of the file, for messages.
        content: its bytes.

    Returns:
        The matrix with its zeros.

    Raises:
        DataError: where the arrays do not describe a CSR matrix of finite numbers.
    """
    try:
        with np.load(BytesIO(content), allow_pickle=False) as arrays:
            data, indices, indptr, shape = (arrays[key] for key in ("data", "indices", "indptr", "shape"))
        rows, columns = (int(side) for side in shape)
    except Exception as error:  # a damaged archive can fail in any way; all of them mean the same to the user
        raise DataError(f"{path} is not a CSR matrix in an npz file: {type(error).__name__}: {error}") from error
    counts = np.diff(indptr)
    described = (
        len(indptr) == rows + 1
        and indptr[0] == 0
        and (counts >= 0).all()
        and indptr[-1] == len(indices) == len(data)
        and (not len(indices) or (indices.min() >= 0 and indices.max() < columns))
        and np.isfinite(data).all()
    )
    if not described:
        raise DataError(f"{path}: indptr, indices and data do not describe a finite {rows}x{columns} matrix; {_AGAIN}")
    dense = np.zeros((rows, columns), np.float32)
    dense[np.repeat(np.arange(rows), counts), indices] = data
    return torch.from_numpy(dense)
